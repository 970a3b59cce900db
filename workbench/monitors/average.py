"""A ratio of two averages near the present, as last estimated: what monitors with intervals keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf, isfinite, isnan, nan
from typing import Protocol, TypeVar

from workbench.facts import StepFacts
from workbench.signal import Signal, undetermined

from .estimate import due, estimate
from .window import Window, push


class Estimating(Protocol):
    """The options that every monitor with an interval has."""

    @property
    def level(self) -> float:
        """Confidence of the interval."""
        ...

    @property
    def min_steps(self) -> int:
        """Steps before there is a value."""
        ...

    @property
    def false_alarm(self) -> float:
        """Chance of one comparison to shorten the window for nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """``E[x] / E[y]`` with its interval, and the window it comes from.

    Attributes:
        value: Point estimate; infinite when ``y`` was always 0, NaN when undetermined.
        low: Lower end of the interval.
        high: Upper end.
        step: The step after which it was estimated.
        reason: How it was obtained, or why it is undetermined.
        window: Blocks of ``x`` and ``y``.

    Example:
        >>> Average().reason
        'no step was measured yet'
    """

    value: float = nan
    low: float = nan
    high: float = nan
    step: int = 0
    reason: str = "no step was measured yet"
    window: Window = field(default_factory=Window)


Kept = TypeVar("Kept", bound=Average)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured step: numerator, denominator (0 or more) and weight (above 0) in the average."""

    x: float
    y: float
    weight: float = 1.0


def averaged(
    state: Kept,
    sample: Sample,
    monitor: Estimating,
    facts: StepFacts,
    *,
    missing: str,
    positive: bool = True,
) -> Kept:
    """Return ``state`` with one more measured step, estimated anew when that is due.

    Args:
        state: As returned before.
        sample: Of this step, finite.
        monitor: Whose options to use.
        facts: Of this step; ``origin`` becomes the reason.
        missing: The reason when the mean of ``y`` is not above 0.
        positive: Whether ``x`` is positive by nature, so that a drift of the ratio has a logarithm.

    Example:
        >>> from workbench.monitors import GradientSnr
        >>> facts = StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                   batch_size_global=8, batch_size_target=8, origin="ranks")
        >>> state = Average()
        >>> for _ in range(8):
        ...     state = averaged(state, Sample(6.0, 2.0), GradientSnr(), facts, missing="no y")
        >>> state.value, state.reason
        (3.0, 'ranks')
    """
    window = push(state.window, sample.weight, sample.x, sample.y)
    if not due(window.steps):
        return replace(state, window=window)
    if window.steps < monitor.min_steps:
        reason = f"{window.steps} of {monitor.min_steps} measured steps"
        return replace(state, window=window, step=facts.step, reason=reason)
    value, low, high = _ratio(window, sample, monitor, positive)
    reason = missing if isnan(value) else facts.origin
    return replace(
        state, value=value, low=low, high=high, step=facts.step, reason=reason, window=window
    )


def _ratio(
    window: Window, sample: Sample, monitor: Estimating, positive: bool
) -> tuple[float, float, float]:
    level, false_alarm = monitor.level, monitor.false_alarm
    found = estimate(window, level=level, false_alarm=false_alarm, positive=positive)
    if not isnan(found.value):
        return found.value, found.low, found.high
    if sample.y == 0.0 < sample.x:  # no y is negative, so one mean of 0 says that all were 0
        return inf, inf, inf
    return nan, nan, nan


def signal_of(
    state: Average,
    name: str,
    function: Callable[[float], float],
    *,
    level: float,
    unit: str = "",
    reason: str = "",
    infinite: str = "it is infinite",
) -> Signal:
    """Return the signal that is a monotone ``function`` of the average, at its value and both ends.

    The image of an interval under a monotone function is an interval of the same level.

    Args:
        state: Its step and reason become the signal's.
        name: Of the signal.
        function: Rising or falling; from all that the average and its ends may be, infinity too.
        level: Confidence.
        unit: Of the signal.
        reason: Instead of the state's, where there is a value.
        infinite: The reason when the function's value is infinite.

    Example:
        >>> state = Average(value=2.0, low=1.0, high=4.0, step=9)
        >>> print(signal_of(state, "half", lambda x: x / 2.0, level=0.95))
        half 1 [0.5, 2]
    """
    if isnan(state.value):
        return undetermined(name, reason=state.reason, unit=unit, step=state.step)
    value, one, other = function(state.value), function(state.low), function(state.high)
    if not isfinite(value):
        return undetermined(name, reason=infinite, unit=unit, step=state.step)
    return Signal(
        name=name,
        value=value,
        low=min(one, other, value),
        high=max(one, other, value),
        level=level,
        unit=unit,
        step=state.step,
        reason=reason or state.reason,
    )
