"""How far back the past still agrees with the present, and where it is heading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from .student import t_quantile
from .window import Block, Blocks, newest

FIRST_STEPS = 16
"""The present: the comparison starts with the last 16 steps."""

FALSE_ALARM = 0.01
"""Chance that one comparison cuts a past that has not changed."""

SMALLEST_SHARE = 0.125
"""A rest of the past shorter than this share of the window moves it too little to be judged."""


@dataclass(frozen=True, slots=True)
class Part:
    """Means of ``x`` and ``y`` over a stretch of steps, with the sampling error alone.

    The error comes from neighbouring steps' differences, which a drift leaves alone; it is what
    a difference of two stretches is to be compared with.
    """

    steps: float
    weight: float
    x: float
    y: float
    xx: float
    xy: float
    yy: float


def part(blocks: Sequence[Block]) -> Part:
    """Return the means over one or more ``blocks`` and their sampling error.

    Example:
        >>> found = part([(2.0, 2.0, 4.0, 2.0, 1.0, 0.0, 0.0)])
        >>> found.x, found.y, found.xx
        (2.0, 1.0, 0.25)
    """
    steps = weight = sum_x = sum_y = xx = xy = yy = 0.0
    for n, w, x, y, block_xx, block_xy, block_yy in blocks:
        steps += n
        weight += w
        sum_x += x
        sum_y += y
        per_step = w / n  # the sums hold n estimates of s, and Var(mean) = sum(w s) / W^2
        xx += per_step * block_xx
        xy += per_step * block_xy
        yy += per_step * block_yy
    x, y = sum_x / weight, sum_y / weight
    xx, xy, yy = xx / weight / weight, xy / weight / weight, yy / weight / weight
    return Part(steps, weight, x, y, xx, xy, yy)


def recent(blocks: Blocks, *, false_alarm: float = FALSE_ALARM) -> Blocks:
    """Return the newest blocks, as many as agree on the ratio ``E[x] / E[y]``.

    Starts from the last ``FIRST_STEPS`` steps and adds the stretch before them, each time as long
    as what is already there, until a stretch disagrees (Lepski 1990; as a window: Bifet and
    Gavalda 2007, "ADWIN"). The window is then the newer half of what agreed: a drift too weak to
    be seen biases the whole as much as its error, and the half far less (undersmoothing).
    Nothing is deleted, so that a false alarm is over at the next estimate.

    Two stretches are compared by ``z = Y x - X y`` with the pooled means ``X, Y``: its mean is 0
    in both when their ratio is one and the same. A falling loss that shrinks ``x`` and ``y``
    alike therefore cuts nothing.

    Args:
        blocks: Oldest first.
        false_alarm: Two-sided level of each of the about ``log2(steps / 16)`` comparisons.

    Example:
        >>> from .window import Window, push
        >>> window = Window()
        >>> for step in range(512):
        ...     noise = 0.1 * ((step * 7) % 5 - 2)
        ...     window = push(window, 1.0, (1.0 if step < 384 else 5.0) + noise, 1.0)
        >>> int(part(recent(window.blocks)).steps)
        64
    """
    start = newest(blocks, FIRST_STEPS)
    if start == 0:
        return blocks
    now = part(blocks[start:])
    while start > 0:
        chunk = newest(blocks, now.steps, end=start)
        past = part(blocks[chunk:start])
        if past.steps < SMALLEST_SHARE * now.steps:
            return blocks
        if _differ(past, now, false_alarm):
            return blocks[newest(blocks, 0.5 * now.steps) :]
        now, start = _joined(past, now), chunk
    return blocks


def _differ(old: Part, new: Part, false_alarm: float) -> bool:
    share = old.weight / (old.weight + new.weight)
    x = share * old.x + (1.0 - share) * new.x
    y = max(share * old.y + (1.0 - share) * new.y, 0.0)
    # In relative units, so that neither squares nor products leave the range of a float.
    unit_x = abs(x) or sqrt(old.xx + new.xx) or 1.0
    unit_y = y or sqrt(old.yy + new.yy) or 1.0
    p, q = x / unit_x, y / unit_y
    gap = q * (new.x - old.x) / unit_x - p * (new.y - old.y) / unit_y
    spread = 0.0
    for m in (old, new):
        spread += q * q * m.xx / unit_x / unit_x - 2.0 * p * q * m.xy / unit_x / unit_y
        spread += p * p * m.yy / unit_y / unit_y
    # n whitened differences of neighbours are worth 2n/3 degrees of freedom (von Neumann 1941).
    dof = 4.0 / 3.0 * min(old.steps, new.steps)
    limit = t_quantile(1.0 - 0.5 * false_alarm, dof)
    return abs(gap) > limit * sqrt(max(spread, 0.0)) and abs(gap) > 1e-9


def _joined(a: Part, b: Part) -> Part:
    weight = a.weight + b.weight
    p, q = a.weight / weight, b.weight / weight
    return Part(
        a.steps + b.steps,
        weight,
        p * a.x + q * b.x,
        p * a.y + q * b.y,
        p * p * a.xx + q * q * b.xx,
        p * p * a.xy + q * q * b.xy,
        p * p * a.yy + q * q * b.yy,
    )
