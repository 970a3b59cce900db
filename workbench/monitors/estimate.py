"""One number with its interval out of a window: the ratio of averages at the present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

from .drift import FALSE_ALARM, Scale, gaps, levels, line, longest, scale_of
from .kernel import CURVE, LINE, MEAN, kernel
from .pieces import PIECES, Piece, past, pieces
from .ratio import Moments, fieller, weighted
from .window import Window

EVERY_STEP = 32
"""So many steps are looked at one by one; later ones when steps grew by 3 to 6 %."""

SELDOM = 16
"""And never more seldom than this, so that a sudden change is seen however long the past is."""

DOUBT = 6.0
"""A line moves the point only as far as its square, in errors, exceeds this."""

STEEP = 9.0
"""From this squared error on a line is certain, and the interval allows for a parabola."""

BEND = 0.01
"""What a straight logarithm of the ratio may hide, relative, per cubed change over the window."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio of averages with its interval, and how many steps it rests on.

    ``value``, ``low`` and ``high`` are NaN when the denominator is not positive.

    Example:
        >>> Estimate(812.0, 640.0, 1010.0, 300).steps
        300
    """

    value: float
    low: float
    high: float
    steps: int


def due(steps: int, used_steps: int = 0) -> bool:
    """Return whether a window of ``steps`` steps is worth a new estimate after its last step.

    After every step while the last estimate rests on fewer than 32, after every 2nd while on fewer
    than 64, every 4th, every 8th, and every 16th from 256 on. In between an estimate of something
    steady could not move by more than a small part of its own error; while something drifts the
    window is short, and estimates follow each other faster.

    Args:
        steps: In the window.
        used_steps: That the last estimate rests on; all of them if 0.

    Example:
        >>> [steps for steps in range(398, 450) if due(steps)]
        [400, 416, 432, 448]
        >>> [steps for steps in range(398, 450) if due(steps, used_steps=130)]
        [400, 408, 416, 424, 432, 440, 448]
    """
    every = 1 << ((used_steps or steps) // EVERY_STEP).bit_length()
    return steps < EVERY_STEP or every == 1 or steps % min(every, SELDOM) == 0


def estimate(
    window: Window, *, level: float, false_alarm: float = FALSE_ALARM, positive: bool = True
) -> Estimate:
    """Return ``E[x] / E[y]`` at the present.

    The window is as long as the data lie on one line (:func:`.drift.longest`). The *interval* is
    Fieller's (:func:`.ratio.fieller`) for the end of that line, so that it holds whether there is
    a drift or not: no interval can be as short as that of a mean and still hold under a drift too
    weak to be seen (Low 1997). Where the line is certain, the interval is that of a parabola's end.
    The *point* is the mean of the window while no line is seen, and moves to its end in proportion
    to ``1 - DOUBT / z^2`` (the non-negative garrote: Breiman 1995), ``z`` being the line's rise in errors.

    Args:
        window: Two steps or more.
        level: Confidence, between 0 and 1.
        false_alarm: Of each comparison that may shorten the window.
        positive: Whether ``x`` and ``y`` are positive by nature.

    Example:
        >>> from .window import push
        >>> window = Window()
        >>> for step in range(64):
        ...     window = push(window, 1.0, 3.0 + 0.1 * (step % 3 - 1), 1.0)
        >>> found = estimate(window, level=0.95)
        >>> round(found.value, 2), found.low < 3.0 < found.high, found.steps
        (3.0, True, 64)
    """
    sums = past(window.blocks)
    held = longest(sums, false_alarm=false_alarm, positive=positive)
    found = pieces(sums, held, PIECES)
    steps = int(sums.steps[held])
    scale = scale_of(found, positive)
    level_of = levels(found, scale)
    means, ends = kernel(found, level_of, MEAN), kernel(found, level_of, LINE)
    certainty = _certainty(found, scale, means, ends)
    end = weighted(found, ends)
    mean = scale.x * scale.unit_x / (scale.y * scale.unit_y) if scale.y > 0.0 else nan
    value = _point(mean, end, max(1.0 - DOUBT / certainty, 0.0) if certainty else 0.0, positive)
    if isnan(value):
        return Estimate(nan, nan, nan, steps)
    bend = 0.0
    if certainty > STEEP:
        end = weighted(found, kernel(found, level_of, CURVE))
        bend = BEND * min(abs(line(found, scale).slope), 3.0) ** 3 if positive else 0.0
    low, high = fieller(end, level)
    low, high = low * (1.0 - bend), high * (1.0 + bend)
    return Estimate(value, min(low, value), max(high, value), steps)


def _certainty(
    found: Sequence[Piece], scale: Scale, means: Sequence[float], ends: Sequence[float]
) -> float:
    """Return the squared difference of end and mean in units of its variance."""
    gap = error = 0.0
    values, errors = gaps(found, scale)
    for value, own, mean, end in zip(values, errors, means, ends, strict=True):
        more = end - mean
        gap += more * value
        error += more * more * own
    return gap * gap / error if error > 0.0 else 0.0


def _point(mean: float, end: Moments, trust: float, positive: bool) -> float:
    """Return the point ``trust`` of the way from the mean of the window to its end."""
    if trust == 0.0 or isnan(mean):
        return mean
    if not end.y > 0.0:
        return nan
    last = end.x / end.y
    if not positive:
        return mean + trust * (last - mean)
    if mean <= 0.0 or last <= 0.0:
        return mean
    grown: float = (last / mean) ** trust
    return mean * grown
