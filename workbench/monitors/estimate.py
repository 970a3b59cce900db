"""One number with its interval out of a window: the average ratio near the present."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isqrt, nan, sqrt

from .drift import FALSE_ALARM, Part, part, recent
from .ratio import Moments, fieller, moments
from .window import Blocks, Window, newest

DRIFT_DOUBT = 0.75
"""Standard errors by which the drift inside a window is taken larger than it looks.

Without it one fast but not yet visible drift in six escapes the interval; with it one in ten.
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio of averages with its interval, and how many steps it rests on.

    ``value``, ``low`` and ``high`` are NaN when the mean denominator is not positive.

    Example:
        >>> Estimate(812.0, 640.0, 1010.0, 300).steps
        300
    """

    value: float
    low: float
    high: float
    steps: int


def due(steps: int) -> bool:
    """Return whether a window of ``steps`` steps is worth a new estimate after its last step.

    Every step up to 64, then about every ``sqrt(steps) / 4``-th: the estimate cannot move by more
    than a small part of its own error in between.

    Example:
        >>> [steps for steps in range(398, 412) if due(steps)]
        [400, 405, 410]
    """
    return steps <= 64 or steps % (isqrt(steps) // 4) == 0


def estimate(window: Window, *, level: float, false_alarm: float = FALSE_ALARM) -> Estimate:
    """Return ``E[x] / E[y]`` near the present.

    The window is as long as the data agree with one ratio (:func:`.drift.recent`), the interval
    is Fieller's (:func:`.ratio.fieller`), stretched to where a drift too weak to cut the window
    may have led: by the difference of the window's halves and ``DRIFT_DOUBT`` standard errors.

    Args:
        window: Two steps or more.
        level: Confidence, between 0 and 1.
        false_alarm: Of each comparison that may shorten the window.

    Example:
        >>> from .window import push
        >>> window = Window()
        >>> for step in range(64):
        ...     window = push(window, 1.0, 3.0 + 0.1 * (step % 3 - 1), 1.0)
        >>> found = estimate(window, level=0.95)
        >>> round(found.value, 2), found.low < 3.0 < found.high, found.steps
        (3.0, True, 64)
    """
    blocks = recent(window.blocks, false_alarm=false_alarm)
    steps = int(sum(block[0] for block in blocks))
    found = moments(blocks)
    if not found.y > 0.0:
        return Estimate(nan, nan, nan, steps)
    value = found.x / found.y
    low, high = fieller(found, level)
    low, high = _stretched(blocks, found, min(low, value), max(high, value))
    return Estimate(value, low, high, steps)


def _stretched(blocks: Blocks, found: Moments, low: float, high: float) -> tuple[float, float]:
    """Return the interval, reaching after the difference of the window's halves."""
    half = newest(blocks, 0.5 * sum(block[0] for block in blocks))
    if not 0 < half < len(blocks):
        return low, high
    old, new = part(blocks[:half]), part(blocks[half:])
    error_x = found.xx * (found.y / found.x) * (found.y / found.x) if found.x else inf
    if error_x >= found.yy:
        slope = found.x / found.y
        down, up = _reach(old, new, 1.0 / found.y, -slope / found.y)
        return low + down, high + up
    # The denominator is the uncertain one: its error is even in 1/ratio, where infinity is near.
    slope = found.y / found.x
    down, up = _reach(old, new, -slope / found.x, 1.0 / found.x)
    low = 1.0 / (1.0 / low + up) if low > 0.0 else low
    inverse = 1.0 / high + down
    return low, 1.0 / inverse if inverse > 0.0 else inf


def _reach(old: Part, new: Part, a: float, b: float) -> tuple[float, float]:
    """Return how far ``a x + b y`` may have moved on from the window's mean, down and up.

    Under a straight drift the present is as far from the mean as the two halves are apart.
    """
    gap = a * (new.x - old.x) + b * (new.y - old.y)
    xx, xy, yy = old.xx + new.xx, old.xy + new.xy, old.yy + new.yy
    spread = DRIFT_DOUBT * sqrt(max(a * a * xx + 2.0 * a * b * xy + b * b * yy, 0.0))
    return min(gap - spread, 0.0), max(gap + spread, 0.0)
