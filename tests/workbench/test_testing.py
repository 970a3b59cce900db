"""The public fakes work as documented: a scripted adaptor drives an engine without a framework."""

from __future__ import annotations

from workbench.arbiter import Limits
from workbench.decision import Applied, Decision, Deferred, Keep, Outcome, Refused, SetBatchSize
from workbench.engine import Engine
from workbench.facts import StepFacts
from workbench.policies import Schedule
from workbench.policy import View
from workbench.record import Record, Tracker
from workbench.testing import FixedClock, MemoryTracker, ScriptedAdaptor


def script(steps: int) -> list[StepFacts]:
    return [
        StepFacts(
            step=step,
            epoch=0,
            samples=8 * step,
            seconds=0.1,
            workers=1,
            batch_size_global=8,
            batch_size_target=8,
            loss=1.0 / step,
        )
        for step in range(1, steps + 1)
    ]


def drive(engine: Engine, adaptor: ScriptedAdaptor, tracker: Tracker, clock: FixedClock) -> None:
    """The loop of the architecture page, in ten lines."""
    state = engine.init()
    for facts in adaptor.measure():
        step = engine.step(state, facts)
        state, outcome = step.state, None
        if not isinstance(step.decision, Keep):
            outcome = adaptor.apply(step.decision, facts.step)
            state = engine.heard(state, step.decision, outcome, facts.step)
        tracker.write(
            Record(
                facts=facts,
                signals=step.signals,
                decision=step.decision,
                outcome=outcome,
                unix_time=clock(),
            )
        )
    tracker.close()


def test_a_scripted_adaptor_drives_an_engine_and_a_tracker_keeps_its_records() -> None:
    adaptor = ScriptedAdaptor(script(5), answers=[Deferred("wait")])
    tracker, clock = MemoryTracker(), FixedClock(now=100.0, tick=0.5)
    drive(Engine(policies=(Schedule(at={3: 64}),)), adaptor, tracker, clock)
    assert adaptor.asked == [SetBatchSize(64, reason=_reason(step)) for step in (3, 4, 5)]
    outcomes = [record.outcome for record in tracker.records]
    assert outcomes == [None, None, Deferred("wait"), Applied(step=4), Applied(step=5)]
    assert [record.unix_time for record in tracker.records] == [100.0, 100.5, 101.0, 101.5, 102.0]
    assert tracker.closed


def _reason(step: int) -> str:
    return f"schedule: 64 from step 3 on (now {step})"


def test_a_policy_hears_the_answer_on_the_next_step() -> None:
    heard: list[Outcome | None] = []

    class Asks:
        def decide(self, view: View) -> Decision:
            heard.append(view.last_outcome)
            return SetBatchSize(16) if view.step == 2 else Keep()

    adaptor = ScriptedAdaptor(script(4), answers=[Refused("no")])
    engine = Engine(policies=(Asks(),), limits=Limits())
    drive(engine, adaptor, MemoryTracker(), FixedClock())
    assert heard == [None, None, Refused("no"), Refused("no")]


def test_a_clock_without_a_tick_stands_still() -> None:
    clock = FixedClock(now=7.0)
    assert [clock() for _ in range(3)] == [7.0, 7.0, 7.0]
