"""The signal-to-noise ratio of the gradient over the global batch."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.facts import StepFacts
from workbench.signal import Signal

from .average import signal_of
from .drift import FALSE_ALARM
from .options import check_estimate
from .sample_snr import SnrState, seen


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientSnr:
    """Estimate ``|G|^2 / (tr(Sigma) / B)``: squared mean gradient over the variance of its estimate.

    ``B`` is the global batch size in force, so that this is ``B`` over the noise scale (McCandlish et
    al. 2018, "An Empirical Model of Large-Batch Training", section 2.2): the form of norms, one
    number for the whole model. Liu et al. 2020, "Understanding Why Neural Networks Generalize Well
    Through GSNR of Parameters", section 2, take the same ratio weight by weight and per sample.

    The averages of ``|G|^2_hat`` and ``S_hat`` over a window that adapts to drift, with Fieller's
    interval (:mod:`.estimate`). The noise is the denominator, so there is a value even where the
    gradient is lost in its noise: ``low`` is then 0. A negative ratio of averages, which no gradient
    has, is reported as 0. Another batch size in force changes the value at once.

    The signal ``gradient_snr`` is a pure number, 0 or more. It is undetermined before ``min_steps``
    split steps, and when the small batches never differ (the ratio is infinite). Steps without both
    norms, skipped steps and steps with a NaN or infinite number change nothing.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Split steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = GradientSnr()
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0, grad_sqnorm_big=2.0, origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        gradient_snr 1
    """

    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = "gradient_snr"

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)

    def init(self) -> SnrState:
        """Return the state before the first step."""
        return SnrState()

    def update(self, state: SnrState, facts: StepFacts) -> tuple[SnrState, Signal]:
        """Return the next state and the signal after ``facts``."""
        state = seen(state, facts, self)
        batch = state.batch

        def of_batch(ratio: float) -> float:
            return batch * max(ratio, 0.0)

        reason = "the small batches agree: there is no noise"
        return state, signal_of(state, self.name, of_batch, level=self.level, infinite=reason)
