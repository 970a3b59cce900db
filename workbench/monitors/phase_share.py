"""Where the time of a step goes: the share of one phase in the seconds of the last steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from workbench.errors import ConfigurationError
from workbench.facts import StepFacts
from workbench.signal import Signal, exact, undetermined

from .options import check_count
from .protocol import PHASES

PHASE_NAMES = ("data", "forward", "backward", "communication", "optimizer")
"""The phases of a step, in their order."""

_CLOCK = 0.01
"""By which share of the step two readings of clocks may disagree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseShareState:
    """``(seconds in the phase, seconds)`` of the last measured steps, and the job's shape in them.

    Attributes:
        steps: Oldest first.
        workers: World size in these steps.
        batch_size_target: Global batch size in force in these steps.
        measured: The last measured step.
    """

    steps: tuple[tuple[float, float], ...] = ()
    workers: int = 0
    batch_size_target: int = 0
    measured: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseShare:
    """Report which share of the time of the last measured steps went to one phase: exact.

    The ratio of sums, not the mean of shares, so that a slow step counts for as long as it took;
    both are means over ranks. The five shares add up to what the measured phases explain; the
    rest is the loop's own (logging, evaluation, zeroing gradients). A change of the number of
    workers or of the batch size in force starts the window anew. A time that is negative, NaN,
    infinite or longer than its step is left out.

    The signal ``share_data`` (``share_forward`` ...) is a pure number from 0 to 1. It is undetermined
    until a step is measured; between measured steps the last value stands, with its step.

    Attributes:
        phase: One of :data:`PHASE_NAMES`.
        window_steps: Measured steps in the window, 1 or more.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> from workbench.facts import PhaseSeconds
        >>> facts = StepFacts(step=1, epoch=0, samples=64, seconds=0.5, workers=1,
        ...                   batch_size_global=64, batch_size_target=64,
        ...                   phases=PhaseSeconds(data=0.1, forward=0.1, backward=0.2))
        >>> monitor = PhaseShare(phase="data")
        >>> print(monitor.update(monitor.init(), facts)[1])
        share_data 0.2
    """

    phase: str = "data"
    window_steps: int = 50
    needs = (PHASES,)

    def __post_init__(self) -> None:
        if self.phase not in PHASE_NAMES:
            raise ConfigurationError(
                f"monitor phase_share: phase is {self.phase!r}; allowed: {', '.join(PHASE_NAMES)}; "
                "choose one of these"
            )
        check_count(self.name, "window_steps", self.window_steps, least=1)

    @property
    def name(self) -> str:
        """The name of its signal."""
        return f"share_{self.phase}"

    def init(self) -> PhaseShareState:
        """Return the state before the first step."""
        return PhaseShareState()

    def update(self, state: PhaseShareState, facts: StepFacts) -> tuple[PhaseShareState, Signal]:
        """Return the next state and the signal after ``facts``."""
        shape = (facts.workers, facts.batch_size_target)
        if shape != (state.workers, state.batch_size_target):
            state = PhaseShareState(workers=shape[0], batch_size_target=shape[1])
        if facts.phases is not None:
            state = self._measured(state, getattr(facts.phases, self.phase), facts)
        return state, self._signal(state)

    def _measured(self, state: PhaseShareState, part: float, facts: StepFacts) -> PhaseShareState:
        whole = facts.seconds
        if not (isfinite(whole) and 0.0 <= part <= whole * (1.0 + _CLOCK)):
            return state
        steps = (*state.steps, (min(part, whole), whole))[-self.window_steps :]
        return PhaseShareState(
            steps=steps,
            workers=state.workers,
            batch_size_target=state.batch_size_target,
            measured=facts.step,
        )

    def _signal(self, state: PhaseShareState) -> Signal:
        whole = sum([item[1] for item in state.steps])
        if not whole > 0.0:
            reason = "no step of this job's shape was measured yet"
            return undetermined(self.name, reason=reason, step=state.measured)
        part = sum([item[0] for item in state.steps])
        return exact(self.name, min(part / whole, 1.0), step=state.measured)
