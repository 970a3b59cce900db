"""The signals with intervals: their value, what cannot change it, what they ignore."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf, isfinite, isnan, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.codec import from_json, to_json
from workbench.facts import StepFacts, Successive
from workbench.monitors import build_monitor
from workbench.monitors.adascale_gain import gain
from workbench.monitors.protocol import Monitor, needs_of
from workbench.signal import Signal

SPLIT = (
    "gradient_snr", "gradient_cosine_workers", "norm_test", "inner_product_test", "cabs",
    "adascale_gain", "statistical_efficiency",
)  # fmt: skip
ALL = (*SPLIT, "gradient_cosine_steps")
NORMS = st.lists(
    st.tuples(st.floats(0.01, 100), st.floats(0.0, 50), st.floats(0.0, 50), st.floats(-1, 1)),
    min_size=1,
    max_size=60,
)


def facts(
    step: int, big: float, excess: float, along: float = 1.0, cosine: float = 0.5, batch: int = 64
) -> StepFacts:
    """A step of ``batch`` samples in 4 small batches, with all that any monitor here reads."""
    return StepFacts(
        step=step, epoch=0, samples=step * batch, seconds=0.1, workers=4,
        batch_size_global=batch, batch_size_target=batch, small_batches=4,
        grad_sqnorm_small=big + excess, grad_sqnorm_big=big, loss=0.5, learning_rate=0.1,
        origin="ranks", grad_dot_variance=along,
        successive=Successive(
            dot=cosine * big, sqnorm=big, sqnorm_before=big, batch_size_before=batch
        ),
    )  # fmt: skip


def play(monitor: Monitor, steps: Iterable[StepFacts]) -> tuple[Any, Signal]:
    state, signal = monitor.init(), None
    for each in steps:
        state, signal = monitor.update(state, each)
    assert signal is not None
    return state, signal


def steady(count: int = 40, batch: int = 64) -> list[StepFacts]:
    """|G|^2 = 2 and tr(Sigma) = 128, each with a wobble: the noise scale is 64."""
    return [
        facts(
            step, 2.0 + 128 / batch + 0.1 * (step % 3 - 1), 384 / batch + 0.1 * (step % 5 - 2),
            along=3.0 + 0.2 * (step % 4), cosine=0.45 + 0.05 * (step // 2 % 4), batch=batch,
        )
        for step in range(1, count + 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("gradient_snr", {}, 1.0),
        ("gradient_cosine_workers", {}, 1 / (1 + 64 / 16)),
        ("norm_test", {}, 64.0),
        ("norm_test", {"theta": 0.5}, 256.0),
        ("cabs", {}, 0.1 * 128 / 0.5),
        ("adascale_gain", {"base_batch_size": 16}, 2.5),
        ("adascale_gain", {}, 1.0),
        ("statistical_efficiency", {"base_batch_size": 16}, 2.5 / 4),
        ("statistical_efficiency", {}, 1.0),
        ("gradient_cosine_steps", {}, 0.525),
    ],
)
def test_the_value_is_that_of_the_equation(
    name: str, options: dict[str, Any], value: float
) -> None:
    _, signal = play(build_monitor(name, options), steady())
    assert signal.value == pytest.approx(value, rel=0.03)
    assert signal.low <= value * 1.02
    assert signal.high >= value * 0.98


def test_the_inner_product_test_takes_the_excess_of_the_measured_gradient_off() -> None:
    """Neighbours' ``S_hat`` of 128 +- 4 with k = 4: tr(Sigma^2) = 3 / 4 * 8^2 = 48 in each pair."""
    steps = [
        facts(step, 4.0, 3.0 * (128 + (4 if step % 2 else -4)) / 64, along=5.0)
        for step in range(1, 41)
    ]
    _, signal = play(build_monitor("inner_product_test", {"theta": 1.0}), steps)
    length = 4.0 - 128 / 64
    assert signal.value == pytest.approx((5.0 - 48 / 64) / length**2, rel=1e-9)


@pytest.mark.parametrize("name", ALL)
@given(norms=NORMS)
@settings(deadline=None, max_examples=25)
def test_a_signal_is_finite_with_its_interval_around_it_or_says_why_not(
    name: str, norms: list[tuple[float, float, float, float]]
) -> None:
    monitor = build_monitor(name)
    state = monitor.init()
    for step, numbers in enumerate(norms, start=1):
        state, signal = monitor.update(state, facts(step, *numbers))
        assert signal.name == name
        if signal.determined:
            assert isfinite(signal.value)
            assert signal.low <= signal.value <= signal.high
            assert isfinite(signal.low)
        else:
            assert isnan(signal.low)
            assert isnan(signal.high)
        assert signal.reason


@given(norms=NORMS, batch=st.integers(1, 4096), base=st.integers(1, 4096))
@settings(deadline=None, max_examples=40)
def test_gain_and_efficiency_stay_in_their_bounds_with_both_ends(
    norms: list[tuple[float, float, float, float]], batch: int, base: int
) -> None:
    steps = [facts(step, *numbers, batch=batch) for step, numbers in enumerate(norms, start=1)]
    _, signal = play(build_monitor("adascale_gain", {"base_batch_size": base}), steps)
    _, share = play(build_monitor("statistical_efficiency", {"base_batch_size": base}), steps)
    assert signal.determined == share.determined
    if signal.determined:
        least, most = sorted((1.0, batch / base))
        assert least * (1 - 1e-9) <= signal.low <= signal.high <= most * (1 + 1e-9)
        assert share.value == pytest.approx(signal.value * base / batch)
        assert share.low == pytest.approx(signal.low * base / batch)


@given(st.floats(0, 1e12), st.floats(0, 1e12), st.integers(1, 10**6), st.integers(1, 10**6))
@settings(deadline=None, max_examples=100)
def test_the_gain_falls_as_the_signal_rises_above_the_noise(
    one: float, other: float, batch: int, base: int
) -> None:
    less, more = sorted((one, other))
    if batch >= base:
        assert gain(less, batch, base) >= gain(more, batch, base) * (1 - 1e-12) >= 1 - 1e-9
    else:
        assert gain(less, batch, base) <= gain(more, batch, base) * (1 + 1e-12) <= 1 + 1e-9


@given(norms=NORMS)
@settings(deadline=None, max_examples=30)
def test_cosines_stay_between_minus_one_and_one(
    norms: list[tuple[float, float, float, float]],
) -> None:
    steps = [facts(step, *numbers) for step, numbers in enumerate(norms, start=1)]
    for name in ("gradient_cosine_workers", "gradient_cosine_steps"):
        _, signal = play(build_monitor(name), steps)
        assert not signal.determined or -1.0 <= signal.low <= signal.high <= 1.0


def scaled(each: StepFacts, power: int) -> StepFacts:
    """The same step with the loss times ``2^power``: exact in floating point."""
    square, pair = 4.0**power, each.successive
    assert pair is not None
    return replace(
        each,
        loss=(each.loss or 0.0) * 2.0**power,
        grad_sqnorm_small=square * (each.grad_sqnorm_small or 0.0),
        grad_sqnorm_big=square * (each.grad_sqnorm_big or 0.0),
        grad_dot_variance=square * square * (each.grad_dot_variance or 0.0),
        successive=replace(
            pair,
            dot=square * pair.dot,
            sqnorm=square * pair.sqnorm,
            sqnorm_before=square * pair.sqnorm_before,
        ),
    )


@pytest.mark.parametrize("name", ALL)
@given(norms=NORMS, power=st.integers(-15, 15))
@settings(deadline=None, max_examples=15)
def test_a_loss_times_a_constant_changes_only_what_has_its_unit(
    name: str, norms: list[tuple[float, float, float, float]], power: int
) -> None:
    steps = [facts(step, *numbers) for step, numbers in enumerate(norms, start=1)]
    _, plain = play(build_monitor(name), steps)
    _, other = play(build_monitor(name), [scaled(each, power) for each in steps])
    unit = 2.0**power if name == "cabs" else 1.0
    assert plain.determined == other.determined
    if plain.determined:
        for one, two in ((plain.value, other.value), (plain.low, other.low)):
            assert two == pytest.approx(unit * one, rel=1e-6, abs=1e-9 * unit)
        assert isfinite(plain.high) == isfinite(other.high)


@pytest.mark.parametrize("name", SPLIT)
def test_ranks_and_micro_batches_give_the_same_answer(name: str) -> None:
    ranks = steady()
    micro = [replace(each, workers=1, origin="micro-batches") for each in ranks]
    one, other = play(build_monitor(name), ranks)[1], play(build_monitor(name), micro)[1]
    assert (one.value, one.low, one.high) == (other.value, other.low, other.high)
    assert one.reason.replace("ranks", "micro-batches") == other.reason


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("count", [0, 3, 40, 300])
def test_the_state_survives_the_codec_and_goes_on_as_if_never_saved(name: str, count: int) -> None:
    monitor = build_monitor(name)
    state = play(monitor, steady(count))[0] if count else monitor.init()
    saved = from_json(type(state), to_json(state))
    assert repr(saved) == repr(state)
    following = facts(count + 2, 3.0, 1.0)
    assert repr(monitor.update(saved, following)) == repr(monitor.update(state, following))


POISON: list[dict[str, Any]] = [
    {"grad_sqnorm_small": nan}, {"grad_sqnorm_small": inf}, {"grad_sqnorm_big": nan},
    {"loss": nan}, {"loss": -inf}, {"skipped": True},
    {"grad_sqnorm_small": 1e200, "grad_sqnorm_big": 1e190}, {"grad_sqnorm_big": -1.0},
    {"grad_sqnorm_small": 1.0, "grad_sqnorm_big": 2.0}, {"batch_size_global": 0},
]  # fmt: skip


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("poison", POISON)
def test_a_step_that_cannot_count_leaves_the_state_as_it_was(
    name: str, poison: dict[str, Any]
) -> None:
    monitor = build_monitor(name)
    state, before = play(monitor, steady())
    after, signal = monitor.update(state, replace(facts(99, 2.0, 3.0), **poison))
    assert after is state
    assert repr(signal) == repr(before)


@pytest.mark.parametrize(
    "pair",
    [
        None,
        Successive(dot=nan, sqnorm=1.0, sqnorm_before=1.0, batch_size_before=64),
        Successive(dot=1.0, sqnorm=inf, sqnorm_before=1.0, batch_size_before=64),
        Successive(dot=1.0, sqnorm=-1.0, sqnorm_before=1.0, batch_size_before=64),
        Successive(dot=0.0, sqnorm=0.0, sqnorm_before=1.0, batch_size_before=64),
        Successive(dot=0.5, sqnorm=1.0, sqnorm_before=1.0, batch_size_before=12),
        Successive(dot=2.0, sqnorm=1.0, sqnorm_before=1.0, batch_size_before=64),
        Successive(dot=1e200, sqnorm=1e200, sqnorm_before=1e200, batch_size_before=64),
    ],
)
def test_a_pair_that_cannot_be_leaves_the_state_as_it_was(pair: Successive | None) -> None:
    monitor = build_monitor("gradient_cosine_steps")
    state, before = play(monitor, steady())
    after, signal = monitor.update(state, replace(facts(99, 2.0, 3.0), successive=pair))
    assert after is state
    assert signal == before


@pytest.mark.parametrize("bad", [nan, inf, -1.0, 1e200, None])
def test_a_variance_of_inner_products_that_cannot_be_changes_nothing(bad: float | None) -> None:
    monitor = build_monitor("inner_product_test")
    state, before = play(monitor, steady())
    after, signal = monitor.update(state, replace(facts(99, 2.0, 3.0), grad_dot_variance=bad))
    assert after is state
    assert signal == before


def test_of_pairs_that_share_a_gradient_every_second_is_used() -> None:
    monitor = build_monitor("gradient_cosine_steps")
    alternating = [facts(step, 1.0, 1.0, cosine=0.9 if step % 2 else 0.1) for step in range(1, 41)]
    assert play(monitor, alternating)[1].value == pytest.approx(0.9)
    sparse = [replace(each, step=3 * each.step) for each in alternating]
    assert play(monitor, sparse)[1].value == pytest.approx(0.5)


def test_another_batch_size_starts_the_cosine_between_steps_anew() -> None:
    monitor = build_monitor("gradient_cosine_steps")
    state, _ = play(monitor, [facts(step, 1.0, 1.0, cosine=0.1) for step in range(1, 100)])
    grown = [facts(step, 1.0, 1.0, cosine=0.8, batch=256) for step in range(100, 140)]
    state, first = monitor.update(state, grown[0])
    assert not first.determined
    for each in grown[1:]:
        state, signal = monitor.update(state, each)
    assert signal.value == pytest.approx(0.8)


def test_a_gradient_lost_in_noise_has_a_ratio_of_zero_and_no_noise_scale() -> None:
    lost = [facts(step, 1.0, 3.1 + 0.1 * (step % 3)) for step in range(1, 41)]
    signals = {name: play(build_monitor(name), lost)[1] for name in ALL}
    assert signals["gradient_snr"].value == signals["gradient_snr"].low == 0.0
    assert signals["gradient_snr"].high < 0.1
    assert not signals["norm_test"].determined
    assert "lost in its noise" in signals["norm_test"].reason
    assert not signals["inner_product_test"].determined
    _, worth = play(build_monitor("adascale_gain", {"base_batch_size": 16}), lost)
    assert worth.value == worth.high == 4.0
    assert worth.low > 3.5


def test_without_noise_the_cosine_is_one_and_a_larger_batch_is_worth_nothing() -> None:
    still = [facts(step, 2.0, 0.0) for step in range(1, 41)]
    _, snr = play(build_monitor("gradient_snr"), still)
    assert not snr.determined
    assert "no noise" in snr.reason
    assert play(build_monitor("gradient_cosine_workers"), still)[1].value == 1.0
    _, worth = play(build_monitor("adascale_gain", {"base_batch_size": 16}), still)
    assert worth.low == worth.value == worth.high == 1.0
    _, share = play(build_monitor("statistical_efficiency", {"base_batch_size": 16}), still)
    assert share.value == 0.25


def test_a_gradient_of_zero_has_no_ratio_at_all() -> None:
    for name in ("gradient_snr", "gradient_cosine_workers", "adascale_gain"):
        _, signal = play(build_monitor(name), [facts(step, 0.0, 0.0) for step in range(1, 41)])
        assert not signal.determined
        assert "0 in every" in signal.reason


def test_another_batch_size_in_force_changes_the_value_at_once() -> None:
    blank = {"grad_sqnorm_small": None, "grad_sqnorm_big": None, "small_batches": 0}
    grown = replace(facts(41, 1.0, 1.0, batch=256), **blank)  # type: ignore[arg-type]
    for name, before, after in (
        ("gradient_snr", 1.0, 4.0),
        ("adascale_gain", 1.0, (1 / 64 + 1 / 64) / (1 / 256 + 1 / 64)),
        ("statistical_efficiency", 1.0, (64 + 64) / (64 + 256)),
    ):
        monitor = build_monitor(name)
        state, signal = play(monitor, steady())
        assert signal.value == pytest.approx(before, rel=0.03)
        assert monitor.update(state, grown)[1].value == pytest.approx(after, rel=0.03)


def test_two_batch_sizes_agree_on_the_ratio_of_one_sample() -> None:
    mixed = steady(40, 64) + [replace(each, step=each.step + 40) for each in steady(40, 256)]
    assert play(build_monitor("gradient_snr"), mixed)[1].value == pytest.approx(4.0, rel=0.05)


def test_a_short_last_step_of_an_epoch_does_not_change_what_the_cosine_speaks_of() -> None:
    monitor = build_monitor("gradient_cosine_workers")
    state, before = play(monitor, steady())
    short = replace(facts(41, 2.0 + 128 / 12, 384 / 12, batch=12), batch_size_target=64)
    _, signal = monitor.update(state, short)
    assert signal.reason == before.reason == "ranks, 16 samples each"
    assert signal.value == pytest.approx(before.value, rel=0.05)


@pytest.mark.parametrize("rate", [None, 0.0, -0.1, nan])
def test_cabs_needs_a_learning_rate_and_a_loss_above_zero(rate: float | None) -> None:
    _, signal = play(
        build_monitor("cabs"), [replace(each, learning_rate=rate) for each in steady()]
    )
    assert not signal.determined
    assert "learning rate" in signal.reason
    for loss in (0.0, -0.5):
        _, signal = play(build_monitor("cabs"), [replace(each, loss=loss) for each in steady()])
        assert not signal.determined
        assert "loss is not above 0" in signal.reason
    _, signal = play(build_monitor("cabs"), [replace(each, loss=None) for each in steady()])
    assert signal.reason == "no split step told its loss yet"


def test_cabs_follows_the_learning_rate_at_once() -> None:
    monitor = build_monitor("cabs")
    state, signal = play(monitor, steady())
    _, later = monitor.update(state, replace(steady()[0], step=41, learning_rate=0.2))
    assert later.value == pytest.approx(2 * signal.value, rel=0.02)


@pytest.mark.parametrize("name", ALL)
def test_too_few_steps_are_said_to_be_too_few(name: str) -> None:
    _, signal = play(build_monitor(name, {"min_steps": 100}), steady())
    assert not signal.determined
    assert "of 100" in signal.reason


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("gradient_snr", {"norms"}),
        ("cabs", {"norms"}),
        ("gradient_cosine_steps", {"successive"}),
        ("inner_product_test", {"norms", "inner_products"}),
    ],
)
def test_a_monitor_asks_for_the_facts_that_it_reads(name: str, needs: set[str]) -> None:
    assert needs_of([build_monitor(name)]) == needs
