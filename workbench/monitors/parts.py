"""The unbiased parts of one split step: how much of the gradient is noise, how much is signal."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.facts import StepFacts

_LARGEST = 1e150
"""Beyond it a square leaves the range of a float; no honest norm comes near it."""

_ROUNDING = 1e-3
"""By how much of the big norm rounding may bring the small norm below it."""


@dataclass(frozen=True, slots=True)
class Parts:
    """``noise`` is ``S_hat``, of ``tr(Sigma)``; ``signal`` is ``|G|^2_hat``, which may be negative.

    Example:
        >>> Parts(noise=64.0, signal=1.0).noise / 64
        1.0
    """

    noise: float
    signal: float


def split(facts: StepFacts) -> Parts | None:
    """Return the parts of a step, or ``None`` when it has none to offer.

    ``S_hat = B (small - big) / (k - 1)``, ``|G|^2_hat = big - S_hat / B`` (McCandlish et al.
    2018, appendix A.1, for ``k`` small batches of any sizes). There are none when a norm is
    missing, the step was skipped, any number is NaN, infinite or beyond ``1e150``, or the small
    norm is below the big one, which no gradient can do.

    Example:
        >>> facts = StepFacts(step=1, epoch=0, samples=64, seconds=0.1, workers=2,
        ...                   batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                   grad_sqnorm_small=3.0, grad_sqnorm_big=2.0)
        >>> split(facts)
        Parts(noise=64.0, signal=1.0)
    """
    small, big = facts.grad_sqnorm_small, facts.grad_sqnorm_big
    if small is None or big is None or not facts.splits or not facts.finite:
        return None
    batch, excess = facts.batch_size_global, small - big
    if batch < 1 or big < 0.0 or excess < -_ROUNDING * big:
        return None
    noise = batch * max(excess, 0.0) / (facts.small_batches - 1)
    if max(noise, small) > _LARGEST:
        return None
    return Parts(noise, big - noise / batch)
