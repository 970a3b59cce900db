"""What follows from a step: read its numbers some steps later, ask the engine, act, record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from workbench.codec import from_plain, to_plain
from workbench.decision import Decision, Keep, Outcome
from workbench.engine import Engine, EngineState
from workbench.facts import StepFacts
from workbench.record import Fault, Record, Tracker
from workbench.sampling import Sampling, SamplingState
from workbench.signal import Signals

from .reading import Reading

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished step, as far as the host knows it.

    Attributes:
        known: Fields of its ``StepFacts``.
        measured: Whether its gradient was measured.
    """

    known: Mapping[str, Any]
    measured: bool

    @property
    def step(self) -> int:
        """Its number."""
        number: int = self.known["step"]
        return number


@dataclass(frozen=True, slots=True)
class Read:
    """A finished step with all its numbers.

    Attributes:
        facts: All of them.
        measured: Whether its gradient was measured.
        stop: Whether a worker wants to end.
    """

    facts: StepFacts
    measured: bool
    stop: bool = False

    @property
    def step(self) -> int:
        """Its number."""
        return self.facts.step


class Reader(Protocol):
    """Makes facts of a step's numbers: :class:`.tally.Tally`, :class:`.exchange.StepSums`."""

    def read(self, known: Mapping[str, Any], values: Sequence[float]) -> tuple[StepFacts, bool]:
        """Return the facts and whether a worker wants to end.

        Args:
            known: The fields that the host knows.
            values: The numbers, summed over the workers.
        """
        ...


class Reaction:
    """Takes finished steps in their order and reacts to each, ``lag`` steps later.

    The lag is a number of steps, never a matter of time, so that every worker reacts to the same step
    at the same place, and a run with the same facts takes the same decisions.

    Args:
        engine: Monitors, policies and limits.
        sampling: Which steps are measured.
        tally: Who reads vectors.
        lag: Steps between a step and the reaction to it, 0 or more.
        trackers: Where records go.
        apply: Carries out a decision, or says why not.
        after: Called after each step's record was written, with what the decision led to.
        faults: What else went wrong at a step.
        wall_clock: Seconds since 1970.

    Attributes:
        signals: After the last step that was reacted to.
        seconds: All steps' seconds so far, mean over workers.
        interrupted: Whether a worker asked to end.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        sampling: Sampling,
        tally: Reader,
        lag: int,
        trackers: Sequence[Tracker],
        apply: Callable[[Decision], Outcome],
        after: Callable[[StepFacts, Outcome | None], None],
        faults: Callable[[StepFacts], tuple[Fault, ...]],
        wall_clock: Clock,
    ) -> None:
        self._engine, self._sampling, self._tally, self._lag = engine, sampling, tally, lag
        self._trackers, self._apply = tuple(trackers), apply
        self._after, self._faults = after, faults
        self._wall_clock = wall_clock
        self._state: EngineState = engine.init()
        self._sampled: SamplingState = sampling.init()
        self._waiting: deque[tuple[Finished, Reading] | Read] = deque()
        self.signals = Signals()
        self.seconds = 0.0
        self.interrupted = False

    @property
    def learning_rate_scale(self) -> float:
        """The last factor on the learning rate that a policy asked for."""
        return self._state.learning_rate_scale

    def measures(self, step: int) -> bool:
        """Return whether ``step`` is to be measured."""
        return self._sampling.due(self._sampled, step)

    def take(self, finished: Finished, reading: Reading) -> None:
        """Hear of a finished step; ``reading`` holds its numbers, summed over the workers."""
        self._waiting.append((finished, reading))

    def react(self, step: int) -> bool:
        """React to every step of ``step - lag`` and before; return whether one was measured."""
        measured = False
        while self._waiting:
            first = self._waiting[0]
            number = first.step if isinstance(first, Read) else first[0].step
            if number > step - self._lag:
                break
            read = self._read(self._waiting.popleft())
            measured = measured or read.measured
            self._react_to(read)
        return measured

    def flush(self) -> None:
        """React to all that was taken."""
        while self._waiting:
            self._react_to(self._read(self._waiting.popleft()))

    def forget(self) -> None:
        """Drop what was taken and not reacted to."""
        self._waiting.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values, steps that wait for their reaction included."""
        waiting = [self._read(taken) for taken in self._waiting]
        self._waiting = deque(waiting)
        return {
            "engine": self._engine.save(self._state),
            "sampling": to_plain(self._sampled),
            "waiting": [
                {"facts": to_plain(read.facts), "measured": read.measured} for read in waiting
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; a request to end that was waiting is not taken up again."""
        self._state = self._engine.load(state["engine"])
        if "sampling" in state and not self._sampling.every:
            self._sampled = from_plain(SamplingState, state["sampling"])
        self._waiting = deque(
            Read(from_plain(StepFacts, item["facts"]), item["measured"])
            for item in state.get("waiting", ())
        )

    def _read(self, taken: tuple[Finished, Reading] | Read) -> Read:
        if isinstance(taken, Read):
            return taken
        finished, reading = taken
        facts, stop = self._tally.read(finished.known, reading.values())
        return Read(facts, finished.measured, stop)

    def _react_to(self, read: Read) -> None:
        facts = read.facts
        self.interrupted = self.interrupted or read.stop
        self.seconds += facts.seconds
        self._sampled = self._sampling.update(self._sampled, facts, measured=read.measured)
        step = self._engine.step(self._state, facts)
        self._state, self.signals = step.state, step.signals
        outcome: Outcome | None = None
        if not isinstance(step.decision, Keep):
            outcome = self._apply(step.decision)
            self._state = self._engine.heard(self._state, step.decision, outcome, facts.step)
        record = Record(
            facts=facts,
            signals=step.signals,
            decision=step.decision,
            outcome=outcome,
            policy=step.choice.policy,
            proposals=step.choice.proposals,
            faults=step.faults + self._faults(facts),
            unix_time=self._wall_clock(),
        )
        for tracker in self._trackers:
            tracker.write(record)
        self._after(facts, outcome)
