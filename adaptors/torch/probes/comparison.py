"""What branches at several batch sizes say about the critical batch size."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from statistics import fmean, stdev

from workbench.monitors.student import t_quantile
from workbench.signal import Signal, undetermined

_NAME = "critical_batch"

FINE, WORSE, UNCLEAR = "fine", "worse", "undetermined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The branches at one multiple of the batch size against the control, paired by repeat.

    Attributes:
        multiple: ``k``.
        batch_size: ``k B``, in samples.
        losses: Held-out loss at the end of each branch.
        difference: Mean of the losses less those of the control; above 0 is worse.
        low: Lower end of its interval.
        high: Upper end of its interval.
        verdict: ``fine``: the interval ends at or below the tolerance. ``worse``: it begins above
            it, or the loss of a branch is not finite. Else ``undetermined``.
    """

    multiple: int
    batch_size: int
    losses: tuple[float, ...]
    difference: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalBatch:
    """The largest batch size that trains as well per sample as the present one, as far as known.

    Attributes:
        batch_size: ``B`` of the control.
        tolerance: By how much a loss may exceed the control's.
        level: Confidence of each comparison's interval.
        samples: Samples that each branch saw.
        learning_rate_rule: How the rate followed the batch.
        start_loss: Held-out loss before the branches.
        control_losses: Held-out loss at the end of each branch at ``B``.
        comparisons: By growing multiple, up to the first that is worse.
        reason: Why nothing can be said; else empty.
    """

    batch_size: int
    tolerance: float
    level: float
    samples: int
    learning_rate_rule: str
    start_loss: float
    control_losses: tuple[float, ...]
    comparisons: tuple[Comparison, ...] = ()
    reason: str = ""

    @property
    def low(self) -> int:
        """The largest batch that is surely fine; ``batch_size`` when no larger one is."""
        fine = [c.batch_size for c in self.comparisons if c.verdict == FINE]
        return max(fine, default=self.batch_size)

    @property
    def high(self) -> float:
        """The smallest batch that is surely worse; infinite when none is."""
        return min((c.batch_size for c in self.comparisons if c.verdict == WORSE), default=inf)

    @property
    def best(self) -> int:
        """The largest batch whose mean difference is within the tolerance: the point estimate."""
        within = [c.batch_size for c in self.comparisons if c.difference <= self.tolerance]
        return max([self.low, *within])

    @property
    def verdict(self) -> str:
        """What is known, in words.

        Example:
            >>> compared = compare(2, 64, (0.5, 0.6), (0.5, 0.6), tolerance=0.01, level=0.95)
            >>> CriticalBatch(batch_size=32, tolerance=0.01, level=0.95, samples=256,
            ...               learning_rate_rule="linear", start_loss=1.0,
            ...               control_losses=(0.5, 0.6), comparisons=(compared,)).verdict
            'at least 64'
        """
        bounds = [] if self.low == self.batch_size else [f"at least {self.low}"]
        bounds += [] if self.high == inf else [f"below {self.high:.0f}"]
        return " and ".join(bounds) or "undetermined"

    def signal(self, step: int = 0) -> Signal:
        """Return it as a signal in samples; ``low`` and ``high`` are batches that were tried."""
        if self.verdict == "undetermined":
            reason = (
                self.reason or "every interval spans the tolerance; more repeats or held-out data"
            )
            return undetermined(_NAME, reason=reason, unit="samples", step=step)
        return Signal(
            name=_NAME,
            value=float(self.best),
            low=float(self.low),
            high=float(self.high),
            level=self.level,
            unit="samples",
            step=step,
            reason=f"{len(self.control_losses)} repeats of {self.samples} samples",
        )


def compare(
    multiple: int,
    batch_size: int,
    losses: tuple[float, ...],
    control: tuple[float, ...],
    *,
    tolerance: float,
    level: float,
) -> Comparison:
    """Judge the branches at ``batch_size`` against the control's.

    With paired differences ``d_r`` of ``n`` repeats: ``mean(d) ± t s / sqrt(n)``, ``s`` their
    standard deviation, ``t`` Student's quantile for ``n - 1`` degrees of freedom (the paired t
    interval: Student 1908). A loss that is not finite is infinitely worse than any that is.

    Args:
        multiple: ``k``.
        batch_size: ``k B``.
        losses: One a repeat, two or more.
        control: Of the same repeats, all finite.
        tolerance: By how much a loss may exceed the control's.
        level: Between 0 and 1.

    Example:
        >>> compare(2, 64, (0.71, 0.72, 0.7), (0.5, 0.51, 0.5), tolerance=0.01, level=0.95).verdict
        'worse'
        >>> compare(2, 64, (0.6, 0.4), (0.5, 0.5), tolerance=0.01, level=0.95).verdict
        'undetermined'
    """
    differences = [one - other for one, other in zip(losses, control, strict=True)]
    mean, half = inf, nan
    if all(map(isfinite, differences)):
        mean = fmean(differences)
        quantile = t_quantile(0.5 + 0.5 * level, len(differences) - 1)
        half = quantile * stdev(differences) / sqrt(len(differences))
    low, high = (mean, mean) if mean == inf else (mean - half, mean + half)
    verdict = FINE if high <= tolerance else WORSE if low > tolerance else UNCLEAR
    return Comparison(
        multiple=multiple,
        batch_size=batch_size,
        losses=losses,
        difference=mean,
        low=low,
        high=high,
        verdict=verdict,
    )
