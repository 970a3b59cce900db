"""One number with its interval out of a window: the average ratio near the present."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isqrt, nan

from .drift import FALSE_ALARM, part, recent
from .ratio import Moments, fieller, moments
from .window import Blocks, Window, newest

DRIFT_ALLOWANCE = 1.25
"""How far the interval reaches after the window's own drift, in units of half against half.

Under a straight drift the present lies one such unit from the mean, under a bent one further.
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
    is Fieller's (:func:`.ratio.fieller`), stretched on the side where the newer half of the
    window lies: a drift that is too weak to cut the window still shows there.

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
    step_x, step_y = new.x - old.x, new.y - old.y
    error_x = found.xx * (found.y / found.x) * (found.y / found.x) if found.x else inf
    if error_x >= found.yy:
        drift = (step_x - found.x / found.y * step_y) / found.y * DRIFT_ALLOWANCE
        return low + min(drift, 0.0), high + max(drift, 0.0)
    # The denominator is the uncertain one: its error is even in 1/ratio, where infinity is near.
    drift = (step_y - found.y / found.x * step_x) / found.x * DRIFT_ALLOWANCE
    if low > 0.0:
        low = 1.0 / (1.0 / low + max(drift, 0.0))
    if drift < 0.0 and high < inf:
        inverse = 1.0 / high + drift
        high = 1.0 / inverse if inverse > 0.0 else inf
    return low, high
