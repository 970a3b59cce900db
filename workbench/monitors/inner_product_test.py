"""The inner-product test: from which batch size on steps surely point downhill."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite, isnan, nan

from workbench.facts import StepFacts
from workbench.signal import Signal, undetermined

from .drift import FALSE_ALARM, recent
from .estimate import due
from .options import check_estimate, check_positive
from .parts import Parts, split
from .protocol import INNER_PRODUCTS, NORMS
from .ratio import Moments, fieller, moments
from .window import Window, push

_NAME, _UNIT = "inner_product_test", "samples"
_START = undetermined(_NAME, reason="no inner products were measured yet", unit=_UNIT)
_LARGEST = 1e75


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerProductTestState:
    """The last signal, blocks of ``x = Var(g_i . G)`` and ``y = |G|^2``, and the last ``S_hat``.

    Attributes:
        signal: The last signal; it stands until there is reason for a new one.
        window: The blocks.
        noise: ``S_hat`` of the last split step; NaN before the first.
        small_batches: ``k`` of that step.
        batch: Its global batch size.
    """

    signal: Signal = _START
    window: Window = field(default_factory=Window)
    noise: float = nan
    small_batches: int = 0
    batch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerProductTest:
    """Estimate the smallest batch that passes: ``Var(g_i . G) / (theta^2 |G|^4)``.

    ``g_i`` is one sample's gradient. The noise across the gradient does not count, only that along
    it: the mean over so many samples has a positive product with ``G`` with high probability
    (Bollapragada, Byrd and Nocedal 2018, "Adaptive sampling strategies for stochastic optimization",
    section 2). It never asks for more samples than the norm test at the same ``theta``.

    The measured variance of ``g_i . g`` takes the measured gradient in the place of ``G``, and
    exceeds ``Var(g_i . G)`` by ``tr(Sigma^2) / B`` on average. For Gaussian noise
    ``Var(S_hat) = 2 tr(Sigma^2) / (k - 1)``: the difference of two neighbouring steps' ``S_hat``
    measures the excess, and it is taken off. With noise of heavier tails, in small batches of few
    samples, this takes off too much and the value comes out too low.

    Averages over a window that adapts to drift; the interval is Fieller's for the ratio to
    ``|G|^4``, linear in the error of ``|G|^2``. ``high`` is infinite while ``|G|^2`` cannot be told
    from 0. The signal ``inner_product_test`` is in samples, 0 or more. It is undetermined before
    ``min_steps`` neighbours among the measured steps and while the mean ``|G|^2_hat`` is 0 or less.

    Attributes:
        theta: Noise along the gradient over the gradient's length, above 0.
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Measured steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = InnerProductTest(theta=0.5)
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0, grad_sqnorm_big=2.0,
        ...                       grad_dot_variance=5.0, origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        inner_product_test 20 samples
    """

    theta: float = 0.9
    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = _NAME
    needs = (INNER_PRODUCTS, NORMS)

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)
        check_positive(self.name, "theta", self.theta)

    def init(self) -> InnerProductTestState:
        """Return the state before the first step."""
        return InnerProductTestState()

    def update(
        self, state: InnerProductTestState, facts: StepFacts
    ) -> tuple[InnerProductTestState, Signal]:
        """Return the next state and the signal after ``facts``."""
        parts, along = split(facts), facts.grad_dot_variance
        if parts is None or along is None or not 0.0 <= along < _LARGEST * _LARGEST:
            return state, state.signal
        if parts.noise > _LARGEST or facts.grad_sqnorm_big is None:
            return state, state.signal
        grown = _grown(state, facts, parts, along)
        if grown.window.steps == state.window.steps or not due(grown.window.steps):
            return grown, grown.signal
        done = replace(grown, signal=self._signal(grown.window, facts))
        return done, done.signal

    def _signal(self, window: Window, facts: StepFacts) -> Signal:
        if window.steps < self.min_steps:
            reason = f"{window.steps} of {self.min_steps} measured steps"
            return undetermined(_NAME, reason=reason, unit=_UNIT, step=facts.step)
        found = moments(recent(window.blocks, false_alarm=self.false_alarm))
        value, low, high = _over_square(found, self.level)
        if isnan(value):
            reason = "the squared gradient is lost in its noise"
            return undetermined(_NAME, reason=reason, unit=_UNIT, step=facts.step)
        part = 1.0 / self.theta / self.theta
        return Signal(
            name=self.name,
            value=part * max(value, 0.0),
            low=part * max(low, 0.0),
            high=part * max(high, value, 0.0),
            level=self.level,
            unit=_UNIT,
            step=facts.step,
            reason=facts.origin,
        )


def _grown(
    state: InnerProductTestState, facts: StepFacts, parts: Parts, along: float
) -> InnerProductTestState:
    """Return the state with the step's ``S_hat``, and its numbers if a like step came before it."""
    small, batch = facts.small_batches, facts.batch_size_global
    window = state.window
    if (small, batch) == (state.small_batches, state.batch):
        gap = parts.noise - state.noise
        trace_of_square = 0.25 * (small - 1) * gap * gap
        window = push(window, small - 1.0, along - trace_of_square / batch, parts.signal)
    return replace(state, window=window, noise=parts.noise, small_batches=small, batch=batch)


def _over_square(found: Moments, level: float) -> tuple[float, float, float]:
    """Return ``x / y^2`` with its interval; NaN when ``y`` is not above 0.

    ``y^2`` is ``2 m y - m^2`` up to the square of the error of ``y``, with its mean ``m``.
    """
    m = found.y
    if not m > 0.0:
        return nan, nan, nan
    square = replace(found, y=m * m, xy=2.0 * m * found.xy, yy=4.0 * m * m * found.yy)
    if not (isfinite(square.yy) and square.y > 0.0):
        return nan, nan, nan
    low, high = fieller(square, level)
    return found.x / square.y, low, high
