"""How the noise scale behaves: what it ignores, what it says, what cannot change it."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isfinite, isnan, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.codec import from_json, to_json
from workbench.errors import ConfigurationError
from workbench.facts import GroupFacts, StepFacts, TwoNorms
from workbench.monitors import NoiseScale, NoiseScaleState, build_monitor
from workbench.monitors.noise_scale import step_weight
from workbench.signal import Signal

NORMS = st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.0, 50)), min_size=1, max_size=80)


def facts(step: int, big: float, excess: float, batch: int = 64, k: int = 4) -> StepFacts:
    return StepFacts(
        step=step, epoch=0, samples=step * batch, seconds=0.1, workers=k,
        batch_size_global=batch, batch_size_target=batch, small_batches=k,
        grad_sqnorm_small=big + excess, grad_sqnorm_big=big, loss=1.0, origin="ranks",
    )  # fmt: skip


def play(
    steps: list[StepFacts], monitor: NoiseScale | None = None
) -> tuple[NoiseScaleState, Signal]:
    used = monitor or NoiseScale()
    state = used.init()
    signal = state.signal
    for each in steps:
        state, signal = used.update(state, each)
    return state, signal


def steady(count: int = 40) -> list[StepFacts]:
    return [facts(step, 2.0 + 0.1 * (step % 3), 3.0 + 0.2 * (step % 4)) for step in range(1, count)]


@given(NORMS)
@settings(deadline=None, max_examples=60)
def test_every_signal_is_finite_with_its_interval_around_it_or_says_why_not(
    norms: list[tuple[float, float]],
) -> None:
    monitor = NoiseScale()
    state = monitor.init()
    for step, (big, excess) in enumerate(norms, start=1):
        state, signal = monitor.update(state, facts(step, big, excess))
        if signal.determined:
            assert isfinite(signal.value)
            assert 0.0 <= signal.low <= signal.value <= signal.high
            assert isfinite(signal.low)
            assert signal.reason == "ranks"
        else:
            assert isnan(signal.low)
            assert isnan(signal.high)
            assert signal.reason


@given(NORMS, st.integers(-40, 40))
@settings(deadline=None, max_examples=40)
def test_a_loss_times_a_power_of_two_changes_nothing(
    norms: list[tuple[float, float]], power: int
) -> None:
    scale = 4.0**power
    plain = [facts(step, big, excess) for step, (big, excess) in enumerate(norms, start=1)]
    scaled = [
        replace(
            each,
            grad_sqnorm_small=scale * (each.grad_sqnorm_small or 0.0),
            grad_sqnorm_big=scale * (each.grad_sqnorm_big or 0.0),
        )
        for each in plain
    ]
    assert repr(play(plain)[1]) == repr(play(scaled)[1])


def test_ranks_and_micro_batches_give_the_same_answer() -> None:
    ranks = steady()
    micro = [replace(each, workers=1, origin="micro-batches") for each in ranks]
    one, other = play(ranks)[1], play(micro)[1]
    assert (one.value, one.low, one.high) == (other.value, other.low, other.high)
    assert (one.reason, other.reason) == ("ranks", "micro-batches")


@given(NORMS)
@settings(deadline=None, max_examples=30)
def test_the_state_survives_the_codec_and_goes_on_as_if_never_saved(
    norms: list[tuple[float, float]],
) -> None:
    steps = [facts(step, big, excess) for step, (big, excess) in enumerate(norms, start=1)]
    state, _ = play(steps)
    saved = from_json(NoiseScaleState, to_json(state))
    assert repr(saved) == repr(state)
    following = facts(len(steps) + 1, 3.0, 1.0)
    assert repr(NoiseScale().update(saved, following)) == repr(
        NoiseScale().update(state, following)
    )


@pytest.mark.parametrize(
    "poison",
    [
        {"grad_sqnorm_small": nan}, {"grad_sqnorm_small": inf}, {"grad_sqnorm_big": nan},
        {"grad_sqnorm_big": inf}, {"loss": nan}, {"loss": -inf}, {"skipped": True},
        {"grad_sqnorm_small": None}, {"grad_sqnorm_big": None}, {"small_batches": 1},
        {"grad_sqnorm_small": 1e200, "grad_sqnorm_big": 1e190}, {"grad_sqnorm_big": -1.0},
        {"grad_sqnorm_small": 1.0, "grad_sqnorm_big": 2.0}, {"batch_size_global": 0},
    ],
)  # fmt: skip
def test_a_step_that_cannot_count_leaves_the_state_as_it_was(poison: dict[str, object]) -> None:
    state, before = play(steady())
    after, signal = NoiseScale().update(state, replace(facts(99, 2.0, 3.0), **poison))  # type: ignore[arg-type]
    assert after is state
    assert signal == before


def test_zero_noise_is_a_noise_scale_of_zero() -> None:
    _, signal = play([facts(step, 2.0, 0.0) for step in range(1, 20)])
    assert signal.value == signal.low == 0.0
    assert signal.high >= 0.0


def test_rounding_below_zero_noise_is_taken_as_zero() -> None:
    _, signal = play([facts(step, 2.0, -1e-7 * (step % 2)) for step in range(1, 20)])
    assert signal.value == 0.0


def test_too_few_split_steps_are_said_to_be_too_few() -> None:
    _, signal = play(steady(6))
    assert not signal.determined
    assert signal.reason == "5 of 8 split steps"


def test_a_negative_squared_gradient_leaves_the_value_undetermined() -> None:
    steps = [facts(step, 1.0, 3.0 + 0.1 * (step % 3), k=2) for step in range(1, 30)]
    _, signal = play(steps)
    assert not signal.determined
    assert "lost in its noise" in signal.reason


def test_single_negative_steps_are_averaged_and_not_dropped() -> None:
    steps = [facts(step, 1.0 if step % 2 else 3.0, 3.5, k=4) for step in range(1, 65)]
    _, signal = play(steps)
    noise = 64 * 3.5 / 3
    assert signal.value == pytest.approx(noise / (2.0 - noise / 64), rel=1e-9)


def test_steps_without_a_split_keep_the_last_signal_with_its_step() -> None:
    state, before = play(steady())
    blank = replace(facts(99, 2.0, 3.0), grad_sqnorm_small=None, small_batches=0, origin="none")
    _, signal = NoiseScale().update(state, blank)
    assert signal == before
    assert signal.step == 38


def test_a_change_of_scale_of_the_loss_cuts_nothing_while_the_ratio_stays() -> None:
    rising = [
        replace(
            each,
            grad_sqnorm_small=(each.grad_sqnorm_small or 0) * (1.0 if each.step < 60 else 9.0),
            grad_sqnorm_big=(each.grad_sqnorm_big or 0) * (1.0 if each.step < 60 else 9.0),
        )
        for each in steady(128)
    ]
    state, _ = play(rising)
    assert state.used_steps >= 120


def test_a_jump_of_the_noise_scale_shortens_the_window() -> None:
    steps = [
        facts(step, 2.0 + 0.1 * (step % 3), (1.0 if step < 200 else 5.0) + 0.02 * (step % 4))
        for step in range(1, 257)
    ]
    state, signal = play(steps)
    assert state.used_steps < 64
    noise = 64 * 5.03 / 3
    assert signal.value == pytest.approx(noise / (2.1 - noise / 64), rel=0.05)


def test_another_batch_size_keeps_the_estimate() -> None:
    """The same tr(Sigma) = 160 and |G|^2 = 2 seen at two batch sizes."""

    def seen(step: int, batch: int, k: int) -> StepFacts:
        wobble = 1.0 + 0.05 * (step % 5 - 2)
        noise = 160.0 * wobble
        return facts(step, 2.0 + noise / batch, noise * (k - 1) / batch, batch, k)

    steps = [seen(step, 64, 4) for step in range(1, 50)]
    steps += [seen(step, 256, 8) for step in range(50, 100)] + [seen(100, 3, 3)]
    _, signal = play(steps)
    assert signal.low < 80.0 < signal.high
    assert signal.value == pytest.approx(80.0, rel=0.02)


@given(st.integers(1, 4096), st.integers(2, 64), st.floats(1e-3, 1e6))
@settings(deadline=None, max_examples=100)
def test_more_samples_or_more_small_batches_never_weigh_less(
    batch: int, k: int, scale: float
) -> None:
    weight = step_weight(batch, k, scale)
    assert 0.0 < weight < inf
    assert step_weight(2 * batch, k, scale) >= weight
    assert step_weight(batch, k + 1, scale) >= weight


@given(NORMS, NORMS)
@settings(deadline=None, max_examples=30)
def test_halves_of_a_run_merge_into_the_sums_of_the_whole(
    older: list[tuple[float, float]], newer: list[tuple[float, float]]
) -> None:
    steps = [facts(step, big, more) for step, (big, more) in enumerate([*older, *newer], start=1)]
    one, _ = play(steps)
    both = NoiseScale().merge(play(steps[: len(older)])[0], play(steps[len(older) :])[0])
    assert both.window.steps == one.window.steps
    assert both.step == one.step
    for column in range(4):
        sums = [sum(block[column] for block in each.window.blocks) for each in (both, one)]
        assert sums[0] == pytest.approx(sums[1], abs=1e-9)


def test_an_estimate_after_a_merge_lies_in_the_interval_of_the_whole_run() -> None:
    steps = steady(300)
    _, signal = play(steps)
    merged = NoiseScale().merge(play(steps[:120])[0], play(steps[120:])[0])
    assert signal.low < merged.signal.value < signal.high
    assert merged.signal.high - merged.signal.low == pytest.approx(
        signal.high - signal.low, rel=0.3
    )
    assert from_json(NoiseScaleState, to_json(merged)) == merged


def test_merging_with_the_state_before_any_step_changes_nothing() -> None:
    state, _ = play(steady())
    monitor = NoiseScale()
    assert monitor.merge(state, monitor.init()) is state
    assert monitor.merge(monitor.init(), state) is state


def test_stretches_at_other_batch_sizes_merge_with_comparable_weights() -> None:
    def seen(step: int, batch: int, k: int) -> StepFacts:
        noise = 160.0 * (1.0 + 0.05 * (step % 5 - 2))
        return facts(step, 2.0 + noise / batch, noise * (k - 1) / batch, batch, k)

    older = [seen(step, 64, 4) for step in range(1, 60)]
    newer = [seen(step, 256, 8) for step in range(60, 120)]
    one, _ = play([*older, *newer])
    both = NoiseScale().merge(play(older)[0], play(newer)[0])
    assert both.first_batch == 64
    weights = [sum(block[1] for block in each.window.blocks) for each in (both, one)]
    assert weights[0] == pytest.approx(weights[1], rel=0.05)
    assert both.signal.value == pytest.approx(80.0, rel=0.02)


def test_the_noise_scale_of_a_group_reads_its_norms_and_is_named_after_it() -> None:
    monitor = build_monitor("noise_scale", {"group": "encoder"})
    assert monitor.name == "noise_scale.encoder"
    assert monitor.needs == ("group:encoder",)  # type: ignore[attr-defined]
    state, signal = monitor.init(), monitor.init().signal
    assert signal.name == "noise_scale.encoder"
    for each in steady():
        grad = TwoNorms(small=3.0 + 0.01 * (each.step % 3), big=2.0, small_batches=2)
        groups = (GroupFacts(name="head"), GroupFacts(name="encoder", grad=grad))
        state, signal = monitor.update(state, replace(each, groups=groups))
    assert signal.value == pytest.approx(65.3, rel=0.01)
    assert signal.name == "noise_scale.encoder"


def test_a_group_that_was_not_measured_leaves_it_undetermined_and_says_which() -> None:
    monitor = NoiseScale(group="encoder")
    _, signal = monitor.update(monitor.init(), steady()[0])
    assert not signal.determined
    assert "'encoder'" in signal.reason


def test_the_preconditioned_noise_scale_says_by_what() -> None:
    monitor = NoiseScale(preconditioned=True)
    assert monitor.name == "noise_scale_preconditioned"
    assert monitor.needs == ("preconditioned",)
    state = monitor.init()
    _, signal = monitor.update(state, steady()[0])
    assert signal.reason == "no preconditioned gradient was measured yet"
    for each in steady():
        norms = TwoNorms(small=3.0 + 0.01 * (each.step % 3), big=2.0, small_batches=2)
        told = replace(each, preconditioned=norms, preconditioner="adam")
        state, signal = monitor.update(state, told)
    assert signal.value == pytest.approx(65.3, rel=0.01)
    assert signal.reason == "ranks, preconditioned by adam"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": 3}, "group is 3"),
        ({"preconditioned": 1}, "true or false"),
        ({"group": "encoder", "preconditioned": True}, "one of the two"),
    ],
)
def test_which_gradient_is_meant_must_be_clear(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        build_monitor("noise_scale", options)
