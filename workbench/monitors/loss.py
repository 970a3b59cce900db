"""The loss: as it is in each step, and smoothed over the steps that agree with the present."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite

from workbench.facts import StepFacts
from workbench.signal import Signal, exact, undetermined

from .drift import FALSE_ALARM
from .estimate import due, estimate
from .options import check_estimate
from .window import Window, merge, push

_LARGEST = 1e150
_NO_LOSS = undetermined("loss", reason="no step told its loss yet")
_NO_LOSSES = undetermined("loss_smoothed", reason="no step told its loss yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossState:
    """The signal of the last step whose loss is known."""

    signal: Signal = _NO_LOSS


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Report the mean loss over the global batch of one step: exact.

    On a step that does not tell its loss the last value stands, with the step it belongs to. When
    the loss is NaN or infinite the signal is undetermined and the state stays.

    Example:
        >>> facts = StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                   batch_size_global=8, batch_size_target=8, loss=0.25)
        >>> print(Loss().update(Loss().init(), facts)[1])
        loss 0.25
    """

    name = "loss"
    needs = ()

    def init(self) -> LossState:
        """Return the state before the first step."""
        return LossState()

    def update(self, state: LossState, facts: StepFacts) -> tuple[LossState, Signal]:
        """Return the next state and the signal after ``facts``."""
        if facts.loss is None or (facts.skipped and isfinite(facts.loss)):
            return state, state.signal
        if not isfinite(facts.loss):
            return state, undetermined(
                self.name, reason=f"the loss is {facts.loss}", step=facts.step
            )
        signal = exact(self.name, facts.loss, step=facts.step)
        return LossState(signal=signal), signal


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSmoothedState:
    """The last signal, blocks of ``x = loss`` with ``y = 1``, and the last step that told its loss.

    ``used_steps`` are the steps that the signal rests on.
    """

    signal: Signal = _NO_LOSSES
    window: Window = field(default_factory=Window)
    step: int = 0
    used_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSmoothed:
    """Estimate the mean loss near the present, with Student's interval.

    Steps are weighed by their samples, since the mean over ``B`` samples has a variance in
    proportion to ``1 / B``. The window is as long as its steps agree (:mod:`.estimate`): it
    shortens while the loss falls and lengthens on a plateau, where a moving average with a fixed
    rate would lag or shake.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = LossSmoothed()
        >>> state = monitor.init()
        >>> for step in range(1, 33):
        ...     facts = StepFacts(step=step, epoch=0, samples=8 * step, seconds=0.1, workers=1,
        ...                       batch_size_global=8, batch_size_target=8,
        ...                       loss=0.5 + 0.1 * (step % 2))
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        loss_smoothed 0.55 [0.4964, 0.6036]
    """

    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = "loss_smoothed"
    needs = ()

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)

    def init(self) -> LossSmoothedState:
        """Return the state before the first step."""
        return LossSmoothedState()

    def update(
        self, state: LossSmoothedState, facts: StepFacts
    ) -> tuple[LossSmoothedState, Signal]:
        """Return the next state and the signal after ``facts``."""
        loss = facts.loss
        if loss is None or facts.skipped or not facts.finite or facts.batch_size_global < 1:
            return state, state.signal
        if abs(loss) > _LARGEST:
            return state, state.signal
        window = push(state.window, float(facts.batch_size_global), loss, 1.0)
        grown = LossSmoothedState(
            signal=state.signal, window=window, step=facts.step, used_steps=state.used_steps
        )
        if not due(window.steps, state.used_steps):
            return grown, state.signal
        done = self._estimated(grown)
        return done, done.signal

    def merge(self, older: LossSmoothedState, newer: LossSmoothedState) -> LossSmoothedState:
        """Return the state after the steps of ``older``, then those of ``newer``.

        The sums are those of one run through all steps (:func:`.window.merge`); the signal is
        estimated anew. The state before any step changes nothing.

        Example:
            >>> monitor = LossSmoothed()
            >>> monitor.merge(monitor.init(), monitor.init()) == monitor.init()
            True
        """
        if not older.window.steps or not newer.window.steps:
            return newer if newer.window.steps else older
        return self._estimated(replace(newer, window=merge(older.window, newer.window)))

    def _estimated(self, state: LossSmoothedState) -> LossSmoothedState:
        if state.window.steps < self.min_steps:
            reason = f"{state.window.steps} of {self.min_steps} steps"
            signal = undetermined(self.name, reason=reason, step=state.step)
            return replace(state, signal=signal)
        found = estimate(
            state.window, level=self.level, false_alarm=self.false_alarm, positive=False
        )
        signal = Signal(
            name=self.name,
            value=found.value,
            low=found.low,
            high=found.high,
            level=self.level,
            step=state.step,
        )
        return replace(state, signal=signal, used_steps=found.steps)
