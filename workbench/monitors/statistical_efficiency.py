"""Statistical efficiency: how much of a sample's worth is kept at the present batch size."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.facts import StepFacts
from workbench.signal import Signal, undetermined

from .adascale_gain import gain
from .average import signal_of
from .drift import FALSE_ALARM
from .options import check_count, check_estimate
from .sample_snr import SnrState, seen


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticalEfficiency:
    """Estimate ``(R + B0) / (R + B)``: progress per sample at ``B``, relative to that at ``B0``.

    ``R`` is the noise scale, ``B`` the global batch size in force, ``B0`` the base batch size (Qiao et
    al. 2021, "Pollux: Co-adaptive Cluster Scheduling for Goodput-Optimized Deep Learning", section
    3.1). It is AdaScale's gain over ``B / B0``. Times the throughput it is Pollux's
    goodput, the progress per second.

    It falls with the ratio ``|G|^2 / tr(Sigma)``, whose interval is carried over
    (:mod:`.sample_snr`). The signal ``statistical_efficiency`` is a pure number between ``B0 / B``
    and 1 (from 1 to ``B0 / B`` for a batch below ``B0``); another batch size in force changes it at
    once. It is undetermined before ``min_steps`` split steps.

    Attributes:
        base_batch_size: ``B0`` in samples; 0: the first global batch size that is in force.
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Split steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = StatisticalEfficiency(base_batch_size=16)
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0, grad_sqnorm_big=2.0, origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        statistical_efficiency 0.625
    """

    base_batch_size: int = 0
    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = "statistical_efficiency"

    def __post_init__(self) -> None:
        check_estimate(self.name, self.level, self.false_alarm, self.min_steps)
        check_count(self.name, "base_batch_size", self.base_batch_size, least=0)

    def init(self) -> SnrState:
        """Return the state before the first step."""
        return SnrState()

    def update(self, state: SnrState, facts: StepFacts) -> tuple[SnrState, Signal]:
        """Return the next state and the signal after ``facts``."""
        state = seen(state, facts, self)
        batch, base = state.batch, self.base_batch_size or state.base
        if batch < 1:
            reason = "no batch size is in force"
            return state, undetermined(self.name, reason=reason, step=facts.step)

        def of_ratio(ratio: float) -> float:
            return gain(max(ratio, 0.0), batch, base) * base / batch

        return state, signal_of(state, self.name, of_ratio, level=self.level)
