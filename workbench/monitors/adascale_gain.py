"""AdaScale's gain: how many steps at the base batch size one step of the present batch is worth."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from workbench.facts import StepFacts
from workbench.signal import Signal, undetermined

from .average import signal_of
from .drift import FALSE_ALARM
from .options import check_count, check_estimate
from .sample_snr import SnrState, seen


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaScaleGain:
    """Estimate ``r = (tr(Sigma) / B0 + |G|^2) / (tr(Sigma) / B + |G|^2)``.

    ``B`` is the global batch size in force and ``B0`` the base batch size, ``s = B / B0`` (Johnson,
    Agrawal, Gu and Guestrin 2020, "AdaScale SGD: A User-Friendly Algorithm for Distributed Training",
    section 3). ``r`` lies between 1 and ``s``: near ``s`` the gradient is mostly noise
    and the larger batch is worth its samples, near 1 it only costs. AdaScale multiplies the base
    learning rate by it and counts ``r`` steps of the schedule for one.

    It falls with the ratio ``|G|^2 / tr(Sigma)``, whose interval is carried over
    (:mod:`.sample_snr`). While ``|G|^2`` is lost in its noise the upper end is ``s``, which holds whatever
    the truth. The signal ``adascale_gain`` is a pure number; another batch size in force changes it
    at once. It is undetermined before ``min_steps`` split steps.

    Attributes:
        base_batch_size: ``B0`` in samples; 0: the first global batch size that is in force.
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Split steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = AdaScaleGain(base_batch_size=16)
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0, grad_sqnorm_big=2.0, origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        adascale_gain 2.5
    """

    base_batch_size: int = 0
    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    name = "adascale_gain"

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
            return self._worth(gain(max(ratio, 0.0), batch, base), batch / base)

        return state, signal_of(state, self.name, of_ratio, level=self.level)

    @staticmethod
    def _worth(gain: float, scale: float) -> float:  # noqa: ARG004
        """Return the signal's value for AdaScale's gain and ``scale = B / B0``."""
        return gain


def gain(ratio: float, batch: int, base: int) -> float:
    """Return ``r`` for ``ratio = |G|^2 / tr(Sigma)`` per sample, 0 or more, maybe infinite.

    Example:
        >>> gain(0.0, 64, 16), gain(1 / 64, 64, 16), gain(float("inf"), 64, 16)
        (4.0, 2.5, 1.0)
    """
    if ratio == inf:
        return 1.0
    return (1.0 / base + ratio) / (1.0 / batch + ratio)
