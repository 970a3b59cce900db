"""A schedule follows its milestones by step, epoch or sample, from wherever a job starts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.codec import to_plain
from workbench.decision import Decision, Keep, SetBatchSize
from workbench.errors import ConfigurationError
from workbench.policies import Schedule
from workbench.policy import View

milestones = st.dictionaries(st.integers(0, 300), st.integers(1, 4096), min_size=1, max_size=6)


def view(*, step: int = 0, epoch: int = 0, samples: int = 0, size: int = 8, rows: int = 0) -> View:
    return View(
        step=step,
        epoch=epoch,
        samples=samples,
        workers=1,
        batch_size_global=size,
        dataset_size=rows,
    )


def wanted(decision: Decision) -> int | None:
    return decision.batch_size_global if isinstance(decision, SetBatchSize) else None


@pytest.mark.parametrize(
    ("by", "before", "at"),
    [
        ("step", view(step=99), view(step=100)),
        ("epoch", view(epoch=99), view(epoch=100)),
        ("sample", view(samples=99), view(samples=100)),
        ("epoch", view(epoch=99, samples=999, rows=10), view(epoch=99, samples=1000, rows=10)),
    ],
)
def test_a_milestone_holds_from_the_boundary_where_so_much_is_done(
    by: str, before: View, at: View
) -> None:
    policy = Schedule(at={100: 64}, by=by)
    assert policy.decide(before) == Keep()
    assert wanted(policy.decide(at)) == (10 if at.dataset_size else 64)


def test_the_first_step_of_an_epoch_already_has_the_epochs_batch_size() -> None:
    policy = Schedule(at={1: 4}, by="epoch")
    last_step_of_epoch_0 = view(epoch=0, samples=100, rows=100)
    assert wanted(policy.decide(last_step_of_epoch_0)) == 4


def test_an_epoch_that_the_loop_broke_out_of_counts_as_done() -> None:
    policy = Schedule(at={2: 4}, by="epoch")
    assert wanted(policy.decide(view(epoch=2, samples=60, rows=100))) == 4


@given(at=milestones, done=st.integers(0, 400), size=st.integers(1, 4096))
def test_what_is_in_force_depends_on_the_last_milestone_passed_and_nothing_else(
    at: dict[int, int], done: int, size: int
) -> None:
    decision = Schedule(at=at).decide(view(step=done, size=size))
    passed = [milestone for milestone in at if milestone <= done]
    expected = at[max(passed)] if passed else size
    assert wanted(decision) == (expected if expected != size else None)


@given(at=milestones, start=st.integers(0, 300))
def test_a_job_resumed_in_the_middle_has_the_batch_size_of_one_that_was_not(
    at: dict[int, int], start: int
) -> None:
    policy = Schedule(at=at)

    def follow(size: int, first: int) -> int:
        for step in range(first, 301):
            size = wanted(policy.decide(view(step=step, size=size))) or size
        return size

    before = next((size for step, size in sorted(at.items(), reverse=True) if step <= start), 8)
    assert follow(before, start) == follow(8, start) == follow(8, 0)


@given(at=milestones)
def test_milestones_as_text_mean_the_same(at: dict[int, int]) -> None:
    pairs = [f"{milestone}:{size}" for milestone, size in at.items()]
    assert Schedule(at=";".join(pairs)) == Schedule(at=" ".join(pairs)) == Schedule(at=at)


def test_milestones_survive_json_where_keys_are_text() -> None:
    keyed_by_text: Any = to_plain({100: 128, 200: 256})
    assert Schedule(at=keyed_by_text) == Schedule(at={100: 128, 200: 256})


def test_a_schedule_past_the_data_set_asks_for_all_of_it_once() -> None:
    policy = Schedule(at={1: 512})
    assert wanted(policy.decide(view(step=1, rows=100))) == 100
    assert policy.decide(view(step=2, size=100, rows=100)) == Keep()


def test_a_scheduled_decision_names_no_signal_and_says_where_it_stands() -> None:
    decision = Schedule(at={100: 64}, by="sample").decide(view(samples=160))
    assert decision == SetBatchSize(64, reason="schedule: 64 from sample 100 on (now 160)")


@pytest.mark.parametrize(
    "at", ["", "100", "100:", "a:b", "100=128", {}, None, 7, {1.5: 8}, {1: 8.5}]
)
def test_milestones_that_cannot_be_read_are_refused_with_an_example(at: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Schedule(at=at)
    assert str(caught.value) == (
        f"schedule: at is {at!r}; allowed: milestones with batch sizes; "
        "use for example at={100: 128} or at='100:128;200:256'"
    )


@pytest.mark.parametrize("at", [{-1: 8}, {5: 0}, {5: -3}])
def test_an_impossible_milestone_is_refused(at: dict[int, int]) -> None:
    (milestone, size) = next(iter(at.items()))
    with pytest.raises(ConfigurationError, match=rf"at has {milestone}: {size}; allowed: a milest"):
        Schedule(at=at)


def test_an_unknown_clock_is_refused_with_those_allowed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Schedule(at={1: 8}, by="minute")
    assert str(caught.value) == (
        "schedule: by is 'minute'; allowed: step, epoch, sample; use by=step"
    )
