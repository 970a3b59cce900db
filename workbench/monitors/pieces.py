"""The newest steps in a few pieces: means and their sampling error, which a drift leaves alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from .window import Blocks

PIECES = 8
"""In how many pieces a window is looked at."""

_LOST = 1e-6


class Piece(NamedTuple):
    """Means of ``x`` and ``y`` over a stretch of steps.

    Attributes:
        steps: How many.
        middle: Where it lies: 0 is the present, -1 the start of the window.
        share: Its part of the window's weight.
        x: Mean of ``x``.
        y: Mean of ``y``.
        xx: Variance of the mean of ``x``, from neighbouring steps' differences.
        xy: Covariance of the two means.
        yy: Variance of the mean of ``y``.
    """

    steps: float
    middle: float
    share: float
    x: float
    y: float
    xx: float
    xy: float
    yy: float


@dataclass(frozen=True, slots=True)
class Past:
    """Sums over the newest blocks: entry ``i`` of each is the sum over the ``i`` newest.

    Attributes:
        steps: Of steps.
        sums: Of the other six numbers of a block.
        columns: Those six numbers themselves, newest first.
    """

    steps: Sequence[float]
    sums: tuple[Sequence[float], ...]
    columns: tuple[Sequence[float], ...]

    def newest(self, steps: float) -> int:
        """Return how many of the newest blocks hold at most ``steps`` steps, 1 or more."""
        return max(bisect_right(self.steps, steps) - 1, 1)


def past(blocks: Blocks) -> Past:
    """Return the sums over the newest blocks, for any number of them.

    Example:
        >>> blocks = ((2.0, 2.0, 4.0, 2.0, 1.0, 0.0, 0.0), (1.0, 1.0, 3.0, 1.0, 0.5, 0.0, 0.0))
        >>> past(blocks).steps
        [0.0, 1.0, 3.0]
    """
    columns = tuple(zip(*blocks[::-1], strict=True))
    sums = [list(accumulate(column, initial=0.0)) for column in columns]
    return Past(sums[0], tuple(sums[1:]), columns[1:])


def pieces(found: Past, held: int, count: int) -> list[Piece]:
    """Return the ``held`` newest blocks in up to ``count`` pieces of about equal length, newest first.

    The sums of a piece hold one estimate ``s`` of the variance per step and weight, so that
    ``Var(mean) = s / W`` with ``W`` the sum of the weights of the piece.

    Example:
        >>> blocks = ((2.0, 2.0, 4.0, 2.0, 1.0, 0.0, 0.0), (2.0, 2.0, 6.0, 2.0, 1.0, 0.0, 0.0))
        >>> new, old = pieces(past(blocks), 2, 2)
        >>> old
        Piece(steps=2.0, middle=-0.75, share=0.5, x=2.0, y=1.0, xx=0.25, xy=0.0, yy=0.0)
    """
    steps = found.steps
    weights, xs, ys, xxs, xys, yys = found.sums
    total, weight = steps[held], weights[held]
    made, start = [], 0
    for piece in range(1, count + 1):
        wanted = total * piece / count
        end = bisect_left(steps, wanted, start, held)
        if end > start + 1 and wanted - steps[end - 1] < steps[end] - wanted:
            end -= 1
        if end == start:
            continue
        n = steps[end] - steps[start]
        w = weights[end] - weights[start]
        if w > _LOST * weights[end]:
            x, y, xx = xs[end] - xs[start], ys[end] - ys[start], xxs[end] - xxs[start]
            xy, yy = xys[end] - xys[start], yys[end] - yys[start]
        else:  # beside far heavier newer steps the differences of sums have lost their digits
            w, x, y, xx, xy, yy = (sum(column[start:end]) for column in found.columns)
        per = 1.0 / n / w
        middle = -0.5 * (steps[end] + steps[start]) / total
        made.append(
            Piece(
                n,
                middle,
                w / weight,
                x / w,
                y / w,
                max(xx, 0.0) * per,
                xy * per,
                max(yy, 0.0) * per,
            )
        )
        start = end
    return made
