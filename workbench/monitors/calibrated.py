"""The noise scale of a few layers on many steps, calibrated to the whole model by rare exact splits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import exp, hypot, inf, log

from workbench.facts import StepFacts
from workbench.signal import Signal, undetermined

from .drift import FALSE_ALARM, recent
from .estimate import due, estimate
from .kernel import MEAN
from .options import check_count, check_estimate
from .parts import Parts, parts_of, split
from .protocol import COVERED
from .ratio import fieller, moments
from .window import Window, merge, push

_NAME, _UNIT = "noise_scale_calibrated", "samples"
_START = undetermined(_NAME, reason="no per-example norms were measured yet", unit=_UNIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScaleCalibratedState:
    """What :class:`NoiseScaleCalibrated` remembers.

    Attributes:
        signal: The last signal; it stands until there is reason for a new one.
        window: Blocks of ``S_hat`` and ``|G|^2_hat`` of the covered layers, of all measured steps.
        noise: Blocks of ``S_hat`` of the whole model and of the covered layers, of split steps.
        strength: The same of ``|G|^2_hat``.
        first_batch: Global batch size of the first measured step, whose weight is 1.
        step: The last measured step.
        used_steps: Covered steps that the signal rests on.
    """

    signal: Signal = _START
    window: Window = field(default_factory=Window)
    noise: Window = field(default_factory=Window)
    strength: Window = field(default_factory=Window)
    first_batch: int = 0
    step: int = 0
    used_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A positive factor of the noise scale: its value and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScaleCalibrated:
    """Estimate the noise scale of the whole model from per-example norms of a part of its layers.

    The noise scale of normalisation layers, whose per-example gradient norms come nearly free, is
    a constant multiple of that of the whole model (Gray et al. 2024, "Normalization Layer
    Per-Example Gradients are Sufficient to Predict Gradient Noise Scale in Transformers", section
    5). Steps with an exact split of the batch tell the multiple:

    ``R = R_covered(now) c`` with ``c = (S / S_covered) / (|G|^2 / |G|^2_covered)``,

    averages over the split steps alone, of numerators and denominators apart. ``c`` is taken as
    constant over the split steps that agree on it.

    The three factors have Fieller's intervals; they are joined in the logarithm by the distances
    of their ends, squared and added (Zou and Donner 2008, "MOVER"), as if independent: split steps
    are also covered steps, whose errors then cancel in part, so that the interval is rather too
    wide. It does not count that ``c`` may not be constant.

    The signal ``noise_scale_calibrated`` is in samples. Its reason says how many splits calibrate
    it. It is undetermined before ``min_splits`` of them and ``min_steps`` covered steps.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Covered steps before there is a value, 4 or more.
        min_splits: Exact splits before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten a window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> from workbench.facts import TwoNorms
        >>> monitor = NoiseScaleCalibrated()
        >>> state = monitor.init()
        >>> for step in range(1, 81):
        ...     exact = 3.0 if step % 8 == 0 else None
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=1,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=exact, grad_sqnorm_big=exact and 2.0,
        ...                       covered=TwoNorms(small=0.5, big=0.02, small_batches=64))
        ...     state, signal = monitor.update(state, facts)
        >>> print(f"{signal.value:.6g}; {signal.reason}")
        64; per-example norms of some layers, calibrated by 10 splits
    """

    level: float = 0.95
    min_steps: int = 8
    min_splits: int = 8
    false_alarm: float = FALSE_ALARM
    name = _NAME
    needs = (COVERED,)

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)
        check_count(self.name, "min_splits", self.min_splits, least=4)

    def init(self) -> NoiseScaleCalibratedState:
        """Return the state before the first step."""
        return NoiseScaleCalibratedState()

    def update(
        self, state: NoiseScaleCalibratedState, facts: StepFacts
    ) -> tuple[NoiseScaleCalibratedState, Signal]:
        """Return the next state and the signal after ``facts``."""
        if facts.covered is None or facts.skipped or not facts.finite:
            return state, state.signal
        covered = parts_of(facts.covered, facts.batch_size_global)
        if covered is None:
            return state, state.signal
        grown = _grown(state, facts, covered)
        split_due = grown.strength.steps > state.strength.steps and due(grown.strength.steps)
        if not split_due and not due(grown.window.steps, grown.used_steps):
            return grown, grown.signal
        done = self._estimated(grown)
        return done, done.signal

    def merge(
        self, older: NoiseScaleCalibratedState, newer: NoiseScaleCalibratedState
    ) -> NoiseScaleCalibratedState:
        """Return the state after the steps of ``older``, then those of ``newer``.

        Example:
            >>> monitor = NoiseScaleCalibrated()
            >>> monitor.merge(monitor.init(), monitor.init()) == monitor.init()
            True
        """
        if not older.window.steps or not newer.window.steps:
            return newer if newer.window.steps else older
        scale = newer.first_batch / older.first_batch
        both = replace(
            newer,
            window=merge(older.window, newer.window, scale=scale),
            noise=merge(older.noise, newer.noise, scale=scale),
            strength=merge(older.strength, newer.strength, scale=scale),
            first_batch=older.first_batch,
        )
        return self._estimated(both)

    def _estimated(self, state: NoiseScaleCalibratedState) -> NoiseScaleCalibratedState:
        splits = state.strength.steps
        if state.window.steps < self.min_steps or splits < self.min_splits:
            reason = f"{splits} of {self.min_splits} splits to calibrate by"
            return replace(state, signal=self._unknown(reason, state))
        now = estimate(state.window, level=self.level, false_alarm=self.false_alarm)
        covered = Factor(value=now.value, low=now.low, high=now.high)
        noise, strength = self._multiple(state.noise), self._multiple(state.strength)
        if not (covered.value > 0.0 and noise.value > 0.0 and strength.value > 0.0):
            signal = self._unknown("the squared gradient is lost in its noise", state)
            return replace(state, signal=signal, used_steps=now.steps)
        found = _product(covered, noise, _inverse(strength))
        signal = Signal(
            name=self.name,
            value=found.value,
            low=found.low,
            high=found.high,
            level=self.level,
            unit=_UNIT,
            step=state.step,
            reason=f"per-example norms of some layers, calibrated by {splits} splits",
        )
        return replace(state, signal=signal, used_steps=now.steps)

    def _unknown(self, reason: str, state: NoiseScaleCalibratedState) -> Signal:
        return undetermined(self.name, reason=reason, unit=_UNIT, step=state.step)

    def _multiple(self, window: Window) -> Factor:
        found = moments(recent(window.blocks, false_alarm=self.false_alarm), degree=MEAN)
        if not found.y > 0.0:
            return Factor(value=0.0, low=0.0, high=inf)
        low, high = fieller(found, self.level)
        value = found.x / found.y
        return Factor(value=value, low=max(min(low, value), 0.0), high=max(high, value))


def _grown(
    state: NoiseScaleCalibratedState, facts: StepFacts, covered: Parts
) -> NoiseScaleCalibratedState:
    """Return the state with one more covered step, and its split if there is one."""
    first = state.first_batch or facts.batch_size_global
    weight = facts.batch_size_global / first
    noise, strength, whole = state.noise, state.strength, split(facts)
    if whole is not None:
        noise = push(noise, weight, whole.noise, covered.noise)
        strength = push(strength, weight, whole.signal, covered.signal)
    window = push(state.window, weight, covered.noise, covered.signal)
    return NoiseScaleCalibratedState(
        signal=state.signal,
        window=window,
        noise=noise,
        strength=strength,
        first_batch=first,
        step=facts.step,
        used_steps=state.used_steps,
    )


def _inverse(factor: Factor) -> Factor:
    high = 1.0 / factor.low if factor.low > 0.0 else inf
    return Factor(value=1.0 / factor.value, low=1.0 / factor.high, high=high)


def _product(*factors: Factor) -> Factor:
    """Return the product; distances of the logarithms of the ends are added in squares."""
    value = down = up = 0.0
    for factor in factors:
        point = log(factor.value)
        value += point
        down = hypot(down, point - log(factor.low) if factor.low > 0.0 else inf)
        up = hypot(up, log(factor.high) - point if factor.high < inf else inf)
    return Factor(
        value=exp(value), low=exp(value - down), high=exp(value + up) if up < inf else inf
    )
