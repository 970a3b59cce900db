"""The batch size that fits the learning rate: coupled adaptive batch size, CABS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite, nan

from workbench.facts import StepFacts
from workbench.signal import Signal, undetermined

from .average import Average, Sample, averaged, signal_of
from .drift import FALSE_ALARM
from .options import check_estimate
from .parts import split

_NAME, _UNIT = "cabs", "samples"
_LARGEST = 1e150


@dataclass(frozen=True, slots=True, kw_only=True)
class CabsState(Average):
    """``tr(Sigma) / loss`` with its interval, and the learning rate last told.

    Example:
        >>> CabsState().reason
        'no split step told its loss yet'
    """

    reason: str = "no split step told its loss yet"
    learning_rate: float = nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Cabs:
    """Estimate the batch size ``learning rate x tr(Sigma) / loss``.

    It maximises a lower bound on the expected fall of the loss per sample under plain stochastic
    gradient descent (Balles, Romero and Hennig 2017, "Coupling adaptive batch sizes with learning
    rates", section 3), with two choices of theirs: the learning rate stands for the
    inverse curvature, and the smallest loss that can be reached is taken as 0. With another lowest
    loss (label smoothing, the entropy of text) the value is too small; with Adam it has no meaning.

    ``S_hat`` and the loss are averaged apart over a window that adapts to drift, with Fieller's
    interval (:mod:`.estimate`); the learning rate is the present one. A loss times ``c`` makes it
    ``c`` times as large. The signal ``cabs`` is in samples, 0 or more. It is undetermined before
    ``min_steps`` split steps that tell their loss, while the mean loss is not above 0, and without
    a learning rate above 0.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Split steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = Cabs()
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0, grad_sqnorm_big=2.0, loss=0.5,
        ...                       learning_rate=0.1, origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        cabs 12.8 samples
    """

    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = _NAME

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)

    def init(self) -> CabsState:
        """Return the state before the first step."""
        return CabsState()

    def update(self, state: CabsState, facts: StepFacts) -> tuple[CabsState, Signal]:
        """Return the next state and the signal after ``facts``."""
        if facts.learning_rate is not None and facts.learning_rate != state.learning_rate:
            state = replace(state, learning_rate=facts.learning_rate)
        parts, loss = split(facts), facts.loss
        if parts is not None and loss is not None and abs(loss) < _LARGEST:
            sample = Sample(parts.noise, loss, facts.small_batches - 1.0)
            missing = "the mean loss is not above 0"
            state = averaged(state, sample, self, facts, missing=missing)
        return state, self._signal(state)

    def _signal(self, state: CabsState) -> Signal:
        rate = state.learning_rate
        if not (isfinite(rate) and rate > 0.0):
            reason = "no learning rate above 0 was told"
            return undetermined(_NAME, reason=reason, unit=_UNIT, step=state.step)

        def batch(ratio: float) -> float:
            return rate * max(ratio, 0.0) if ratio < inf else inf

        reason = "the mean loss is not above 0"
        return signal_of(state, _NAME, batch, level=self.level, unit=_UNIT, infinite=reason)
