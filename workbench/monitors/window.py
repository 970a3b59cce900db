"""The past as a few dozen blocks: fine where it is recent, coarse where it is old."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp

Block = tuple[float, float, float, float, float, float, float]
"""Steps, sum of weights ``w``, sums of ``w x`` and ``w y``, and sums of the squares and the
product of the whitened differences of neighbouring steps (``xx``, ``xy``, ``yy``)."""

Blocks = tuple[Block, ...]
"""Oldest first; the steps of a block are a power of two and never grow towards the present.

After :func:`merge` a block may hold up to twice its power of two."""

PER_SIZE = 8
"""Blocks of one size. An average over them has some ``3 * PER_SIZE`` effective blocks."""


@dataclass(frozen=True, slots=True)
class Window:
    """The blocks, how many steps they hold, and the last step as ``(weight, x, y)``.

    Example:
        >>> Window().steps
        0
    """

    blocks: Blocks = ()
    steps: int = 0
    last: tuple[float, float, float] | None = None


def push(window: Window, weight: float, x: float, y: float) -> Window:
    """Return the window with one more step; ``O(log n)`` blocks for ``n`` steps.

    As soon as there are more than ``PER_SIZE`` blocks of one size, the two oldest of that size
    become one: an exponential histogram (Datar, Gionis, Indyk and Motwani 2002, section 3; for
    drifting averages Bifet and Gavalda 2007, section 4). Sums are exact: merging forgets nothing.

    Neighbouring steps' differences measure the sampling noise apart from any drift (von Neumann
    1941): with variances ``s / w_t``, ``E[(x_t - x_{t-1})^2 / (1/w_t + 1/w_{t-1})] = s``. The first
    difference counts for two, since the first step has none: the sums hold one per step.

    Args:
        window: As returned before; ``Window()`` at first.
        weight: Of this step in an average, above 0.
        x: Numerator of the step, finite.
        y: Denominator of the step, finite.

    Example:
        >>> window = Window()
        >>> for step in range(20):
        ...     window = push(window, 1.0, float(step), 1.0)
        >>> [int(block[0]) for block in window.blocks]
        [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]
        >>> window.blocks[0]
        (2.0, 2.0, 1.0, 2.0, 1.0, 0.0, 0.0)
    """
    xx = xy = yy = 0.0
    if window.last is not None:
        last_weight, last_x, last_y = window.last
        share = weight * last_weight / (weight + last_weight) * (2.0 if window.steps == 1 else 1.0)
        step_x, step_y = x - last_x, y - last_y
        xx, xy, yy = share * step_x * step_x, share * step_x * step_y, share * step_y * step_y
    blocks = (*window.blocks, (1.0, weight, weight * x, weight * y, xx, xy, yy))
    return Window(_merged(blocks), window.steps + 1, (weight, x, y))


def merge(older: Window, newer: Window, *, scale: float = 1.0) -> Window:
    """Return one window of two stretches of steps, ``older`` before ``newer``.

    Exact: the steps, and the sums of the weights, of ``w x`` and of ``w y``. Not known is one
    difference, that of the two steps at the seam; each stretch has as many differences as steps
    without it. The older half may be held in coarser blocks than if one window had seen all steps.

    Args:
        older: As returned by :func:`push`; an empty one changes nothing.
        newer: The same.
        scale: By how much the weights of ``newer`` are to grow to be comparable.

    Example:
        >>> window = Window()
        >>> for step in range(10):
        ...     window = push(window, 1.0, float(step), 1.0)
        >>> both = merge(window, window)
        >>> both.steps, sum(block[2] for block in both.blocks)
        (20, 90.0)
        >>> merge(Window(), window) == merge(window, Window()) == window
        True
    """
    if not older.steps:
        return newer
    if newer.last is None:
        return older
    scaled = newer.blocks
    if scale != 1.0:
        scaled = tuple((b[0], *(scale * each for each in b[1:])) for b in scaled)  # type: ignore[misc]
    weight, x, y = newer.last
    blocks = _fewer(_ordered((*older.blocks, *scaled)))
    return Window(blocks, older.steps + newer.steps, (scale * weight, x, y))


def _ordered(blocks: Blocks) -> list[Block]:
    """Join small old blocks until sizes, as powers of two, never grow towards the present."""
    kept: list[Block] = []
    for block in blocks:
        while kept and frexp(kept[-1][0])[1] < frexp(block[0])[1]:
            small = kept.pop()
            if not kept:
                block = _sum(small, block)
                break
            grown = _sum(kept.pop(), small)
            while kept and frexp(kept[-1][0])[1] < frexp(grown[0])[1]:
                grown = _sum(kept.pop(), grown)
            kept.append(grown)
        kept.append(block)
    return kept


def _fewer(kept: list[Block]) -> Blocks:
    """Join the two oldest blocks of a size while there are more than ``PER_SIZE`` of it."""
    size = 1.0
    while size <= kept[0][0]:
        same = [i for i, block in enumerate(kept) if size <= block[0] < 2.0 * size]
        for _ in range(len(same) - PER_SIZE):
            kept[same[0] : same[0] + 2] = [_sum(kept[same[0]], kept[same[0] + 1])]
            same[0] += 1  # the pair is of the next size
        size *= 2.0
    return tuple(kept)


def _merged(blocks: Blocks) -> Blocks:
    size = 1.0
    first = len(blocks) - PER_SIZE - 1
    while first >= 0 and blocks[first][0] < 2.0 * size:
        pair = _sum(blocks[first], blocks[first + 1])
        blocks = (*blocks[:first], pair, *blocks[first + 2 :])
        size *= 2.0
        first -= PER_SIZE
    return blocks


def _sum(a: Block, b: Block) -> Block:
    return (
        a[0] + b[0],
        a[1] + b[1],
        a[2] + b[2],
        a[3] + b[3],
        a[4] + b[4],
        a[5] + b[5],
        a[6] + b[6],
    )
