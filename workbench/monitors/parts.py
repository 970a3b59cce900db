"""The unbiased parts of one split step: how much of the gradient is noise, how much is signal."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.facts import StepFacts, TwoNorms

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
    """Return the parts of a step's gradient, or ``None`` when it has none to offer.

    There are none when a norm is missing, the step was skipped, or any number is NaN or infinite;
    see :func:`parts_of` for the rest.

    Example:
        >>> facts = StepFacts(step=1, epoch=0, samples=64, seconds=0.1, workers=2,
        ...                   batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                   grad_sqnorm_small=3.0, grad_sqnorm_big=2.0)
        >>> split(facts)
        Parts(noise=64.0, signal=1.0)
    """
    norms = facts.norms
    if norms is None or not facts.finite:
        return None
    return parts_of(norms, facts.batch_size_global)


def parts_of(norms: TwoNorms, batch: int) -> Parts | None:
    """Return the parts of one gradient seen at two batch sizes, the big one of ``batch`` samples.

    ``S_hat = B (small - big) / (k - 1)``, ``|G|^2_hat = big - S_hat / B`` (McCandlish et al.
    2018, appendix A.1, for ``k`` small batches of any sizes). ``None`` when a number is NaN,
    infinite or beyond ``1e150``, or the small norm is below the big one, which no gradient can do.

    Example:
        >>> parts_of(TwoNorms(small=3.0, big=2.0, small_batches=2), 64)
        Parts(noise=64.0, signal=1.0)
    """
    excess = norms.small - norms.big
    if not norms.finite or norms.small_batches < 2 or batch < 1 or norms.big < 0.0:
        return None
    if excess < -_ROUNDING * norms.big:
        return None
    noise = batch * max(excess, 0.0) / (norms.small_batches - 1)
    if max(noise, norms.small) > _LARGEST:
        return None
    return Parts(noise, norms.big - noise / batch)
