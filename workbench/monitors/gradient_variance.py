"""The gradient variance: how much the gradients of single samples scatter around their mean."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from workbench.facts import StepFacts
from workbench.signal import Signal, undetermined

from .drift import FALSE_ALARM
from .estimate import due, estimate
from .options import check_estimate
from .parts import split
from .window import Window, merge, push

_NAME = "gradient_variance"
_START = undetermined(_NAME, reason="no step was split yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientVarianceState:
    """The last signal, blocks of ``x = S_hat`` with ``y = 1``, the last split step and its origin.

    ``used_steps`` are the split steps that the signal rests on.
    """

    signal: Signal = _START
    window: Window = field(default_factory=Window)
    step: int = 0
    origin: str = ""
    used_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientVariance:
    """Estimate ``tr(Sigma)``, the variance of one sample's gradient, summed over all weights.

    ``S_hat = B (small - big) / (k - 1)`` of a step with ``k`` small batches is unbiased (McCandlish
    et al. 2018, appendix A.1) with relative variance ``2 / (d_eff (k - 1))`` under Gaussian
    noise: steps are averaged with weight ``k - 1``. Student's interval, over a window that
    adapts to drift: see :mod:`.estimate`. Micro-batches of one sample give the trace of the
    sample covariance itself. The mean over ``B`` samples has variance ``tr(Sigma) / B``.

    The signal ``gradient_variance`` has the unit of the squared gradient, (loss / weight)^2. It is
    undetermined before ``min_steps`` split steps.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Split steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = GradientVariance(min_steps=4)
        >>> state = monitor.init()
        >>> for step in range(1, 9):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0, grad_sqnorm_big=2.0, origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        gradient_variance 64
    """

    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = _NAME

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)

    def init(self) -> GradientVarianceState:
        """Return the state before the first step."""
        return GradientVarianceState()

    def update(
        self, state: GradientVarianceState, facts: StepFacts
    ) -> tuple[GradientVarianceState, Signal]:
        """Return the next state and the signal after ``facts``."""
        parts = split(facts)
        if parts is None:
            return state, state.signal
        window = push(state.window, facts.small_batches - 1.0, parts.noise, 1.0)
        grown = GradientVarianceState(
            signal=state.signal,
            window=window,
            step=facts.step,
            origin=facts.origin,
            used_steps=state.used_steps,
        )
        if not due(window.steps, state.used_steps):
            return grown, state.signal
        done = self._estimated(grown)
        return done, done.signal

    def merge(
        self, older: GradientVarianceState, newer: GradientVarianceState
    ) -> GradientVarianceState:
        """Return the state after the steps of ``older``, then those of ``newer``.

        The sums are those of one run through all steps (:func:`.window.merge`); the signal is
        estimated anew. The state before any step changes nothing.

        Example:
            >>> monitor = GradientVariance()
            >>> monitor.merge(monitor.init(), monitor.init()) == monitor.init()
            True
        """
        if not older.window.steps or not newer.window.steps:
            return newer if newer.window.steps else older
        return self._estimated(replace(newer, window=merge(older.window, newer.window)))

    def _estimated(self, state: GradientVarianceState) -> GradientVarianceState:
        if state.window.steps < self.min_steps:
            reason = f"{state.window.steps} of {self.min_steps} split steps"
            signal = undetermined(self.name, reason=reason, step=state.step)
            return replace(state, signal=signal)
        found = estimate(state.window, level=self.level, false_alarm=self.false_alarm)
        signal = Signal(
            name=self.name,
            value=found.value,
            low=max(found.low, 0.0),
            high=found.high,
            level=self.level,
            step=state.step,
            reason=state.origin,
        )
        return replace(state, signal=signal, used_steps=found.steps)
