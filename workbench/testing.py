"""Public fakes for every boundary: a tracker in memory, a fixed clock, a scripted adaptor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from workbench.decision import Applied, Decision, Outcome
from workbench.facts import StepFacts
from workbench.record import Record


@dataclass
class MemoryTracker:
    """A tracker that keeps every record in a list.

    Example:
        >>> tracker = MemoryTracker()
        >>> tracker.close(); tracker.records, tracker.closed
        ([], True)
    """

    records: list[Record] = field(default_factory=list)
    closed: bool = False

    def write(self, record: Record) -> None:
        """Keep the record."""
        self.records.append(record)

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


@dataclass
class FixedClock:
    """A clock that moves ``tick`` seconds at each reading.

    Example:
        >>> clock = FixedClock(now=10.0, tick=0.5)
        >>> clock(), clock()
        (10.0, 10.5)
    """

    now: float = 0.0
    tick: float = 0.0

    def __call__(self) -> float:
        """Return the time, then move on."""
        now = self.now
        self.now += self.tick
        return now


@dataclass
class ScriptedAdaptor:
    """An adaptor that plays given facts and answers every decision from a list, then ``Applied``.

    Example:
        >>> adaptor = ScriptedAdaptor(facts=[])
        >>> list(adaptor.measure())
        []
    """

    facts: Iterable[StepFacts]
    answers: list[Outcome] = field(default_factory=list)
    asked: list[Decision] = field(default_factory=list)

    def measure(self) -> Iterator[StepFacts]:
        """Yield the facts given, one a step."""
        yield from self.facts

    def apply(self, decision: Decision, step: int) -> Outcome:
        """Remember the decision; return the next answer."""
        self.asked.append(decision)
        return self.answers.pop(0) if self.answers else Applied(step=step)
