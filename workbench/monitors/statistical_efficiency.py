"""Statistical efficiency: how much of a sample's worth is kept at the present batch size."""

from __future__ import annotations

from dataclasses import dataclass

from .adascale_gain import AdaScaleGain


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticalEfficiency(AdaScaleGain):
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
        >>> from workbench.facts import StepFacts
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

    name = "statistical_efficiency"

    @staticmethod
    def _worth(gain: float, scale: float) -> float:
        """Return AdaScale's gain for each of the ``scale`` times as many samples."""
        return gain / scale
