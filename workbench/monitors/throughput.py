"""Throughput: samples a second over the last steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from workbench.facts import StepFacts
from workbench.signal import Signal, exact, undetermined

from .options import check_count

_NAME, _UNIT = "throughput", "samples/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputState:
    """``(samples, seconds)`` of the last steps, and the shape of the job in which they ran."""

    steps: tuple[tuple[int, float], ...] = ()
    workers: int = 0
    batch_size_target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Report all samples of the last steps over all their seconds: exact.

    The ratio of sums, not the mean of ratios: a short step does not count as much as a long one.
    A change of the number of workers or of the batch size in force starts the window anew, so
    that the value always belongs to the job as it is. Skipped steps count: they took their time.
    Undetermined while no time has passed; a time that is negative, NaN or infinite is left out.

    Attributes:
        window_steps: Steps in the window, 1 or more.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> facts = StepFacts(step=1, epoch=0, samples=64, seconds=0.5, workers=1,
        ...                   batch_size_global=64, batch_size_target=64)
        >>> print(Throughput().update(Throughput().init(), facts)[1])
        throughput 128 samples/s
    """

    window_steps: int = 50
    name = _NAME
    needs = ()

    def __post_init__(self) -> None:
        check_count(self.name, "window_steps", self.window_steps, least=1)

    def init(self) -> ThroughputState:
        """Return the state before the first step."""
        return ThroughputState()

    def update(self, state: ThroughputState, facts: StepFacts) -> tuple[ThroughputState, Signal]:
        """Return the next state and the signal after ``facts``."""
        steps = state.steps
        if (facts.workers, facts.batch_size_target) != (state.workers, state.batch_size_target):
            steps = ()
        if isfinite(facts.seconds) and facts.seconds >= 0.0:
            steps = (*steps, (facts.batch_size_global, facts.seconds))[-self.window_steps :]
        done = ThroughputState(
            steps=steps, workers=facts.workers, batch_size_target=facts.batch_size_target
        )
        return done, _signal(steps, facts.step)


def _signal(steps: tuple[tuple[int, float], ...], step: int) -> Signal:
    samples = sum([item[0] for item in steps])
    seconds = sum([item[1] for item in steps])
    if not seconds > 0.0:
        return undetermined(_NAME, reason="no time has passed", unit=_UNIT, step=step)
    return exact(_NAME, samples / seconds, unit=_UNIT, step=step)
