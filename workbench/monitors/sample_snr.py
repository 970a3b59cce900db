"""One sample's signal-to-noise ratio, from which all that depends on the noise scale follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from workbench.facts import StepFacts

from .average import Average, Estimating, Sample, averaged
from .noise_scale import step_weight
from .parts import split

MISSING = "the gradient is 0 in every split step"
"""Why there is no ratio although there are steps: neither signal nor noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnrState(Average):
    """The ratio ``|G|^2 / tr(Sigma)`` with its interval, per sample: the inverse noise scale.

    Attributes:
        first_batch: Global batch size of the first split step, whose weight is 1.
        first_small: Number of small batches of that step.
        small_batch: Samples in a small batch of the last full step.
        batch: The global batch size in force.
        base: The first global batch size that was in force.

    Example:
        >>> SnrState().reason
        'no step was split yet'
    """

    reason: str = "no step was split yet"
    first_batch: int = 0
    first_small: int = 0
    small_batch: float = 0.0
    batch: int = 0
    base: int = 0


def seen(state: SnrState, facts: StepFacts, monitor: Estimating) -> SnrState:
    """Return the state after ``facts``; steps that cannot count change no estimate.

    ``S_hat`` and ``|G|^2_hat`` of each split step (see :func:`.parts.split`) are averaged apart, and
    the noise is the denominator: it is never negative and well measured, so that the ratio has a
    value even where ``|G|^2`` is lost in the noise and the noise scale has none.

    Example:
        >>> from workbench.monitors import GradientSnr
        >>> facts = StepFacts(step=1, epoch=0, samples=64, seconds=0.1, workers=2,
        ...                   batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                   grad_sqnorm_small=3.0, grad_sqnorm_big=2.0, origin="ranks")
        >>> state = SnrState()
        >>> for _ in range(8):
        ...     state = seen(state, facts, GradientSnr())
        >>> 1 / state.value
        64.0
    """
    state = _in_force(state, facts.batch_size_target)
    parts = split(facts)
    if parts is None:
        return state
    state, weight = _weighed(state, facts)
    sample = Sample(parts.signal, parts.noise, weight)
    return averaged(state, sample, monitor, facts, missing=MISSING)


def _in_force(state: SnrState, batch: int) -> SnrState:
    if batch < 1 or batch == state.batch:
        return state
    return replace(state, batch=batch, base=state.base or batch)


def _weighed(state: SnrState, facts: StepFacts) -> tuple[SnrState, float]:
    """Return the step's precision relative to the first one's, and what to remember of it."""
    batch, small = facts.batch_size_global, facts.small_batches
    mean_small = batch / small
    if batch != facts.batch_size_target and state.small_batch:
        mean_small = state.small_batch  # the short last step of an epoch
    first_batch, first_small = state.first_batch or batch, state.first_small or small
    if (mean_small, first_batch) != (state.small_batch, state.first_batch):
        state = replace(
            state, small_batch=mean_small, first_batch=first_batch, first_small=first_small
        )
    if (batch, small) == (first_batch, first_small):
        return state, 1.0
    known = isfinite(state.value) and state.value > 0.0
    at = 1.0 / state.value if known else float(first_batch)
    first = step_weight(first_batch, first_small, at)
    return state, step_weight(batch, small, at) / first
