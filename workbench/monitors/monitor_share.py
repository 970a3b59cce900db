"""What monitoring costs: the share of measuring in the seconds of the last steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from workbench.facts import StepFacts
from workbench.signal import Signal, exact, undetermined

from .options import check_count

_NAME = "monitor_share"
_PARTS = 16

Part = tuple[int, float, float]
"""Steps, seconds of measuring, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorShareState:
    """Sums over stretches of steps, oldest first; the last stretch is still growing."""

    parts: tuple[Part, ...] = ()
    workers: int = 0
    batch_size_target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorShare:
    """Report which share of the time of the last steps measuring took: exact.

    ``sum(monitor_seconds) / sum(seconds)`` over the last ``window_steps`` steps, to a sixteenth of
    them: long enough to hold steps that were measured and steps that were not, in their proportion.
    The budget given as ``overhead`` is judged by it. A change of the number of workers or of the
    batch size in force starts the window anew. A step with a time that is negative, NaN or infinite,
    or that took less than its measuring, is left out.

    It counts the time in which the program ran the monitors' own code. What measuring leaves for
    the accelerator to do later is not in it; compare the throughput with and without.

    The signal ``monitor_share`` is a pure number from 0 to 1, undetermined while no time has passed.

    Attributes:
        window_steps: Steps in the window, 16 or more.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> facts = StepFacts(step=1, epoch=0, samples=64, seconds=0.5, workers=1,
        ...                   batch_size_global=64, batch_size_target=64, monitor_seconds=0.002)
        >>> print(MonitorShare().update(MonitorShare().init(), facts)[1])
        monitor_share 0.004
    """

    window_steps: int = 512
    name = _NAME
    needs = ()

    def __post_init__(self) -> None:
        check_count(self.name, "window_steps", self.window_steps, least=_PARTS)

    def init(self) -> MonitorShareState:
        """Return the state before the first step."""
        return MonitorShareState()

    def update(
        self, state: MonitorShareState, facts: StepFacts
    ) -> tuple[MonitorShareState, Signal]:
        """Return the next state and the signal after ``facts``."""
        parts = state.parts
        if (facts.workers, facts.batch_size_target) != (state.workers, state.batch_size_target):
            parts = ()
        if 0.0 <= facts.monitor_seconds <= facts.seconds < inf:
            parts = self._with(parts, facts)
        done = MonitorShareState(
            parts=parts, workers=facts.workers, batch_size_target=facts.batch_size_target
        )
        return done, _signal(parts, facts.step)

    def _with(self, parts: tuple[Part, ...], facts: StepFacts) -> tuple[Part, ...]:
        if not parts or parts[-1][0] >= self.window_steps // _PARTS:
            kept = parts[-_PARTS + 1 :]
            return (*kept, (1, facts.monitor_seconds, facts.seconds))
        steps, measuring, seconds = parts[-1]
        return (
            *parts[:-1],
            (steps + 1, measuring + facts.monitor_seconds, seconds + facts.seconds),
        )


def _signal(parts: tuple[Part, ...], step: int) -> Signal:
    seconds = sum([part[2] for part in parts])
    if not seconds > 0.0:
        return undetermined(_NAME, reason="no time has passed", step=step)
    return exact(_NAME, sum([part[1] for part in parts]) / seconds, step=step)
