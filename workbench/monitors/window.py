"""The past as a few dozen blocks: fine where it is recent, coarse where it is old."""

from __future__ import annotations

from dataclasses import dataclass

Block = tuple[float, float, float, float, float, float, float]
"""Steps, sum of weights ``w``, sums of ``w x`` and ``w y``, and sums of the squares and the
product of the whitened differences of neighbouring steps (``xx``, ``xy``, ``yy``)."""

Blocks = tuple[Block, ...]
"""Oldest first; the steps of a block are a power of two and never grow towards the present."""

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
    1941): with variances ``s / w_t``, ``E[(x_t - x_{t-1})^2 / (1/w_t + 1/w_{t-1})] = s``.

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
        (2.0, 2.0, 1.0, 2.0, 0.5, 0.0, 0.0)
    """
    xx = xy = yy = 0.0
    if window.last is not None:
        last_weight, last_x, last_y = window.last
        share = weight * last_weight / (weight + last_weight)
        step_x, step_y = x - last_x, y - last_y
        xx, xy, yy = share * step_x * step_x, share * step_x * step_y, share * step_y * step_y
    blocks = (*window.blocks, (1.0, weight, weight * x, weight * y, xx, xy, yy))
    return Window(_merged(blocks), window.steps + 1, (weight, x, y))


def _merged(blocks: Blocks) -> Blocks:
    size = 1.0
    first = len(blocks) - PER_SIZE - 1
    while first >= 0 and blocks[first][0] == size:
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


def newest(blocks: Blocks, steps: float, end: int | None = None) -> int:
    """Return the first index of the blocks before ``end`` that together hold ``steps`` steps.

    Example:
        >>> window = Window()
        >>> for step in range(20):
        ...     window = push(window, 1.0, float(step), 1.0)
        >>> newest(window.blocks, 10)
        5
    """
    start = len(blocks) if end is None else end
    held = 0.0
    while start > 0 and held < steps:
        start -= 1
        held += blocks[start][0]
    return start
