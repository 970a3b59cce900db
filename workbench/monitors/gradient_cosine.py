"""The cosine between gradients: of small batches in one step, and of one step and the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt

from workbench.facts import StepFacts
from workbench.signal import Signal

from .average import Average, Sample, averaged, signal_of
from .drift import FALSE_ALARM
from .options import check_estimate
from .protocol import SUCCESSIVE
from .sample_snr import SnrState, seen

_LARGEST = 1e150
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientCosineWorkers:
    """Estimate the mean cosine between the gradients of the small batches of a step.

    ``E[g_i . g_j] / E[|g_i|^2]``, from the norms alone. For ``k`` small batches of ``b`` samples
    each, the mean inner product over pairs is ``(k^2 big - k small) / (k (k - 1))``, which is
    ``|G|^2_hat``, and the mean squared norm is ``small``, which is ``|G|^2_hat + S_hat / b``
    (McCandlish et al. 2018, appendix A.1). For uneven ones these two unbiased parts are used, with
    ``b = B / k``. The two averages are divided, not the cosines averaged. Hence
    ``cosine = 1 / (1 + R / b)`` with the noise scale ``R``: gradients of small batches are the
    closer to orthogonal the smaller they are.

    The interval is that of the ratio (:mod:`.sample_snr`), carried over. The signal
    ``gradient_cosine_workers`` is a pure number of at most 1. Below 0 the small batches pull apart,
    which only happens by chance or when ranks draw from different data. ``reason`` says where the
    small batches came from and how many samples they hold; another size changes the value at once.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Split steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = GradientCosineWorkers()
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0, grad_sqnorm_big=2.0, origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal, signal.reason)
        gradient_cosine_workers 0.3333 ranks, 32 samples each
    """

    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = "gradient_cosine_workers"

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)

    def init(self) -> SnrState:
        """Return the state before the first step."""
        return SnrState()

    def update(self, state: SnrState, facts: StepFacts) -> tuple[SnrState, Signal]:
        """Return the next state and the signal after ``facts``."""
        state = seen(state, facts, self)
        small = state.small_batch

        def cosine(ratio: float) -> float:
            return _cosine(ratio, small)

        reason = f"{state.reason}, {small:.4g} samples each"
        return state, signal_of(state, self.name, cosine, level=self.level, reason=reason)


def _cosine(ratio: float, small_batch: float) -> float:
    """Return ``1 / (1 + R / b)`` for ``ratio = 1 / R``, -1 where no cosine is that low."""
    if ratio == inf:
        return 1.0
    signal = small_batch * ratio
    return max(signal / (1.0 + signal), -1.0) if signal > -1.0 else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineStepsState(Average):
    """The mean cosine, the last step whose pair is in it, and the batch size in force.

    Example:
        >>> CosineStepsState().reason
        'no pair of steps was measured yet'
    """

    reason: str = "no pair of steps was measured yet"
    used: int = -1
    batch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientCosineSteps:
    """Estimate the mean cosine between a step's gradient and that of the step before.

    ``E[g_t . g_(t-1)] / E[|g_t| |g_(t-1)|]`` over a window that adapts to drift, each step's
    numbers being those of one fixed sample of coordinates. Steps are weighed by their norms, so
    that a step without a gradient does not count. On unmoved weights the two batches are
    independent samples, and the mean is about ``1 / (1 + R / B)`` with the noise scale ``R``
    (McCandlish et al. 2018, section 2.2). What lies below it is the work of the weights' movement: a
    mean below 0 says that the steps overshoot along the directions that carry the gradient
    (Xing et al. 2018, "A Walk with SGD").

    The interval is Fieller's (:mod:`.estimate`). It needs pairs that are independent: where every
    step measures one, every second is left out, since neighbouring pairs share a gradient. Another
    batch size in force starts the window anew, and pairs of unlike batches are left out. The signal
    ``gradient_cosine_steps`` is a pure number between -1 and 1. Steps that measured no pair, skipped
    steps and numbers that cannot be (NaN, infinite, a product above that of the norms) change
    nothing.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Pairs of steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = GradientCosineSteps()
        >>> state = monitor.init()
        >>> from workbench.facts import Successive
        >>> pair = Successive(dot=1.0, sqnorm=4.0, sqnorm_before=1.0, batch_size_before=8)
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=8 * step, seconds=0.1, workers=1,
        ...                       batch_size_global=8, batch_size_target=8, successive=pair)
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        gradient_cosine_steps 0.5
    """

    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = "gradient_cosine_steps"
    needs = (SUCCESSIVE,)

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)

    def init(self) -> CosineStepsState:
        """Return the state before the first step."""
        return CosineStepsState()

    def update(self, state: CosineStepsState, facts: StepFacts) -> tuple[CosineStepsState, Signal]:
        """Return the next state and the signal after ``facts``."""
        if facts.batch_size_target != state.batch:
            state = CosineStepsState(used=state.used, batch=facts.batch_size_target)
        sample = None if facts.skipped or not facts.finite else _pair(facts)
        if sample is not None and facts.step != state.used + 1:
            state = replace(state, used=facts.step)
            missing = "no gradient in any step"
            state = averaged(state, sample, self, facts, missing=missing, positive=False)
        reason = "successive steps"
        return state, signal_of(state, self.name, _held, level=self.level, reason=reason)


def _pair(facts: StepFacts) -> Sample | None:
    pair = facts.successive
    if pair is None or pair.batch_size_before != facts.batch_size_global:
        return None
    if not (pair.sqnorm >= 0.0 and pair.sqnorm_before >= 0.0):
        return None
    size = sqrt(pair.sqnorm) * sqrt(pair.sqnorm_before)
    if not (isfinite(pair.dot) and size < _LARGEST and abs(pair.dot) <= (1.0 + _ROUNDING) * size):
        return None
    return Sample(pair.dot, size) if size > 0.0 else None


def _held(cosine: float) -> float:
    return max(-1.0, min(1.0, cosine))
