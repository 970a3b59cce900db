"""Each epoch shows each place exactly once, whatever batch size and number of workers do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import isclose

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.cursor import Cursor, StepPlan, plan_step, share

EPOCHS = 2

sizes = st.one_of(st.integers(1, 60), st.sampled_from([1, 2, 7, 97, 101, 128]))
Draw = tuple[int, int, int | None]
draws = st.tuples(st.integers(1, 70), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 12)))


def all_plans(
    cursor: Cursor, draw: Draw, dataset_size: int, plan: Callable[..., StepPlan] = plan_step
) -> list[StepPlan]:
    batch_size, workers, largest_part = draw
    return [
        plan(
            cursor,
            batch_size,
            dataset_size=dataset_size,
            rank=rank,
            workers=workers,
            largest_part=largest_part,
        )
        for rank in range(workers)
    ]


def places(plans: list[StepPlan]) -> list[int]:
    parts = [part for plan in plans if not plan.idle for part in plan.parts]
    return [place for start, stop in parts for place in range(start, stop)]


@settings(max_examples=150)
@given(dataset_size=sizes, drawn=st.lists(draws, min_size=1, max_size=30))
@example(dataset_size=1, drawn=[(64, 8, 1)])
@example(dataset_size=97, drawn=[(1, 9, None), (64, 5, 3)])
def test_each_epoch_shows_each_place_once_whatever_changes_between_steps(
    dataset_size: int, drawn: list[Draw]
) -> None:
    cursor, step = Cursor(), 0
    seen: dict[int, Counter[int]] = {}
    while cursor.epoch < EPOCHS:
        plans = all_plans(cursor, drawn[step % len(drawn)], dataset_size)
        seen.setdefault(cursor.epoch, Counter()).update(places(plans))
        cursor, step = cursor.advanced(plans[0].size, dataset_size=dataset_size), step + 1
    once = dict.fromkeys(range(dataset_size), 1)
    assert seen == dict.fromkeys(range(EPOCHS), once)
    assert cursor == Cursor(epoch=EPOCHS, offset=0, samples=EPOCHS * dataset_size)


@given(dataset_size=sizes, draw=draws, data=st.data())
def test_all_ranks_agree_and_their_parts_make_up_the_step(
    dataset_size: int, draw: Draw, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, dataset_size - 1))
    plans = all_plans(Cursor(offset=offset), draw, dataset_size)
    working = [plan for plan in plans if not plan.idle]
    assert {plan.size for plan in plans} == {min(draw[0], dataset_size - offset)}
    assert places(plans) == list(range(offset, offset + plans[0].size))
    assert {plan.small_batches for plan in plans} == {sum(len(plan.parts) for plan in working)}
    assert isclose(sum(plan.weight(part) for plan in plans for part in plan.parts), 1.0)


@given(dataset_size=sizes, draw=draws)
def test_no_part_is_empty_or_larger_than_a_worker_can_hold(dataset_size: int, draw: Draw) -> None:
    plans = all_plans(Cursor(), draw, dataset_size)
    rows = [stop - start for plan in plans for start, stop in plan.parts]
    assert min(rows) >= 1
    assert max(rows) <= (draw[2] or dataset_size)


@given(dataset_size=sizes, draw=draws)
def test_an_idle_worker_holds_one_stand_in_of_weight_zero(dataset_size: int, draw: Draw) -> None:
    plans = all_plans(Cursor(), draw, dataset_size)
    idle = [plan for plan in plans if plan.idle]
    assert len(idle) == max(0, draw[1] - plans[0].size)
    for plan in idle:
        (start, stop) = plan.parts[0]
        assert len(plan.parts) == 1
        assert stop - start == 1
        assert 0 <= start < dataset_size
        assert plan.weight(plan.parts[0]) == 0.0


@given(size=st.integers(0, 500), workers=st.integers(1, 40))
def test_shares_are_contiguous_cover_all_and_differ_by_one_at_most(size: int, workers: int) -> None:
    cuts = [share(size, rank, workers) for rank in range(workers)]
    rows = [stop - start for start, stop in cuts]
    assert [start for start, _ in cuts] == [0, *(stop for _, stop in cuts[:-1])]
    assert cuts[-1][1] == size
    assert max(rows) - min(rows) <= 1
    assert rows == sorted(rows, reverse=True)


@given(dataset_size=sizes, batch_size=st.integers(1, 70), workers=st.integers(1, 9))
def test_the_global_batches_do_not_depend_on_the_number_of_workers(
    dataset_size: int, batch_size: int, workers: int
) -> None:
    cursor = Cursor()
    while cursor.epoch == 0:
        alone = all_plans(cursor, (batch_size, 1, None), dataset_size)
        shared = all_plans(cursor, (batch_size, workers, None), dataset_size)
        assert places(alone) == places(shared)
        cursor = cursor.advanced(alone[0].size, dataset_size=dataset_size)


def test_the_last_step_of_an_epoch_takes_what_is_left() -> None:
    cursor = Cursor(offset=96)
    plan = plan_step(cursor, 64, dataset_size=97, workers=4)
    assert (plan.size, plan.parts, plan.small_batches) == (1, ((96, 97),), 1)
    assert cursor.advanced(1, dataset_size=97) == Cursor(epoch=1, offset=0, samples=1)


def test_the_check_of_this_file_finds_a_place_shown_twice() -> None:
    def overlapping(cursor: Cursor, batch_size: int, **options: int) -> StepPlan:
        plan = plan_step(cursor, batch_size, **options)
        start, stop = plan.parts[0]
        return StepPlan(
            size=plan.size,
            parts=((max(0, start - 1), stop),),
            idle=plan.idle,
            small_batches=plan.small_batches,
        )

    shown = places(all_plans(Cursor(), (10, 2, None), 10, overlapping))
    with pytest.raises(AssertionError):
        assert shown == list(range(10))
