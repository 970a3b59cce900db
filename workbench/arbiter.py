"""Choose one decision from what the policies ask for: precedence, bounds, hysteresis, cool-down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from workbench.decision import Decision, Keep, SetBatchSize, SetLearningRate, Stop
from workbench.errors import ConfigurationError
from workbench.policy import View
from workbench.record import Proposal

PRECEDENCE = ("stop", "resize", "set_sync", "set_batch_size", "set_learning_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What no policy may pass.

    A decision that names signals rests on estimates, so it is damped: it must ask for a
    change by the factor ``min_change`` at least, is given ``max_change`` at most, and waits
    ``cool_down_steps`` after the last change. A decision without signals (a schedule) is taken as
    it is, within the bounds.

    Attributes:
        min_batch_size: Smallest global batch size, 1 or more.
        max_batch_size: Largest global batch size; ``None`` for the size of the data set.
        min_change: Factor of 1 or more below which an estimate changes nothing.
        max_change: Largest factor of one change made on an estimate, at least ``min_change``;
            ``math.inf`` for no limit.
        cool_down_steps: Steps that must pass after a change before an estimate may change again.

    Raises:
        ConfigurationError: A limit is impossible.

    Example:
        >>> Limits(max_batch_size=4096).max_change
        2.0
    """

    min_batch_size: int = 1
    max_batch_size: int | None = None
    min_change: float = 1.1
    max_change: float = 2.0
    cool_down_steps: int = 10

    def __post_init__(self) -> None:
        if self.min_batch_size < 1:
            raise ConfigurationError(
                f"min_batch_size is {self.min_batch_size}; allowed: 1 or more; use min_batch_size=1"
            )
        if self.max_batch_size is not None and self.max_batch_size < self.min_batch_size:
            raise ConfigurationError(
                f"max_batch_size is {self.max_batch_size}, below min_batch_size "
                f"{self.min_batch_size}; raise the one or lower the other"
            )
        if not 1.0 <= self.min_change <= self.max_change:
            raise ConfigurationError(
                f"min_change is {self.min_change} and max_change {self.max_change}; allowed: "
                "1 <= min_change <= max_change; use 1.1 and 2"
            )
        if self.cool_down_steps < 0:
            raise ConfigurationError(
                f"cool_down_steps is {self.cool_down_steps}; allowed: 0 or more; use 10"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The decision taken, whose it was, and every proposal with the reason it was not taken."""

    decision: Decision
    policy: str = ""
    proposals: tuple[Proposal, ...] = ()


def arbitrate(limits: Limits, view: View, proposals: Sequence[Proposal]) -> Choice:
    """Return the one decision that is taken at this step boundary.

    Kinds come in the order of ``PRECEDENCE``; within a kind the first policy wins. One change is
    made at a time; the others are told so and may ask again.

    Example:
        >>> view = View(step=50, epoch=0, samples=3200, workers=1, batch_size_global=64,
        ...             dataset_size=10_000, steps_since_change=50)
        >>> asked = [Proposal(policy="schedule", decision=SetBatchSize(256))]
        >>> arbitrate(Limits(max_batch_size=128), view, asked).decision.batch_size_global
        128
    """
    judged: list[Proposal] = []
    chosen: Proposal | None = None
    for proposal in sorted(proposals, key=_rank):
        if isinstance(proposal.decision, Keep):
            continue
        if proposal.overruled:
            judged.append(proposal)
            continue
        if chosen is not None:
            judged.append(replace(proposal, overruled=f"one change at a time: {chosen.policy}"))
            continue
        fitted, overruled = _fit(limits, view, proposal.decision)
        if overruled:
            judged.append(replace(proposal, overruled=overruled))
        else:
            chosen = Proposal(policy=proposal.policy, decision=fitted)
            judged.append(proposal)
    if chosen is None:
        return Choice(decision=Keep(), proposals=tuple(judged))
    return Choice(decision=chosen.decision, policy=chosen.policy, proposals=tuple(judged))


def _rank(proposal: Proposal) -> int:
    kind = proposal.decision.kind
    return PRECEDENCE.index(kind) if kind in PRECEDENCE else len(PRECEDENCE)


def _fit(limits: Limits, view: View, decision: Decision) -> tuple[Decision, str]:
    """Return the decision within the limits, or why it is overruled."""
    if isinstance(decision, Stop):
        return decision, ""
    waited = view.steps_since_change
    if decision.because and waited < limits.cool_down_steps:
        return decision, f"cooling down: {waited} of {limits.cool_down_steps} steps"
    if isinstance(decision, SetBatchSize):
        return _fit_batch_size(limits, view, decision)
    if isinstance(decision, SetLearningRate) and not 0.0 < decision.scale < float("inf"):
        return decision, f"learning-rate scale {decision.scale} is not a positive number"
    return decision, ""


def _fit_batch_size(limits: Limits, view: View, decision: SetBatchSize) -> tuple[Decision, str]:
    current, wanted = view.batch_size_global, decision.batch_size_global
    if decision.because:
        change = max(wanted, current) / max(1, min(wanted, current))
        if change < limits.min_change:
            return decision, f"a change of {change:.3g} times is below min_change"
        highest, lowest = current * limits.max_change, current / limits.max_change
        wanted = int(highest) if wanted > highest else max(wanted, ceil(lowest))
    top = limits.max_batch_size or view.dataset_size or wanted
    if view.dataset_size:
        top = min(top, view.dataset_size)
    wanted = max(min(wanted, top), min(limits.min_batch_size, top))
    if wanted == current:
        return decision, f"batch size {current} is at its bound"
    return replace(decision, batch_size_global=wanted), ""
