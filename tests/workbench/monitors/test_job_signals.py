"""Update ratio, norms of groups, shares of the time, memory and stragglers: what was measured."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan, sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.codec import from_json, to_json
from workbench.errors import ConfigurationError
from workbench.facts import GroupFacts, PhaseSeconds, RankFacts, StepFacts, TwoNorms
from workbench.monitors import PHASE_NAMES, GradientNorm, PhaseShare, UpdateRatio, build_monitor
from workbench.monitors.protocol import Monitor, needs_of
from workbench.signal import Signal

BLANK = StepFacts(
    step=1, epoch=0, samples=8, seconds=0.5, workers=4, batch_size_global=8, batch_size_target=8
)
SQUARES = st.floats(1e-12, 1e12)


def play(monitor: Monitor, steps: list[StepFacts]) -> tuple[Any, Signal]:
    state, signal = monitor.init(), None
    for each in steps:
        state, signal = monitor.update(state, each)
    assert signal is not None
    assert from_json(type(state), to_json(state)) == state or not signal.determined
    return state, signal


def moved(name: str, weight: float | None, update: float | None, step: int = 1) -> StepFacts:
    group = GroupFacts(name=name, weight_sqnorm=weight, update_sqnorm=update)
    return replace(BLANK, step=step, groups=(group,))


# Update ratio and the norm of a group --------------------------------------------------------------


@given(weight=SQUARES, update=SQUARES, scale=st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=50)
def test_the_update_ratio_is_one_norm_over_the_other_in_any_unit(
    weight: float, update: float, scale: float
) -> None:
    _, signal = play(UpdateRatio(), [moved("", weight, update)])
    assert signal.low == signal.value == signal.high == pytest.approx(sqrt(update / weight))
    _, other = play(UpdateRatio(), [moved("", scale * weight, scale * update)])
    assert other.value == pytest.approx(signal.value)


def test_the_update_ratio_of_a_group_carries_its_name_and_asks_for_it() -> None:
    monitor = UpdateRatio(group="encoder.0")
    _, signal = play(monitor, [moved("encoder.0", 4.0, 0.04)])
    assert (signal.name, signal.value) == ("update_ratio.encoder.0", 0.1)
    assert needs_of([monitor, UpdateRatio()]) == {"update:encoder.0", "update:"}
    _, other = play(monitor, [moved("head", 4.0, 0.04)])
    assert not other.determined
    assert other.name == monitor.name


def test_the_last_update_ratio_stands_on_steps_that_measured_none() -> None:
    state, signal = play(UpdateRatio(), [moved("", 4.0, 0.04)])
    assert UpdateRatio().update(state, replace(BLANK, step=2)) == (state, signal)
    assert UpdateRatio().update(state, moved("", 4.0, None, step=2)) == (state, signal)


@pytest.mark.parametrize(
    ("weight", "update", "said"),
    [
        (0.0, 1.0, "weights are all 0"), (nan, 1.0, "weights is nan"), (1.0, inf, "update is inf"),
        (1.0, -1.0, "update is -1"),
    ],
)  # fmt: skip
def test_norms_that_give_no_update_ratio_say_so_and_are_not_remembered(
    weight: float, update: float, said: str
) -> None:
    state, _ = play(UpdateRatio(), [moved("", 4.0, 0.04)])
    after, signal = UpdateRatio().update(state, moved("", weight, update, step=2))
    assert after is state
    assert said in signal.reason
    _, skipped = UpdateRatio().update(state, replace(moved("", 4.0, 0.04), skipped=True))
    assert "skipped" in skipped.reason


def test_the_norm_of_a_group_is_that_groups_alone() -> None:
    monitor = GradientNorm(group="head")
    assert not monitor.update(monitor.init(), replace(BLANK, grad_sqnorm_big=4.0))[1].determined
    _, signal = play(monitor, [replace(BLANK, groups=(GroupFacts(name="head", grad_sqnorm=9.0),))])
    assert (signal.name, signal.value) == ("gradient_norm.head", 3.0)
    norms = TwoNorms(small=30.0, big=16.0, small_batches=2)
    _, split = play(monitor, [replace(BLANK, groups=(GroupFacts(name="head", grad=norms),))])
    assert split.value == 4.0
    assert needs_of([monitor]) == {"group:head"}
    assert needs_of([GradientNorm()]) == {"norms"}


# Where the time goes -------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(*[st.floats(0, 1) for _ in PHASE_NAMES], st.floats(0, 1)), min_size=1, max_size=80
    )
)
@settings(deadline=None, max_examples=40)
def test_shares_are_ratios_of_sums_and_never_add_up_to_more_than_one(
    steps: list[tuple[float, ...]],
) -> None:
    measured = [
        replace(
            BLANK,
            step=step,
            seconds=sum(times),
            phases=PhaseSeconds(**dict(zip(PHASE_NAMES, times, strict=False))),
        )
        for step, times in enumerate(steps, start=1)
    ]
    whole = sum(sum(times) for times in steps[-50:])
    total = 0.0
    for place, phase in enumerate(PHASE_NAMES):
        _, signal = play(build_monitor(f"share_{phase}"), measured)
        assert signal.determined == (whole > 0.0)
        if signal.determined:
            part = sum(times[place] for times in steps[-50:])
            assert signal.value == pytest.approx(part / whole, abs=1e-12)
            total += signal.value
    assert total <= 1.0 + 1e-9


def test_a_share_stands_between_measured_steps_and_starts_anew_with_the_job() -> None:
    monitor = build_monitor("share_data")
    state, signal = play(monitor, [replace(BLANK, phases=PhaseSeconds(data=0.1))])
    assert signal.value == pytest.approx(0.2)
    _, later = monitor.update(state, replace(BLANK, step=2))
    assert (later.value, later.step) == (signal.value, 1)
    _, resized = monitor.update(state, replace(BLANK, step=2, workers=2))
    assert not resized.determined
    bigger = replace(BLANK, step=2, batch_size_target=16, phases=PhaseSeconds(data=0.4))
    assert monitor.update(state, bigger)[1].value == pytest.approx(0.8)


@pytest.mark.parametrize(("part", "seconds"), [(nan, 0.5), (-0.1, 0.5), (0.1, inf), (0.6, 0.5)])
def test_times_that_cannot_be_are_left_out_of_the_shares(part: float, seconds: float) -> None:
    monitor = build_monitor("share_forward")
    state, signal = play(monitor, [replace(BLANK, phases=PhaseSeconds(forward=0.1))])
    bad = replace(BLANK, step=2, seconds=seconds, phases=PhaseSeconds(forward=part))
    assert monitor.update(state, bad) == (state, signal)


def test_a_phase_may_exceed_its_step_by_the_error_of_a_clock_but_not_the_share() -> None:
    _, signal = play(
        build_monitor("share_backward"),
        [replace(BLANK, phases=PhaseSeconds(backward=0.501))],
    )
    assert signal.value == 1.0


@given(st.lists(st.tuples(st.floats(0, 0.01), st.floats(0.01, 1)), min_size=1, max_size=200))
@settings(deadline=None, max_examples=30)
def test_the_monitors_share_is_that_of_the_last_steps_to_a_sixteenth(
    steps: list[tuple[float, float]],
) -> None:
    monitor = build_monitor("monitor_share", {"window_steps": 64})
    _, signal = play(
        monitor,
        [
            replace(BLANK, step=step, monitor_seconds=own, seconds=seconds)
            for step, (own, seconds) in enumerate(steps, start=1)
        ],
    )
    held = min(len(steps), 60 + (len(steps) - 1) % 4 + 1)
    last = steps[-held:]
    assert signal.value == pytest.approx(sum(o for o, _ in last) / sum(s for _, s in last))


@pytest.mark.parametrize(
    ("own", "seconds"), [(nan, 1.0), (-1.0, 1.0), (0.1, inf), (0.1, nan), (2.0, 1.0)]
)
def test_times_that_cannot_be_are_left_out_of_the_monitors_share(
    own: float, seconds: float
) -> None:
    monitor = build_monitor("monitor_share")
    state, signal = play(monitor, [replace(BLANK, monitor_seconds=0.005)])
    after, other = monitor.update(state, replace(BLANK, monitor_seconds=own, seconds=seconds))
    assert after == state
    assert other.value == signal.value == 0.01
    assert not play(monitor, [replace(BLANK, seconds=0.0)])[1].determined


# Ranks ---------------------------------------------------------------------------------------------


def ranked(step: int, busy: list[float], data: list[float] | None = None) -> StepFacts:
    waits = data or [0.0] * len(busy)
    ranks = tuple(
        RankFacts(busy_seconds=one, data_seconds=other, memory_bytes=1e6 * (place + 1))
        for place, (one, other) in enumerate(zip(busy, waits, strict=True))
    )
    return replace(BLANK, step=step, workers=len(busy), ranks=ranks)


@given(st.lists(st.one_of(st.floats(0, 1e12), st.sampled_from([nan, inf, -1.0])), max_size=12))
@settings(deadline=None, max_examples=50)
def test_memory_is_the_most_that_a_rank_told(told: list[float]) -> None:
    ranks = tuple(RankFacts(busy_seconds=0.1, memory_bytes=each) for each in told)
    _, signal = play(build_monitor("memory"), [replace(BLANK, ranks=ranks)])
    sound = [each for each in told if 0.0 < each < inf]
    assert signal.determined == bool(sound)
    if sound:
        assert signal.value == max(sound)
        assert signal.reason == f"rank {told.index(max(sound))} of {len(told)}"
        assert signal.unit == "bytes"


def test_the_last_memory_stands_on_steps_that_told_none() -> None:
    state, signal = play(build_monitor("memory"), [ranked(1, [0.1, 0.1])])
    assert build_monitor("memory").update(state, replace(BLANK, step=2)) == (state, signal)


@given(
    st.lists(st.lists(st.floats(0.01, 10), min_size=3, max_size=3), min_size=1, max_size=30),
    st.permutations(range(3)),
)
@settings(deadline=None, max_examples=40)
def test_the_straggler_is_the_same_however_ranks_are_numbered(
    steps: list[list[float]], order: list[int]
) -> None:
    monitor = build_monitor("stragglers")
    plain = [ranked(step, busy) for step, busy in enumerate(steps, start=1)]
    mixed = [ranked(step, [busy[at] for at in order]) for step, busy in enumerate(steps, start=1)]
    one, other = play(monitor, plain)[1], play(monitor, mixed)[1]
    assert one.value == pytest.approx(other.value)
    assert one.value >= 1.0 - 1e-9


def test_a_rank_that_stays_slow_is_named_with_where_it_loses_the_time() -> None:
    monitor = build_monitor("stragglers")
    slow_data = [ranked(step, [0.1, 0.1, 0.3, 0.1], [0.01, 0.01, 0.2, 0.01]) for step in (1, 2, 3)]
    _, signal = play(monitor, slow_data)
    assert signal.value == pytest.approx(3.0)
    assert signal.reason == "rank 2 takes 3.0x the median of the other 3, in data"
    slow_compute = [
        replace(each, ranks=ranked(1, [0.1, 0.1, 0.3, 0.1]).ranks) for each in slow_data
    ]
    assert play(monitor, slow_compute)[1].reason.endswith("in compute")


def test_nobody_is_named_before_patience_ends_or_for_one_slow_step() -> None:
    monitor = build_monitor("stragglers", {"patience": 3})
    steps = [ranked(step, [0.1, 0.5, 0.1]) for step in range(1, 4)]
    assert play(monitor, steps[:2])[1].reason == ""
    assert "rank 1" in play(monitor, steps)[1].reason
    stall = [ranked(step, [0.1, 0.1, 0.1]) for step in range(1, 20)] + [ranked(20, [0.1, 0.9, 0.1])]
    _, signal = play(build_monitor("stragglers"), stall)
    assert signal.value == pytest.approx((19 * 0.1 + 0.9) / 2.0)
    assert signal.reason == ""


def test_a_straggler_that_recovers_is_no_longer_named() -> None:
    steps = [ranked(step, [0.1, 0.5]) for step in range(1, 11)]
    steps += [ranked(step, [0.1, 0.1]) for step in range(11, 40)]
    _, signal = play(build_monitor("stragglers"), steps)
    assert signal.value == pytest.approx(1.0)
    assert signal.reason == ""


def test_one_of_two_ranks_may_be_the_straggler() -> None:
    _, signal = play(build_monitor("stragglers"), [ranked(step, [0.1, 0.4]) for step in (1, 2)])
    assert signal.reason == "rank 1 takes 4.0x the other, in compute"


def test_stragglers_need_two_ranks_and_sound_times_and_start_anew_after_a_resize() -> None:
    monitor = build_monitor("stragglers")
    assert play(monitor, [ranked(1, [0.1])])[1].reason == "fewer than 2 ranks"
    assert "took no time" in play(monitor, [ranked(1, [0.0, 0.0, 0.1])])[1].reason
    state, signal = play(monitor, [ranked(step, [0.1, 0.4]) for step in (1, 2)])
    for bad in (nan, inf, -1.0):
        assert monitor.update(state, ranked(3, [0.1, bad])) == (state, signal)
    _, resized = monitor.update(state, ranked(3, [0.1, 0.1, 0.12]))
    assert resized.value == pytest.approx(1.2)
    unmeasured = replace(BLANK, step=3, workers=3)
    assert not monitor.update(state, unmeasured)[1].determined
    assert monitor.update(state, replace(unmeasured, workers=2)) == (state, signal)


# Options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("share_data", {"phase": "forward"}, "allowed: window_steps"),
        ("share_data", {"window_steps": 0}, "1 or more"),
        ("monitor_share", {"window_steps": 15}, "16 or more"),
        ("stragglers", {"factor": 0}, "above 0"),
        ("stragglers", {"factor": inf}, "above 0"),
        ("stragglers", {"patience": 0}, "1 or more"),
        ("norm_test", {"theta": -1.0}, "above 0"),
        ("norm_test", {"theta": True}, "above 0"),
        ("inner_product_test", {"theta": nan}, "above 0"),
        ("inner_product_test", {"min_steps": 3}, "4 or more"),
        ("adascale_gain", {"base_batch_size": -1}, "0 or more"),
        ("statistical_efficiency", {"base_batch_size": 1.5}, "integer"),
        ("gradient_snr", {"level": 1.0}, "above 0 and below 1"),
        ("gradient_cosine_steps", {"false_alarm": 0.0}, "above 0 and below 1"),
        ("cabs", {"min_steps": "8"}, "integer"),
        ("gradient_norm", {"group": 3}, "dotted name"),
        ("update_ratio", {"group": None}, "dotted name"),
        ("memory", {"window_steps": 3}, "allowed: none"),
    ],
)
def test_options_that_cannot_work_are_refused_in_one_line(
    name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        build_monitor(name, options)
    assert "\n" not in str(caught.value)


def test_an_unknown_phase_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="data, forward, backward"):
        PhaseShare(phase="sleep")


def test_monitors_of_the_job_ask_for_the_facts_that_they_read() -> None:
    names = ["share_data", "share_optimizer", "monitor_share", "memory", "stragglers"]
    assert needs_of([build_monitor(name) for name in names]) == {"phases", "ranks"}
    assert needs_of([build_monitor("monitor_share")]) == frozenset()
