"""The gradient noise scale: the batch size at which noise and signal in the gradient are equal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from workbench.facts import StepFacts
from workbench.signal import Signal, undetermined

from .drift import FALSE_ALARM
from .estimate import due, estimate
from .options import check_estimate
from .parts import Parts, split
from .window import Window, push

_NAME, _UNIT = "noise_scale", "samples"
_START = undetermined(_NAME, reason="no step was split yet", unit=_UNIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScaleState:
    """What :class:`NoiseScale` remembers.

    Attributes:
        signal: The last signal; it stands until there is reason for a new one.
        window: Blocks of ``x = S_hat`` and ``y = |G|^2_hat``.
        first_batch: Global batch size of the first split step, whose weight is 1.
        first_small: Number of small batches of that step.
        weigh_at: The noise scale at which steps of other batch sizes are weighed.
        used_steps: Split steps that the signal rests on.
    """

    signal: Signal = _START
    window: Window = field(default_factory=Window)
    first_batch: int = 0
    first_small: int = 0
    weigh_at: float = 0.0
    used_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScale:
    """Estimate ``B_simple = tr(Sigma) / |G|^2`` from gradients seen at two batch sizes.

    With ``k`` small batches in a global batch ``B`` (McCandlish et al. 2018, "An Empirical Model
    of Large-Batch Training", section 2 and appendix A.1), both unbiased:

    ``S_hat = B (small - big) / (k - 1)`` and ``|G|^2_hat = big - S_hat / B``.

    The two are averaged apart over steps and divided afterwards, because the ratio of one step is
    biased and its denominator may be negative. The interval is Fieller's, over a window that
    adapts to drift: see :mod:`.estimate`. A step's weight is its precision for the ratio:
    see :func:`step_weight`.

    The signal ``noise_scale`` is in samples, 0 or more. Its ``reason`` says where the small batches
    came from. ``high`` is infinite while ``|G|^2`` cannot be told from 0; ``low`` is then still
    sure. It is undetermined before ``min_steps`` split steps and while the mean ``|G|^2_hat`` is
    0 or less. Steps without both norms, skipped steps and steps with a NaN or infinite number
    change nothing.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Split steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = NoiseScale()
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0 + 0.1 * (step % 3), grad_sqnorm_big=2.0,
        ...                       origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        noise_scale 78.22 [70.69, 83.65] samples
    """

    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = _NAME

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)

    def init(self) -> NoiseScaleState:
        """Return the state before the first step."""
        return NoiseScaleState()

    def update(self, state: NoiseScaleState, facts: StepFacts) -> tuple[NoiseScaleState, Signal]:
        """Return the next state and the signal after ``facts``."""
        parts = split(facts)
        if parts is None:
            return state, state.signal
        grown = _grown(state, facts, parts)
        if not due(grown.window.steps):
            return grown, grown.signal
        done = self._estimated(grown, facts)
        return done, done.signal

    def _estimated(self, state: NoiseScaleState, facts: StepFacts) -> NoiseScaleState:
        if state.window.steps < self.min_steps:
            reason = f"{state.window.steps} of {self.min_steps} split steps"
            return replace(state, signal=_undetermined(reason, facts))
        found = estimate(state.window, level=self.level, false_alarm=self.false_alarm)
        if not found.value >= 0.0:
            reason = f"the squared gradient is lost in its noise over {found.steps} split steps"
            return replace(state, signal=_undetermined(reason, facts), used_steps=found.steps)
        signal = Signal(
            name=self.name,
            value=found.value,
            low=max(found.low, 0.0),
            high=found.high,
            level=self.level,
            unit=_UNIT,
            step=facts.step,
            reason=facts.origin,
        )
        weigh_at = found.value or state.weigh_at
        return replace(state, signal=signal, used_steps=found.steps, weigh_at=weigh_at)


def step_weight(batch: int, small_batches: int, noise_scale: float) -> float:
    """Return the precision of one step's ``S_hat - R |G|^2_hat``, in units that do not matter.

    For Gaussian noise, with ``q = 1 + R / B``: ``Var = 2 S^2 / d_eff (q^2 k / (k - 1) - 1)``,
    because ``S_hat`` and ``|g|^2`` are independent. Few samples or few small batches weigh less:
    ``k - 1`` when ``R << B``, ``B^2 (k - 1) / k`` when ``R >> B``.

    Example:
        >>> round(step_weight(512, 4, 1e6) / step_weight(64, 4, 1e6))
        64
        >>> round(step_weight(512, 4, 1e-6) / step_weight(64, 4, 1e-6))
        1
    """
    q = 1.0 + noise_scale / batch
    return 1.0 / (q * q * small_batches / (small_batches - 1.0) - 1.0)


def _grown(state: NoiseScaleState, facts: StepFacts, parts: Parts) -> NoiseScaleState:
    batch, small = facts.batch_size_global, facts.small_batches
    first_batch, first_small = state.first_batch or batch, state.first_small or small
    at = state.weigh_at or float(first_batch)
    weight = 1.0
    if (batch, small) != (first_batch, first_small):
        weight = step_weight(batch, small, at) / step_weight(first_batch, first_small, at)
    return replace(
        state,
        window=push(state.window, weight, parts.noise, parts.signal),
        first_batch=first_batch,
        first_small=first_small,
    )


def _undetermined(reason: str, facts: StepFacts) -> Signal:
    return undetermined(_NAME, reason=reason, unit=_UNIT, step=facts.step)
