"""A policy or monitor that raises is switched off and told once; training goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from workbench.decision import Decision, Keep, SetBatchSize
from workbench.engine import Engine, EngineState, Step
from workbench.facts import StepFacts
from workbench.monitors import build_monitor
from workbench.policy import View
from workbench.record import Fault
from workbench.signal import Signal, exact


def facts(step: int) -> StepFacts:
    return StepFacts(
        step=step,
        epoch=0,
        samples=8 * step,
        seconds=0.1,
        workers=1,
        batch_size_global=8,
        batch_size_target=8,
        loss=1.0 / step,
    )


def run(
    engine: Engine, state: EngineState, first: int, last: int
) -> tuple[EngineState, list[Step]]:
    steps = []
    for number in range(first, last + 1):
        step = engine.step(state, facts(number))
        state = step.state
        steps.append(step)
    return state, steps


@dataclass
class RaisesAt:
    """A policy that counts its calls and raises from one step on."""

    step: int
    error: Exception
    calls: int = 0
    name: str = "mine"

    def decide(self, view: View) -> Decision:
        self.calls += 1
        if view.step >= self.step:
            raise self.error
        return Keep()


@dataclass
class Returns:
    """A policy that returns whatever it is given."""

    junk: Any
    name: str = "junk"

    def decide(self, view: View) -> Any:  # noqa: ARG002
        return self.junk


@dataclass
class Counting:
    """A stateful policy that counts steps, or forgets to return its state."""

    forgets: bool = False
    name: str = "counting"

    def init(self) -> int:
        return 0

    def decide(self, view: View, state: int) -> Any:
        return Keep() if self.forgets and view.step == 3 else (Keep(), state + 1)


@dataclass
class OddMonitor:
    """A monitor that gives, from its third step on, what the test wants."""

    gives: Any
    name: str = "odd"

    def init(self) -> int:
        return 0

    def update(self, state: int, facts: StepFacts) -> Any:  # noqa: ARG002
        if state < 2:
            return state + 1, exact("odd", float(state))
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives


def test_a_policy_that_raises_is_told_once_and_never_called_again() -> None:
    policy, other = RaisesAt(3, ZeroDivisionError("division by zero")), Returns(SetBatchSize(16))
    engine = Engine(policies=(policy, other))
    state, steps = run(engine, engine.init(), 1, 6)
    told = [fault for step in steps for fault in step.faults]
    assert told == [Fault(part="policy mine", step=3, error="ZeroDivisionError: division by zero")]
    assert policy.calls == 3
    assert state.silenced == ("policy mine",)
    assert [step.decision for step in steps] == [SetBatchSize(16)] * 6


def test_a_part_that_is_off_stays_off_after_loading() -> None:
    policy = RaisesAt(2, ValueError("no"))
    engine = Engine(policies=(policy,))
    state, _ = run(engine, engine.init(), 1, 2)
    loaded = engine.load(json.loads(json.dumps(engine.save(state))))
    assert loaded == state
    _, steps = run(engine, loaded, 3, 5)
    assert policy.calls == 2
    assert not any(step.faults for step in steps)


@pytest.mark.parametrize(
    ("junk", "named"),
    [(None, "NoneType"), (128, "int"), ("set_batch_size", "str"), ((Keep(), 1), "tuple")],
)
def test_a_policy_that_returns_no_decision_is_switched_off(junk: Any, named: str) -> None:
    engine = Engine(policies=(Returns(junk),))
    _, steps = run(engine, engine.init(), 1, 3)
    assert [len(step.faults) for step in steps] == [1, 0, 0]
    assert steps[0].faults[0].error == (
        f"TypeError: decide() returned {named}; allowed: a Decision or Keep()"
    )
    assert all(step.decision == Keep() for step in steps)


def test_a_class_given_for_a_policy_is_a_fault_and_no_crash() -> None:
    engine = Engine(policies=(RaisesAt,))  # type: ignore[arg-type]
    _, steps = run(engine, engine.init(), 1, 2)
    assert steps[0].faults[0].error.startswith("TypeError: ")


def test_a_batch_size_that_is_no_whole_number_never_reaches_the_job() -> None:
    class Careless:
        def decide(self, view: View) -> Decision:
            return SetBatchSize(1.5 * view.batch_size_global)  # type: ignore[arg-type]

    engine = Engine(policies=(Careless(),))
    _, steps = run(engine, engine.init(), 1, 2)
    assert steps[0].faults == (
        Fault(
            part="policy Careless",
            step=1,
            error="TypeError: batch_size_global is 12.0; allowed: a whole number; use int(...)",
        ),
    )
    assert steps[1].decision == Keep()


def test_a_stateful_policy_keeps_the_state_it_had_before_it_failed() -> None:
    engine = Engine(policies=(Counting(forgets=True), Counting()))
    state, steps = run(engine, engine.init(), 1, 5)
    assert state.policies == (2, 5)
    assert [fault.part for step in steps for fault in step.faults] == ["policy counting"]


def test_two_policies_of_one_name_fail_apart_and_are_told_apart() -> None:
    well, ill = RaisesAt(99, ValueError("first")), RaisesAt(2, ValueError("second"))
    engine = Engine(policies=(well, ill))
    state, _ = run(engine, engine.init(), 1, 5)
    assert state.silenced == ("policy mine (2)",)
    assert (well.calls, ill.calls) == (5, 2)


@pytest.mark.parametrize(
    ("gives", "error"),
    [
        (RuntimeError("no norm"), "RuntimeError: no norm"),
        ((3, None), "TypeError: update() returned NoneType; allowed: a state and a Signal"),
        ((3, 0.5), "TypeError: update() returned float; allowed: a state and a Signal"),
        (None, "TypeError: cannot unpack non-iterable NoneType object"),
        (exact("odd", 1.0), "TypeError: cannot unpack non-iterable Signal object"),
    ],
)
def test_a_monitor_that_fails_leaves_an_undetermined_signal(gives: Any, error: str) -> None:
    engine = Engine(monitors=(OddMonitor(gives), build_monitor("loss")))
    state, steps = run(engine, engine.init(), 1, 6)
    told = [fault for step in steps for fault in step.faults]
    assert told == [Fault(part="monitor odd", step=3, error=error)]
    assert [step.signals["odd"].determined for step in steps] == [True, True, *[False] * 4]
    assert steps[-1].signals["odd"].reason == "it raised and is off"
    assert all(step.signals["loss"].determined for step in steps)
    assert state.monitors[0] == 2


def test_a_monitor_that_forgets_the_step_gets_it_and_one_that_tells_keeps_it() -> None:
    stale = Signal(name="odd", value=1.0, low=1.0, high=1.0, step=2)
    engine = Engine(monitors=(OddMonitor((9, stale)),))
    _, steps = run(engine, engine.init(), 1, 4)
    assert [step.signals["odd"].step for step in steps] == [1, 2, 2, 2]


def test_ctrl_c_inside_a_policy_is_not_swallowed() -> None:
    class Interrupts:
        def decide(self, view: View) -> Decision:  # noqa: ARG002
            raise KeyboardInterrupt

    engine = Engine(policies=(Interrupts(),))
    with pytest.raises(KeyboardInterrupt):
        engine.step(engine.init(), facts(1))


def test_a_state_that_cannot_be_saved_is_named_when_it_is_saved() -> None:
    class Hoards:
        def init(self) -> set[int]:
            return {1}

        def decide(self, view: View, state: set[int]) -> tuple[Decision, set[int]]:
            return Keep(), state | {view.step}

    engine = Engine(policies=(Hoards(),))
    with pytest.raises(TypeError, match="set cannot be saved"):
        engine.save(engine.init())
