"""The arbiter: bounds no policy passes, damping of estimates only, one change at a time."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workbench.arbiter import PRECEDENCE, Limits, arbitrate
from workbench.decision import (
    Decision,
    Keep,
    Resize,
    SetBatchSize,
    SetLearningRate,
    SetSync,
    Stop,
)
from workbench.errors import ConfigurationError
from workbench.policy import View
from workbench.record import Proposal
from workbench.signal import Signal, exact

NOISE = (exact("noise_scale", 500.0, unit="samples"),)
FREE = Limits(cool_down_steps=0)

batch_sizes = st.integers(1, 100_000)
causes: st.SearchStrategy[tuple[Signal, ...]] = st.sampled_from([(), NOISE])


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    low = draw(batch_sizes)
    least = draw(st.floats(1.0, 4.0))
    return Limits(
        min_batch_size=low,
        max_batch_size=draw(st.one_of(st.none(), st.integers(low, 200_000))),
        min_change=least,
        max_change=draw(st.one_of(st.floats(least, 8.0), st.just(inf))),
        cool_down_steps=draw(st.integers(0, 20)),
    )


def decisions() -> st.SearchStrategy[Decision]:
    whole = st.integers(-10, 10**30)
    return st.one_of(
        st.builds(Keep, because=causes),
        st.builds(SetBatchSize, whole, because=causes),
        st.builds(SetLearningRate, st.floats(), because=causes),
        st.builds(Resize, st.integers(1, 64), because=causes),
        st.builds(SetSync, st.just("every_step"), because=causes),
        st.builds(Stop, because=causes),
    )


def view(batch_size: int = 64, *, waited: int = 100, dataset_size: int = 0) -> View:
    return View(
        step=1000,
        epoch=0,
        samples=64_000,
        workers=1,
        batch_size_global=batch_size,
        dataset_size=dataset_size,
        steps_since_change=waited,
    )


def ask(*asked: Decision) -> list[Proposal]:
    return [Proposal(policy=f"p{place}", decision=each) for place, each in enumerate(asked)]


proposals = st.lists(decisions(), max_size=6).map(lambda asked: ask(*asked))
views = st.builds(
    view, batch_sizes, waited=st.integers(0, 30), dataset_size=st.integers(0, 300_000)
)


@given(limits=limits(), view=views, asked=proposals)
def test_no_random_proposal_leads_past_a_bound(
    limits: Limits, view: View, asked: list[Proposal]
) -> None:
    decision = arbitrate(limits, view, asked).decision
    if isinstance(decision, SetLearningRate):
        assert 0.0 < decision.scale < inf
    if not isinstance(decision, SetBatchSize):
        return
    size, top = decision.batch_size_global, limits.max_batch_size or inf
    top = min(top, view.dataset_size or inf)
    assert type(size) is int
    assert min(limits.min_batch_size, top) <= size <= top
    assert size != view.batch_size_global


@pytest.mark.parametrize("why", [(), NOISE])
@pytest.mark.parametrize("dataset_size", [0, 50, 100, 1000])
@pytest.mark.parametrize("most", [None, 80, 90, 5000])
def test_the_smaller_of_the_maximum_and_the_data_set_bounds_the_batch(
    why: tuple[Signal, ...], dataset_size: int, most: int | None
) -> None:
    limits = Limits(max_batch_size=most, max_change=inf)
    asked = ask(SetBatchSize(7000, because=why))
    decision = arbitrate(limits, view(40, dataset_size=dataset_size), asked).decision
    bounds = [bound for bound in (most, dataset_size, 7000) if bound]
    assert decision == SetBatchSize(min(bounds), because=why)


@given(limits=limits(), view=views, asked=proposals)
def test_every_proposal_is_kept_and_all_but_the_chosen_one_have_a_reason(
    limits: Limits, view: View, asked: list[Proposal]
) -> None:
    choice = arbitrate(limits, view, asked)
    wanted = [proposal for proposal in asked if not isinstance(proposal.decision, Keep)]
    assert sorted(proposal.policy for proposal in choice.proposals) == sorted(
        proposal.policy for proposal in wanted
    )
    taken = [proposal.policy for proposal in choice.proposals if not proposal.overruled]
    assert taken == ([choice.policy] if choice.policy else [])
    assert isinstance(choice.decision, Keep) == (not choice.policy)


@given(limits=limits(), current=batch_sizes, wanted=st.integers(1, 10**30))
def test_an_estimate_changes_the_batch_by_max_change_at_most(
    limits: Limits, current: int, wanted: int
) -> None:
    top = limits.max_batch_size or inf
    assume(limits.min_batch_size <= current <= top)
    choice = arbitrate(limits, view(current), ask(SetBatchSize(wanted, because=NOISE)))
    if isinstance(choice.decision, SetBatchSize):
        size = choice.decision.batch_size_global
        assert max(size, current) <= min(size, current) * limits.max_change * (1 + 1e-12)


@given(limits=limits(), current=batch_sizes, factor=st.floats(0.2, 5.0))
def test_an_estimate_that_asks_for_less_than_min_change_changes_nothing(
    limits: Limits, current: int, factor: float
) -> None:
    wanted = max(1, int(current * factor))
    change = max(wanted, current) / min(wanted, current)
    assume(change < limits.min_change)
    choice = arbitrate(limits, view(current), ask(SetBatchSize(wanted, because=NOISE)))
    assert choice.decision == Keep()
    assert "below min_change" in choice.proposals[0].overruled


@pytest.mark.parametrize("wanted", [65, 70, 60, 100, 10_000, 1])
def test_a_schedule_is_taken_as_it_is_without_damping(wanted: int) -> None:
    choice = arbitrate(Limits(), view(64, waited=0), ask(SetBatchSize(wanted)))
    assert choice.decision == SetBatchSize(wanted)


@pytest.mark.parametrize(
    ("scheduled", "estimated"),
    [
        (SetBatchSize(128), SetBatchSize(128, because=NOISE)),
        (Resize(2), Resize(2, because=NOISE)),
        (SetLearningRate(0.5), SetLearningRate(0.5, because=NOISE)),
        (SetSync("every_step"), SetSync("every_step", because=NOISE)),
    ],
)
def test_cool_down_holds_back_estimates_and_nothing_else(
    scheduled: Decision, estimated: Decision
) -> None:
    for waited in range(12):
        at = view(waited=waited)
        assert arbitrate(Limits(), at, ask(scheduled)).decision == scheduled
        allowed = estimated if waited >= 10 else Keep()
        assert arbitrate(Limits(), at, ask(estimated)).decision == allowed
    said = arbitrate(Limits(), view(waited=9), ask(estimated)).proposals[0].overruled
    assert said == "cooling down: 9 of 10 steps"


def test_stop_never_waits_and_comes_before_everything() -> None:
    stop = Stop(because=NOISE, reason="the loss is low enough")
    asked = ask(SetLearningRate(0.5), SetBatchSize(128), SetSync("every_step"), Resize(2), stop)
    choice = arbitrate(Limits(), view(waited=0), asked)
    assert choice.decision == stop
    assert [proposal.overruled for proposal in choice.proposals] == [
        "",
        *["one change at a time: p4"] * 4,
    ]


@given(
    asked=st.permutations([Stop(), Resize(2), SetSync("x"), SetBatchSize(9), SetLearningRate(2)])
)
def test_kinds_come_in_their_order_whatever_the_order_of_the_policies(
    asked: list[Decision],
) -> None:
    for place, kind in enumerate(PRECEDENCE):
        left = [each for each in asked if each.kind in PRECEDENCE[place:]]
        assert arbitrate(FREE, view(), ask(*left)).decision.kind == kind


def test_within_a_kind_the_first_policy_wins() -> None:
    choice = arbitrate(FREE, view(), ask(SetBatchSize(100), SetBatchSize(200)))
    assert (choice.policy, choice.decision) == ("p0", SetBatchSize(100))
    assert choice.proposals[1].overruled == "one change at a time: p0"


def test_an_overruled_proposal_makes_room_for_the_next() -> None:
    choice = arbitrate(Limits(), view(waited=3), ask(Resize(2, because=NOISE), SetBatchSize(128)))
    assert (choice.policy, choice.decision) == ("p1", SetBatchSize(128))
    assert choice.proposals[0].overruled == "cooling down: 3 of 10 steps"


def test_a_batch_at_its_bound_stays_and_says_so() -> None:
    choice = arbitrate(Limits(max_batch_size=64), view(64), ask(SetBatchSize(256, because=NOISE)))
    assert choice.decision == Keep()
    assert choice.proposals[0].overruled == "batch size 64 is at its bound"


def test_the_data_set_bounds_the_batch_even_below_the_smallest_allowed() -> None:
    choice = arbitrate(Limits(min_batch_size=64), view(8, dataset_size=50), ask(SetBatchSize(256)))
    assert choice.decision == SetBatchSize(50)


@pytest.mark.parametrize("scale", [0.0, -1.0, nan, inf])
def test_a_learning_rate_scale_that_is_no_positive_number_is_overruled(scale: float) -> None:
    choice = arbitrate(Limits(), view(), ask(SetLearningRate(scale)))
    assert choice.decision == Keep()
    assert choice.proposals[0].overruled.endswith("is not a positive number")


def test_the_reason_and_the_signals_survive_the_bounds() -> None:
    asked = SetBatchSize(512, because=NOISE, reason="noise is above the batch")
    decision = arbitrate(Limits(), view(64), ask(asked)).decision
    assert decision == SetBatchSize(128, because=NOISE, reason="noise is above the batch")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_batch_size": 0}, "min_batch_size is 0; allowed: 1 or more"),
        ({"min_batch_size": 8, "max_batch_size": 4}, "max_batch_size is 4, below min_batch_size 8"),
        ({"min_change": 0.9}, "min_change is 0.9 and max_change 2.0; allowed: 1 <= min_change"),
        ({"min_change": 3.0}, "min_change is 3.0 and max_change 2.0"),
        ({"min_change": nan}, "min_change is nan"),
        ({"max_change": nan}, "max_change nan"),
        ({"cool_down_steps": -1}, "cool_down_steps is -1; allowed: 0 or more"),
    ],
)
def test_impossible_limits_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Limits(**options)  # type: ignore[arg-type]
