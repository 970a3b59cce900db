"""One row of a job's history: facts, signals, proposals, the decision and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from workbench.decision import Decision, Keep, Outcome
from workbench.facts import StepFacts
from workbench.signal import Signals


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What one policy asked for, and why the arbiter did not take it (empty when it did).

    Example:
        >>> Proposal(policy="none", decision=Keep()).overruled
        ''
    """

    policy: str
    decision: Decision
    overruled: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A policy or monitor that raised, and is switched off from this step on.

    Example:
        >>> Fault(part="policy Mine", step=7, error="ZeroDivisionError: division by zero").step
        7
    """

    part: str
    step: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One step as it is kept for ever.

    Attributes:
        facts: What was measured.
        signals: What the monitors made of it.
        decision: What the arbiter chose; ``Keep`` when nothing changes.
        outcome: What the job answered; ``None`` for ``Keep``.
        policy: Name of the policy whose decision was chosen; empty for ``Keep``.
        proposals: Every proposal other than ``Keep``, the chosen one included.
        faults: Parts that raised in this step.
        unix_time: Seconds since 1970, by the clock given to the job.

    Example:
        >>> facts = StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                   batch_size_global=8, batch_size_target=8)
        >>> Record(facts=facts, signals=Signals(), unix_time=0.0).decision.kind
        'keep'
    """

    facts: StepFacts
    signals: Signals
    decision: Decision = field(default_factory=Keep)
    outcome: Outcome | None = None
    policy: str = ""
    proposals: tuple[Proposal, ...] = ()
    faults: tuple[Fault, ...] = ()
    unix_time: float = 0.0


class Tracker(Protocol):
    """Where records go. ``write`` returns at once: it never waits for a disk or a server."""

    def write(self, record: Record) -> None:
        """Take one record."""
        ...

    def close(self) -> None:
        """Bring to safety what was taken."""
        ...
