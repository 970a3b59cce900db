"""The inner-product test: from which batch size on steps surely point downhill."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite, isnan, nan

from workbench.facts import StepFacts
from workbench.signal import Signal, undetermined

from .drift import FALSE_ALARM
from .estimate import Estimate, due, estimate
from .options import check_estimate, check_positive
from .parts import Parts, split
from .protocol import INNER_PRODUCTS, NORMS
from .window import Block, Window, push

_NAME, _UNIT = "inner_product_test", "samples"
_START = undetermined(_NAME, reason="no inner products were measured yet", unit=_UNIT)
_LARGEST = 1e75


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerProductTestState:
    """The last signal, blocks of ``x = Var(g_i . G)`` and ``y = |G|^2``, and half a pair of steps.

    Attributes:
        signal: The last signal; it stands until there is reason for a new one.
        window: The blocks, one pair of steps at a time.
        uncorrected: The same with ``x = Var(g_i . g)`` as measured.
        along: The measured variance of ``g_i . g`` in a step that waits for its second.
        noise: Its ``S_hat``.
        length: Its ``|G|^2_hat``.
        small_batches: Its ``k``; 0 when no step waits.
        batch: Its global batch size.
    """

    signal: Signal = _START
    window: Window = field(default_factory=Window)
    uncorrected: Window = field(default_factory=Window)
    along: float = nan
    noise: float = nan
    length: float = nan
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
    exceeds ``Var(g_i . G)``: by ``tr(Sigma^2) / B`` for Gaussian noise, often many times over in
    training, and by more where few samples have large gradients. For Gaussian noise
    ``Var(S_hat) = 2 tr(Sigma^2) / (k - 1)``: the difference of the ``S_hat`` of two measured steps, one
    after the other with the same batch, measures the excess. *Value* and ``low`` take it off, which is
    right for Gaussian noise and too much for heavier tails; ``high`` leaves it in. The interval holds
    in both cases (unless the noise is skewed against the gradient) and is wider than Gaussian noise
    needs. A batch size above ``high`` surely passes.

    Averages over a window that adapts to drift; both ends are Fieller's for the ratio to ``|G|^4``,
    linear in the error of ``|G|^2``. ``high`` is infinite while ``|G|^2`` cannot be told from 0. The
    signal ``inner_product_test`` is in samples, 0 or more. It is undetermined before ``min_steps``
    pairs of measured steps and while the mean ``|G|^2_hat`` is 0 or less.

    Attributes:
        theta: Noise along the gradient over the gradient's length, above 0.
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Pairs of measured steps before there is a value, 4 or more.
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
        done = replace(grown, signal=self._signal(grown, facts))
        return done, done.signal

    def _signal(self, state: InnerProductTestState, facts: StepFacts) -> Signal:
        pairs = state.window.steps
        if pairs < self.min_steps:
            reason = f"{pairs} of {self.min_steps} pairs of measured steps"
            return undetermined(_NAME, reason=reason, unit=_UNIT, step=facts.step)
        found = _over_square(state.window, self.level, self.false_alarm)
        above = _over_square(state.uncorrected, self.level, self.false_alarm)
        if found is None or above is None:
            reason = "the squared gradient is lost in its noise"
            return undetermined(_NAME, reason=reason, unit=_UNIT, step=facts.step)
        part = 1.0 / self.theta / self.theta
        return Signal(
            name=self.name,
            value=part * max(found.value, 0.0),
            low=part * max(found.low, 0.0),
            high=part * max(above.high, found.high, found.value, 0.0),
            level=self.level,
            unit=_UNIT,
            step=facts.step,
            reason=facts.origin,
        )


def _grown(
    state: InnerProductTestState, facts: StepFacts, parts: Parts, along: float
) -> InnerProductTestState:
    """Return the state with the step waiting for its second, or with the pair of the two."""
    small, batch = facts.small_batches, facts.batch_size_global
    if (small, batch) != (state.small_batches, state.batch):
        return replace(
            state,
            along=along,
            noise=parts.noise,
            length=parts.signal,
            small_batches=small,
            batch=batch,
        )
    gap = parts.noise - state.noise
    trace_of_square = 0.25 * (small - 1) * gap * gap
    mean_along = 0.5 * (along + state.along)
    mean_length = 0.5 * (parts.signal + state.length)
    corrected = mean_along - trace_of_square / batch
    return InnerProductTestState(
        signal=state.signal,
        window=push(state.window, small - 1.0, corrected, mean_length),
        uncorrected=push(state.uncorrected, small - 1.0, mean_along, mean_length),
    )


def _over_square(window: Window, level: float, false_alarm: float) -> Estimate | None:
    """Return ``E[x] / E[y]^2`` with its interval; ``None`` when ``E[y]`` is not above 0.

    Around its mean ``m`` is ``y^2 = m (2 y - m)`` up to the square of the error of ``y``. This is linear
    in ``y``, so that the blocks of ``x`` and ``y / m`` give those of ``x`` and ``2 y / m - 1``.
    """
    lengths = replace(window, blocks=tuple(_length(block) for block in window.blocks))
    m = estimate(lengths, level=level, false_alarm=false_alarm).value
    if not (isfinite(m) and m > 0.0):
        return None
    squares = replace(window, blocks=tuple(_square(block, m) for block in window.blocks))
    found = estimate(squares, level=level, false_alarm=false_alarm)
    if isnan(found.value):
        return None
    unit = 1.0 / m / m
    return Estimate(unit * found.value, unit * found.low, unit * found.high, found.steps)


def _length(block: Block) -> Block:
    steps, weight, _, y, _, _, yy = block
    return (steps, weight, y, weight, yy, 0.0, 0.0)


def _square(block: Block, m: float) -> Block:
    steps, weight, x, y, xx, xy, yy = block
    return (steps, weight, x, 2.0 * y / m - weight, xx, 2.0 * xy / m, 4.0 * yy / m / m)
