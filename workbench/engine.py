"""One step of the whole theory: facts in; signals and one decision out; no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from workbench.arbiter import Choice, Limits, arbitrate
from workbench.codec import from_plain, to_plain
from workbench.decision import (
    Applied,
    Decision,
    Keep,
    Outcome,
    Refused,
    SetBatchSize,
    SetLearningRate,
    wish,
)
from workbench.facts import StepFacts
from workbench.monitors.protocol import Monitor
from workbench.policy import AnyPolicy, StatefulPolicy, View, policy_name
from workbench.record import Fault, Proposal
from workbench.signal import Signal, Signals, undetermined


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """All that the engine remembers between steps: a value that is saved beside the model.

    Attributes:
        monitors: The state of each monitor, in the engine's order.
        policies: The state of each policy, in the engine's order; ``None`` for one without memory.
        silenced: Monitors and policies that raised and are off, as ``policy Mine``.
        last_outcome: What became of the last decision that was not ``Keep``.
        last_change: Step at which a decision was last applied.
        learning_rate_scale: The last ``SetLearningRate`` applied.
        refused: What the job refused, as ``(wish, reason)``; it is not asked for again.
        batch_size_global: The last batch size applied; 0 before one was.
        batch_size_after: The last step that was drawn with the one before it.
    """

    monitors: tuple[Any, ...]
    policies: tuple[Any, ...]
    silenced: tuple[str, ...] = ()
    last_outcome: Outcome | None = None
    last_change: int = 0
    learning_rate_scale: float = 1.0
    refused: tuple[tuple[str, str], ...] = ()
    batch_size_global: int = 0
    batch_size_after: int = 0


class Step(NamedTuple):
    """What :meth:`Engine.step` returns."""

    state: EngineState
    signals: Signals
    choice: Choice
    faults: tuple[Fault, ...]

    @property
    def decision(self) -> Decision:
        """The decision taken."""
        return self.choice.decision


_KEEP = Choice(decision=Keep())


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Monitors, policies and limits, as one function from facts to a decision.

    The facts are the same on every rank and nothing else is read, so every rank takes the same
    decision at the same step, and a recorded run can be replayed.

    Example:
        >>> engine = Engine()
        >>> facts = StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                   batch_size_global=8, batch_size_target=8)
        >>> engine.step(engine.init(), facts).decision.kind
        'keep'
    """

    monitors: Sequence[Monitor] = ()
    policies: Sequence[AnyPolicy] = ()
    limits: Limits = field(default_factory=Limits)
    dataset_size: int = 0

    def init(self) -> EngineState:
        """Return the state before the first step."""
        return EngineState(
            monitors=tuple(monitor.init() for monitor in self.monitors),
            policies=tuple(_initial(policy) for policy in self.policies),
        )

    def step(self, state: EngineState, facts: StepFacts) -> Step:
        """Return the next state, the signals, the choice, and the parts that raised."""
        monitors, signals, broken = self._watch(state, facts)
        if not self.policies:  # nobody to ask: a step of a job that only watches is cheap
            if monitors:
                silenced = state.silenced + _names(broken)
                state = replace(state, monitors=monitors, silenced=silenced)
            return Step(state, signals, _KEEP, tuple(broken))
        view = self._view(state, facts, signals)
        policies, proposals, failed = self._ask(state, view)
        silenced = state.silenced + _names(broken) + _names(failed)
        state = replace(state, monitors=monitors, policies=policies, silenced=silenced)
        choice = arbitrate(self.limits, view, _without_refused(proposals, state.refused))
        return Step(state, signals, choice, tuple(broken + failed))

    def heard(
        self, state: EngineState, decision: Decision, outcome: Outcome, step: int
    ) -> EngineState:
        """Return the state after the job answered ``decision`` with ``outcome`` at ``step``."""
        if isinstance(outcome, Refused):
            refused = (*state.refused, (wish(decision), outcome.reason))
            return replace(state, last_outcome=outcome, refused=refused)
        if not isinstance(outcome, Applied):
            return replace(state, last_outcome=outcome)
        state = replace(state, last_outcome=outcome, last_change=step)
        if isinstance(decision, SetLearningRate):
            return replace(state, learning_rate_scale=decision.scale)
        if isinstance(decision, SetBatchSize):
            # Facts come some steps late: those drawn before still tell the batch size of then.
            batch = decision.batch_size_global
            return replace(state, batch_size_global=batch, batch_size_after=outcome.step)
        return state

    def save(self, state: EngineState) -> dict[str, Any]:
        """Return the state as plain values, monitors and policies by name.

        Raises:
            TypeError: The state of a policy or monitor cannot be saved; the message names its type.
        """
        plain: dict[str, Any] = to_plain(state)
        plain["monitors"] = dict(zip(self._monitor_names, plain["monitors"], strict=True))
        plain["policies"] = dict(zip(self._policy_names, plain["policies"], strict=True))
        return plain

    def load(self, plain: Mapping[str, Any]) -> EngineState:
        """Return the state saved; parts that were not there before start afresh."""
        fresh = self.init()
        rest = {**plain, "monitors": [], "policies": []}
        state: EngineState = from_plain(EngineState, rest)
        return replace(
            state,
            monitors=_restored(self._monitor_names, fresh.monitors, plain["monitors"]),
            policies=_restored(self._policy_names, fresh.policies, plain["policies"]),
        )

    def _watch(
        self, state: EngineState, facts: StepFacts
    ) -> tuple[tuple[Any, ...], Signals, list[Fault]]:
        states: list[Any] = []
        signals: list[Signal] = []
        faults: list[Fault] = []
        parts = zip(self._monitor_parts, self.monitors, state.monitors, strict=True)
        for part, monitor, before in parts:
            after, signal = before, None
            if part not in state.silenced:
                try:
                    after, signal = _update(monitor, before, facts)
                except Exception as error:  # a user's monitor may raise anything
                    faults.append(Fault(part=part, step=facts.step, error=_sentence(error)))
            if signal is None:
                reason = "it raised and is off"
                signal = undetermined(monitor.name, reason=reason, step=facts.step)
            states.append(after)
            signals.append(signal)
        return tuple(states), Signals.of(signals), faults

    def _ask(
        self, state: EngineState, view: View
    ) -> tuple[tuple[Any, ...], list[Proposal], list[Fault]]:
        states: list[Any] = []
        proposals: list[Proposal] = []
        faults: list[Fault] = []
        parts = zip(self._policy_names, self.policies, state.policies, strict=True)
        for name, policy, before in parts:
            part, after = f"policy {name}", before
            if part not in state.silenced:
                try:
                    decision, after = _decide(policy, view, before)
                    proposals.append(Proposal(policy=name, decision=decision))
                except Exception as error:  # a user's policy may raise anything
                    faults.append(Fault(part=part, step=view.step, error=_sentence(error)))
            states.append(after)
        return tuple(states), proposals, faults

    def _view(self, state: EngineState, facts: StepFacts, signals: Signals) -> View:
        return View(
            step=facts.step,
            epoch=facts.epoch,
            samples=facts.samples,
            workers=facts.workers,
            batch_size_global=(
                state.batch_size_global
                if facts.step <= state.batch_size_after
                else facts.batch_size_target
            ),
            learning_rate_scale=state.learning_rate_scale,
            dataset_size=self.dataset_size,
            signals=signals,
            last_outcome=state.last_outcome,
            steps_since_change=facts.step - state.last_change,
        )

    @cached_property
    def _monitor_names(self) -> tuple[str, ...]:
        return _apart([monitor.name for monitor in self.monitors])

    @cached_property
    def _monitor_parts(self) -> tuple[str, ...]:
        return tuple(f"monitor {name}" for name in self._monitor_names)

    @cached_property
    def _policy_names(self) -> tuple[str, ...]:
        return _apart([policy_name(policy) for policy in self.policies])


def _without_refused(
    proposals: Sequence[Proposal], refused: Sequence[tuple[str, str]]
) -> list[Proposal]:
    """Return the proposals; those that the job refused before are marked overruled."""
    reasons = dict(refused)
    return [
        replace(proposal, overruled=f"refused before: {reasons[wish(proposal.decision)]}")
        if wish(proposal.decision) in reasons
        else proposal
        for proposal in proposals
    ]


def _initial(policy: AnyPolicy) -> Any:
    return policy.init() if isinstance(policy, StatefulPolicy) else None


def _update(monitor: Monitor, state: Any, facts: StepFacts) -> tuple[Any, Signal]:
    """Return the next state and the signal, which carries the step it was computed after."""
    state, signal = monitor.update(state, facts)
    if not isinstance(signal, Signal):
        raise TypeError(f"update() returned {type(signal).__name__}; allowed: a state and a Signal")
    return state, signal if signal.step else replace(signal, step=facts.step)


def _decide(policy: AnyPolicy, view: View, state: Any) -> tuple[Decision, Any]:
    if isinstance(policy, StatefulPolicy):
        decision, state = policy.decide(view, state)
    else:
        decision = policy.decide(view)
    if not isinstance(decision, Decision):
        raise TypeError(
            f"decide() returned {type(decision).__name__}; allowed: a Decision or Keep()"
        )
    return decision, state


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _names(faults: Sequence[Fault]) -> tuple[str, ...]:
    return tuple(fault.part for fault in faults)


def _apart(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names with the second, third ... of a kind numbered: ``schedule (2)``."""
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return tuple(
        name if count == 1 else f"{name} ({count})"
        for name, count in zip(names, counts, strict=True)
    )


def _restored(
    names: Sequence[str], fresh: Sequence[Any], saved: Mapping[str, Any]
) -> tuple[Any, ...]:
    states: list[Any] = []
    for name, state in zip(names, fresh, strict=True):
        plain = saved.get(name)
        states.append(state if plain is None else from_plain(type(state), plain))
    return tuple(states)
