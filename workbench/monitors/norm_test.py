"""The norm test: from which batch size on the gradient's noise is a set share of its length."""

from __future__ import annotations

from dataclasses import dataclass, replace

from workbench.facts import StepFacts
from workbench.signal import Signal

from .drift import FALSE_ALARM
from .noise_scale import NoiseScale, NoiseScaleState
from .options import check_estimate, check_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class NormTest:
    """Estimate the smallest batch size that passes the norm test: ``tr(Sigma) / (theta^2 |G|^2)``.

    A batch of ``B`` samples passes when ``tr(Sigma) / B <= theta^2 |G|^2``: the mean gradient is then
    known to ``theta`` of its own length, root mean square (Byrd, Chin, Nocedal and Wu 2012, "Sample
    size selection in optimization methods for machine learning", section 3). They
    put the measured gradient, whose square is too large by ``tr(Sigma) / B``, in the place of ``G``;
    here it is the unbiased ``|G|^2_hat``. The value is the noise scale over ``theta^2``, with
    :class:`.NoiseScale`'s window and interval.

    The signal ``norm_test`` is in samples. It is undetermined whenever the noise scale is.

    Attributes:
        theta: The share of the gradient's length that its noise may have, above 0.
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Split steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = NormTest(theta=0.5)
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0, grad_sqnorm_big=2.0, origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        norm_test 256 samples
    """

    theta: float = 1.0
    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = "norm_test"

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)
        check_positive(self.name, "theta", self.theta)

    def init(self) -> NoiseScaleState:
        """Return the state before the first step."""
        return self._noise_scale().init()

    def update(self, state: NoiseScaleState, facts: StepFacts) -> tuple[NoiseScaleState, Signal]:
        """Return the next state and the signal after ``facts``."""
        state, noise = self._noise_scale().update(state, facts)
        part = 1.0 / self.theta / self.theta
        return state, replace(
            noise,
            name=self.name,
            value=part * noise.value,
            low=part * noise.low,
            high=part * noise.high,
        )

    def _noise_scale(self) -> NoiseScale:
        return NoiseScale(level=self.level, min_steps=self.min_steps, false_alarm=self.false_alarm)
