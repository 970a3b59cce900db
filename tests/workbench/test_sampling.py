"""How often steps are measured: within the budget, the same on every rank, never for nothing."""

from __future__ import annotations

import random
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import StepFacts
from workbench.codec import from_plain, to_plain
from workbench.errors import ConfigurationError
from workbench.sampling import (
    FIRST_MEASURED,
    MOST_EVERY,
    Sampling,
    SamplingState,
    parse_share,
)


def facts(step: int, seconds: float, monitor: float) -> StepFacts:
    return StepFacts(
        step=step,
        epoch=0,
        samples=step,
        seconds=seconds,
        workers=1,
        batch_size_global=1,
        batch_size_target=1,
        monitor_seconds=monitor,
    )


def run(
    sampling: Sampling,
    steps: int,
    *,
    plain: float,
    cost: float,
    always: float = 0.0,
    noise: float = 0.0,
    lag: int = 1,
) -> tuple[SamplingState, list[int], float]:
    """Return the state, the measured steps, and what they cost as a share of plain time."""
    dice = random.Random(0)
    state, measured, waiting, spent = sampling.init(), [], [], 0.0
    for step in range(1, steps + 1):
        due = sampling.due(state, step)
        extra = always + (cost if due else 0.0)
        seconds = plain * (1.0 + noise * dice.random()) + extra
        spent += cost if due else 0.0
        if due:
            measured.append(step)
        waiting.append((facts(step, seconds, extra), due))
        if len(waiting) > lag:
            old, was_due = waiting.pop(0)
            state = sampling.update(state, old, measured=was_due)
    return state, measured, spent / (plain * steps)


@pytest.mark.parametrize("overhead", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("cost", [0.00002, 0.0005, 0.005])
@pytest.mark.parametrize("lag", [0, 1, 3])
def test_in_the_long_run_the_budget_is_kept_and_used(
    overhead: float, cost: float, lag: int
) -> None:
    plain, steps = 0.005, 12_000
    state, _, share = run(
        Sampling(overhead=overhead),
        steps,
        plain=plain,
        cost=cost,
        always=0.00003,
        noise=0.3,
        lag=lag,
    )
    credit = FIRST_MEASURED * cost / (plain * steps)
    assert share <= overhead * 1.25 + credit
    if cost / overhead / plain < MOST_EVERY:  # otherwise one step in so many is more than allowed
        assert share >= 0.7 * min(overhead, cost / plain)
    assert 1 <= state.every <= MOST_EVERY


def test_a_step_that_costs_next_to_nothing_is_always_measured() -> None:
    state, measured, _ = run(Sampling(overhead=0.01), 200, plain=1.0, cost=0.001)
    assert state.every == 1
    assert measured[-50:] == list(range(151, 201))


def test_the_first_measurements_are_on_credit() -> None:
    _, cheap, _ = run(Sampling(overhead=0.01), 2000, plain=0.001, cost=0.0002)
    assert cheap[:FIRST_MEASURED] == [1 + 5 * k for k in range(FIRST_MEASURED)]
    assert 20 <= cheap[-1] - cheap[-2] <= 24  # the budget's: one in twenty
    _, dear, _ = run(Sampling(overhead=0.01), 20_000, plain=0.001, cost=0.0064)
    gaps = [later - earlier for earlier, later in pairwise(dear)]
    assert all(160 <= gap <= 176 for gap in gaps[: FIRST_MEASURED - 2])  # a credit of four
    assert all(640 <= gap <= 768 for gap in gaps[FIRST_MEASURED + 1 :])


def test_a_fixed_rhythm_does_not_look_at_the_clock() -> None:
    fast = run(Sampling(every=7), 100, plain=0.001, cost=0.1)[1]
    slow = run(Sampling(every=7), 100, plain=10.0, cost=0.1)[1]
    assert fast == slow == list(range(1, 101, 7))


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True),
            st.floats(allow_nan=True, allow_infinity=True),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_no_clock_however_broken_leads_out_of_bounds(
    steps: list[tuple[float, float, bool]],
) -> None:
    sampling = Sampling()
    state = sampling.init()
    for step, (seconds, monitor, measured) in enumerate(steps, start=1):
        state = sampling.update(state, facts(step, seconds, monitor), measured=measured)
        assert 1 <= state.every <= MOST_EVERY
        assert any(sampling.due(state, later) for later in range(step + 1, step + 1 + state.every))
        assert from_plain(SamplingState, to_plain(state)) == state


def test_times_that_are_no_numbers_change_nothing() -> None:
    sampling = Sampling()
    state = run(sampling, 50, plain=0.01, cost=0.001)[0]
    for seconds, monitor in ((nan, 0.0), (inf, 0.0), (1.0, nan)):
        assert sampling.update(state, facts(51, seconds, monitor), measured=True) == state


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, nan, True, "much"])
def test_a_budget_that_is_no_share_is_refused(share: object) -> None:
    with pytest.raises(ConfigurationError, match="overhead is"):
        Sampling(overhead=parse_share(share))  # type: ignore[arg-type]


@pytest.mark.parametrize("every", [-1, 1.5, True])
def test_a_rhythm_that_is_no_number_of_steps_is_refused(every: object) -> None:
    with pytest.raises(ConfigurationError, match="measure_every is"):
        Sampling(every=every)  # type: ignore[arg-type]


@pytest.mark.parametrize(("given", "share"), [("1%", 0.01), (" 2.5% ", 0.025), ("0.3", 0.3)])
def test_a_share_may_be_written_in_percent(given: str, share: float) -> None:
    assert parse_share(given) == pytest.approx(share)
