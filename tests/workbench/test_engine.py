"""Facts in, decision out: agreement of ranks, replay, saving in the middle."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.arbiter import Limits
from workbench.codec import from_json, to_json
from workbench.decision import (
    Applied,
    Decision,
    Deferred,
    Keep,
    Outcome,
    Refused,
    Resize,
    SetBatchSize,
    SetLearningRate,
)
from workbench.engine import Engine, EngineState, Step
from workbench.facts import StepFacts
from workbench.monitors import MONITORS, build_monitor
from workbench.policies import GrowWithNoise, Schedule, WatchOnly
from workbench.policy import View
from workbench.record import Record

DATASET_SIZE = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """State: the best loss and the steps since."""

    best: float = inf
    since: int = 0
    outcomes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HalveOnPlateau:
    """A stateful policy: halve the rate when the loss has not fallen for ``steps`` steps."""

    steps: int = 5
    name = "halve_on_plateau"

    def init(self) -> Patience:
        return Patience()

    def decide(self, view: View, state: Patience) -> tuple[Decision, Patience]:
        loss = view.signal("loss")
        outcomes = state.outcomes
        if view.last_outcome is not None and view.steps_since_change == 1:
            outcomes = (*outcomes, view.last_outcome.kind)[-4:]
        if loss.value < state.best:
            return Keep(), Patience(best=loss.value, outcomes=outcomes)
        after = replace(state, since=state.since + 1, outcomes=outcomes)
        if after.since < self.steps:
            return Keep(), after
        rate = SetLearningRate(view.learning_rate_scale / 2, because=(loss,))
        return rate, replace(after, since=0)


def engine() -> Engine:
    return Engine(
        monitors=tuple(build_monitor(name) for name in MONITORS),
        policies=(
            GrowWithNoise(max_batch_size=4096),
            Schedule(at={30: 96, 60: 128}),
            HalveOnPlateau(),
            WatchOnly(),
        ),
        limits=Limits(cool_down_steps=3),
        dataset_size=DATASET_SIZE,
    )


def measured(seed: int, step: int, samples: int, batch_size: int) -> StepFacts:
    """Facts of a job whose noise scale is near 1,000; some steps are not split, some skipped."""
    dice = random.Random(f"{seed} {step}")
    big = 1.0 + 1000.0 / batch_size * dice.gammavariate(50, 1 / 50)
    small = 1.0 + 4000.0 / batch_size * dice.gammavariate(200, 1 / 200)
    split, overflow = dice.random() > 0.1, dice.random() < 0.05
    return StepFacts(
        step=step,
        epoch=samples // DATASET_SIZE,
        samples=samples + batch_size,
        seconds=dice.uniform(0.01, 0.02),
        workers=2,
        batch_size_global=batch_size,
        batch_size_target=batch_size,
        small_batches=4 if split else 0,
        grad_sqnorm_small=(inf if overflow else small) if split else None,
        grad_sqnorm_big=(nan if overflow else big) if split else None,
        loss=dice.uniform(0.5, 0.7) if dice.random() > 0.1 else None,
        skipped=overflow,
        origin="ranks+micro-batches" if split else "none",
    )


@dataclass
class Place:
    """Where a simulated job stands."""

    state: EngineState
    batch_size: int = 64
    samples: int = 0
    step: int = 0


def answer(decision: Decision, step: int) -> Outcome:
    if isinstance(decision, SetLearningRate) and step % 2:
        return Deferred("not now") if step % 3 else Refused("never")
    return Applied(step=step)


def train(engine: Engine, place: Place, steps: int, seed: int) -> list[Record]:
    records = []
    for _ in range(steps):
        place.step += 1
        facts = measured(seed, place.step, place.samples, place.batch_size)
        place.samples = facts.samples
        step = engine.step(place.state, facts)
        place.state, outcome = step.state, None
        if not isinstance(step.decision, Keep):
            outcome = answer(step.decision, place.step)
            place.state = engine.heard(place.state, step.decision, outcome, place.step)
        if isinstance(step.decision, SetBatchSize):
            place.batch_size = step.decision.batch_size_global
        records.append(
            Record(
                facts=facts,
                signals=step.signals,
                decision=step.decision,
                outcome=outcome,
                policy=step.choice.policy,
                proposals=step.choice.proposals,
                faults=step.faults,
            )
        )
    return records


def lines(records: list[Record]) -> list[str]:
    return [to_json(record) for record in records]


def replayed(engine: Engine, records: list[Record]) -> list[Step]:
    state, steps = engine.init(), []
    for record in records:
        step = engine.step(state, record.facts)
        steps.append(step)
        state = step.state
        if record.outcome is not None:
            state = engine.heard(state, record.decision, record.outcome, record.facts.step)
    return steps


def test_the_simulated_job_takes_decisions_of_three_policies() -> None:
    start = engine()
    records = train(start, Place(start.init()), 200, seed=1)
    taken = {record.policy for record in records if record.outcome is not None}
    assert taken == {"grow_with_noise", "schedule", "halve_on_plateau"}
    assert records[-1].facts.batch_size_global > 128


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_every_rank_takes_the_same_decision_at_the_same_step(seed: int) -> None:
    runs = []
    for _ in range(3):
        rank = engine()
        runs.append(lines(train(rank, Place(rank.init()), 80, seed)))
    assert runs[0] == runs[1] == runs[2]


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_a_recorded_run_replays_to_the_same_signals_and_decisions(seed: int) -> None:
    first = engine()
    records = train(first, Place(first.init()), 80, seed)
    read = [from_json(Record, line) for line in lines(records)]
    steps = replayed(engine(), read)
    assert [step.decision for step in steps] == [record.decision for record in records]
    assert [to_json(step.signals) for step in steps] == [to_json(r.signals) for r in records]


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), half=st.integers(0, 90))
def test_saved_in_the_middle_and_loaded_it_goes_on_as_if_nothing_had_happened(
    seed: int, half: int
) -> None:
    whole = engine()
    uninterrupted = lines(train(whole, Place(whole.init()), 100, seed))

    before = engine()
    place = Place(before.init())
    first = lines(train(before, place, half, seed))
    saved = json.dumps(before.save(place.state))
    after = engine()
    place.state = after.load(json.loads(saved))
    assert json.dumps(after.save(place.state)) == saved
    assert first + lines(train(after, place, 100 - half, seed)) == uninterrupted


def test_a_state_loads_whatever_the_order_of_the_parts() -> None:
    ordered = engine()
    place = Place(ordered.init())
    train(ordered, place, 60, seed=3)
    turned = replace(
        ordered, monitors=ordered.monitors[::-1], policies=(WatchOnly(), HalveOnPlateau())
    )
    state = turned.load(ordered.save(place.state))
    assert state.monitors == place.state.monitors[::-1]
    assert state.policies == (None, place.state.policies[2])


def test_a_part_that_was_not_there_before_starts_afresh() -> None:
    bare = Engine(monitors=(build_monitor("loss"),))
    state = engine().load(json.loads(json.dumps(bare.save(bare.init()))))
    assert to_json(state) == to_json(engine().init())


def test_a_step_changes_neither_the_state_nor_the_facts_it_was_given() -> None:
    start = engine()
    place = Place(start.init())
    train(start, place, 40, seed=5)
    facts = measured(5, 41, place.samples, place.batch_size)
    before = json.dumps(start.save(place.state))
    once, twice = start.step(place.state, facts), start.step(place.state, facts)
    assert json.dumps(start.save(place.state)) == before
    assert to_json(once.signals) == to_json(twice.signals)
    assert once.decision == twice.decision


# What the job answered -------------------------------------------------------------------------


def test_only_an_applied_decision_counts_as_a_change() -> None:
    job, asked = Engine(), Resize(4)
    state = job.init()
    for outcome in (Refused("fixed number of workers"), Deferred("newcomers are starting")):
        heard = job.heard(state, asked, outcome, 12)
        assert (heard.last_outcome, heard.last_change) == (outcome, 0)
    heard = job.heard(state, asked, Applied(step=12), 12)
    assert (heard.last_outcome, heard.last_change) == (Applied(step=12), 12)


def test_the_learning_rate_scale_is_kept_only_when_it_was_applied() -> None:
    job = Engine()
    refused = job.heard(job.init(), SetLearningRate(0.5), Refused("no"), 3)
    applied = job.heard(job.init(), SetLearningRate(0.5), Applied(step=3), 3)
    other = job.heard(applied, SetBatchSize(8), Applied(step=4), 4)
    assert (refused.learning_rate_scale, applied.learning_rate_scale) == (1.0, 0.5)
    assert (other.learning_rate_scale, other.last_change) == (0.5, 4)


def test_a_policy_sees_the_job_as_it_is_and_what_became_of_its_decision() -> None:
    seen: list[View] = []

    class Looker:
        def decide(self, view: View) -> Decision:
            seen.append(view)
            return Keep()

    job = Engine(monitors=(build_monitor("loss"),), policies=(Looker(),), dataset_size=1000)
    state = job.heard(job.init(), SetLearningRate(0.25), Applied(step=5), 5)
    facts = replace(measured(0, 9, 512, 64), batch_size_global=8, loss=0.5, skipped=False)
    job.step(state, facts)
    view = seen[0]
    assert (view.step, view.samples, view.workers) == (9, 576, 2)
    assert view.batch_size_global == 64, "the size in force, not that of a short last step"
    assert (view.learning_rate_scale, view.dataset_size) == (0.25, 1000)
    assert (view.last_outcome, view.steps_since_change) == (Applied(step=5), 4)
    assert view.signal("loss").value == 0.5


@pytest.mark.parametrize("loss", [nan, inf, None])
def test_a_step_without_a_finite_loss_still_gives_every_signal(loss: float | None) -> None:
    job = engine()
    step = job.step(job.init(), replace(measured(0, 1, 0, 64), loss=loss))
    assert list(step.signals) == list(MONITORS)
    assert not step.faults
    assert not step.signals["loss"].determined


class Insists:
    """Asks for four workers at every step, and for a larger batch at step 3."""

    def decide(self, view: View) -> Decision:
        return SetBatchSize(64) if view.step == 3 else Resize(4, reason=f"step {view.step}")


def test_what_was_refused_is_not_asked_again_but_told() -> None:
    engine = Engine(policies=[Insists()], dataset_size=1000)
    state, asked, told = engine.init(), [], []
    for step in range(1, 6):
        facts = StepFacts(
            step=step,
            epoch=0,
            samples=8 * step,
            seconds=0.1,
            workers=1,
            batch_size_global=8,
            batch_size_target=8,
        )
        state, _, choice, _ = engine.step(state, facts)
        told += [proposal.overruled for proposal in choice.proposals]
        if choice.decision.kind != "keep":
            asked.append((step, choice.decision.kind))
            outcome = Refused("fixed number of workers") if step == 1 else Applied(step=step)
            state = engine.heard(state, choice.decision, outcome, step)
    assert asked == [(1, "resize"), (3, "set_batch_size")]
    assert told.count("refused before: fixed number of workers") == 3
    assert engine.load(engine.save(state)).refused == state.refused
