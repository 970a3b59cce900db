"""The noise scale from two successive steps' gradients: cheap, and biased by the movement of weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite

from workbench.facts import StepFacts, Successive
from workbench.signal import Signal, undetermined

from .drift import FALSE_ALARM
from .estimate import due, estimate
from .options import check_estimate
from .parts import Parts
from .protocol import SUCCESSIVE
from .window import Window, merge, push

_NAME, _UNIT = "noise_scale_successive", "samples"
_REASON = "successive steps, biased by movement"
_START = undetermined(_NAME, reason="no two successive gradients were measured yet", unit=_UNIT)
_LARGEST = 1e150


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScaleSuccessiveState:
    """What :class:`NoiseScaleSuccessive` remembers.

    Attributes:
        signal: The last signal; it stands until there is reason for a new one.
        window: Blocks of ``x = S_hat`` and ``y = |G|^2_hat``.
        first_batch: Harmonic mean of the first pair's batch sizes; its weight is 1.
        step: The second step of the last pair.
        used_steps: Pairs that the signal rests on.
    """

    signal: Signal = _START
    window: Window = field(default_factory=Window)
    first_batch: float = 0.0
    step: int = 0
    used_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScaleSuccessive:
    """Estimate the noise scale from the difference of successive steps' gradients.

    Two steps on disjoint batches of ``B`` and ``B'`` samples, with gradients ``g`` and ``g'``:

    ``S_hat = |g - g'|^2 / (1/B + 1/B')`` and ``|G|^2_hat = g . g'``,

    the two-batch estimator of McCandlish et al. 2018, appendix A.1, with the step before as the other
    batch. Unbiased if the weights stood still. They do not: ``|g - g'|^2`` also holds the change of
    the mean gradient, and ``g . g'`` loses ``eta tr(H Sigma) / B`` (learning rate ``eta``, Hessian ``H``),
    since the noise of the first step moved the weights. Both raise the value: it is biased upward, the
    more the larger the learning rate, and the interval does not count this. It is meant for one
    worker where a split is too dear, to see a trend, not to set a batch size by.

    Pairs that share a step are not independent: of two such pairs the first is used. The signal
    ``noise_scale_successive`` is in samples; its reason is "successive steps, biased by
    movement". It is undetermined before ``min_steps`` pairs and while the mean of ``g . g'`` is 0 or
    less.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Pairs before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = NoiseScaleSuccessive()
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     pair = Successive(dot=1.0, sqnorm=3.0, sqnorm_before=3.0, batch_size_before=64)
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=1,
        ...                       batch_size_global=64, batch_size_target=64, successive=pair)
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        noise_scale_successive 128 samples
    """

    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = _NAME
    needs = (SUCCESSIVE,)

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)

    def init(self) -> NoiseScaleSuccessiveState:
        """Return the state before the first step."""
        return NoiseScaleSuccessiveState()

    def update(
        self, state: NoiseScaleSuccessiveState, facts: StepFacts
    ) -> tuple[NoiseScaleSuccessiveState, Signal]:
        """Return the next state and the signal after ``facts``."""
        pair = facts.successive
        if pair is None or facts.skipped or not facts.finite or facts.step < state.step + 2:
            return state, state.signal
        parts = _parts(pair, facts.batch_size_global)
        if parts is None:
            return state, state.signal
        batch = 2.0 / (1.0 / facts.batch_size_global + 1.0 / pair.batch_size_before)
        first = state.first_batch or batch
        grown = NoiseScaleSuccessiveState(
            signal=state.signal,
            window=push(state.window, batch / first, parts.noise, parts.signal),
            first_batch=first,
            step=facts.step,
            used_steps=state.used_steps,
        )
        if not due(grown.window.steps, grown.used_steps):
            return grown, grown.signal
        done = self._estimated(grown)
        return done, done.signal

    def merge(
        self, older: NoiseScaleSuccessiveState, newer: NoiseScaleSuccessiveState
    ) -> NoiseScaleSuccessiveState:
        """Return the state after the pairs of ``older``, then those of ``newer``.

        Example:
            >>> monitor = NoiseScaleSuccessive()
            >>> monitor.merge(monitor.init(), monitor.init()) == monitor.init()
            True
        """
        if not older.window.steps or not newer.window.steps:
            return newer if newer.window.steps else older
        scale = newer.first_batch / older.first_batch
        window = merge(older.window, newer.window, scale=scale)
        both = replace(newer, window=window, first_batch=older.first_batch)
        return self._estimated(both)

    def _estimated(self, state: NoiseScaleSuccessiveState) -> NoiseScaleSuccessiveState:
        pairs = state.window.steps
        if pairs < self.min_steps:
            reason = f"{pairs} of {self.min_steps} pairs of steps"
            return replace(state, signal=self._unknown(reason, state))
        found = estimate(state.window, level=self.level, false_alarm=self.false_alarm)
        if not found.value >= 0.0:
            signal = self._unknown("the squared gradient is lost in its noise", state)
            return replace(state, signal=signal, used_steps=found.steps)
        signal = Signal(
            name=self.name,
            value=found.value,
            low=max(found.low, 0.0),
            high=found.high,
            level=self.level,
            unit=_UNIT,
            step=state.step,
            reason=_REASON,
        )
        return replace(state, signal=signal, used_steps=found.steps)

    def _unknown(self, reason: str, state: NoiseScaleSuccessiveState) -> Signal:
        return undetermined(self.name, reason=f"{reason} ({_REASON})", unit=_UNIT, step=state.step)


def _parts(pair: Successive, batch: int) -> Parts | None:
    """Return ``S_hat`` and ``|G|^2_hat`` of a pair, or ``None`` when it has none to offer."""
    numbers = (pair.dot, pair.sqnorm, pair.sqnorm_before)
    if not all(isfinite(number) and abs(number) <= _LARGEST for number in numbers):
        return None
    if batch < 1 or pair.batch_size_before < 1 or min(pair.sqnorm, pair.sqnorm_before) < 0.0:
        return None
    gap = pair.sqnorm + pair.sqnorm_before - 2.0 * pair.dot
    return Parts(max(gap, 0.0) / (1.0 / batch + 1.0 / pair.batch_size_before), pair.dot)
