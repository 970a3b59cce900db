"""Gradient norm, loss and throughput report what was measured, and no more."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.codec import from_json, to_json
from workbench.facts import StepFacts
from workbench.monitors import (
    GradientNorm,
    Loss,
    LossSmoothed,
    LossSmoothedState,
    Throughput,
    ThroughputState,
)
from workbench.signal import Signal

BLANK = StepFacts(
    step=1, epoch=0, samples=8, seconds=0.5, workers=1, batch_size_global=8, batch_size_target=8
)


@given(st.floats(0, 1e150))
@settings(deadline=None, max_examples=50)
def test_the_gradient_norm_is_the_root_of_what_was_measured(square: float) -> None:
    monitor = GradientNorm()
    _, signal = monitor.update(monitor.init(), replace(BLANK, grad_sqnorm_big=square))
    assert signal.value == signal.low == signal.high == sqrt(square)
    assert signal.level == 1.0


def test_the_last_norm_and_loss_stand_on_steps_that_measured_none() -> None:
    norm, loss = GradientNorm(), Loss()
    state, _ = norm.update(norm.init(), replace(BLANK, grad_sqnorm_big=9.0))
    other, _ = loss.update(loss.init(), replace(BLANK, loss=0.5))
    later = replace(BLANK, step=2)
    assert (norm.update(state, later)[1].value, norm.update(state, later)[1].step) == (3.0, 1)
    assert (loss.update(other, later)[1].value, loss.update(other, later)[1].step) == (0.5, 1)


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_a_norm_or_loss_that_is_no_number_is_undetermined_and_not_remembered(bad: float) -> None:
    norm, loss = GradientNorm(), Loss()
    state, _ = norm.update(norm.init(), replace(BLANK, grad_sqnorm_big=9.0))
    other, _ = loss.update(loss.init(), replace(BLANK, loss=0.5))
    after, signal = norm.update(state, replace(BLANK, step=2, grad_sqnorm_big=bad))
    assert after is state
    assert not signal.determined
    last, told = loss.update(other, replace(BLANK, step=2, loss=bad))
    assert last is other
    assert not told.determined
    assert str(bad) in told.reason


def test_a_skipped_step_has_no_gradient_norm() -> None:
    monitor = GradientNorm()
    facts = replace(BLANK, grad_sqnorm_big=9.0, skipped=True)
    assert "skipped" in monitor.update(monitor.init(), facts)[1].reason


def smoothed(losses: list[float]) -> tuple[LossSmoothedState, Signal]:
    monitor = LossSmoothed()
    state = monitor.init()
    signal = state.signal
    for step, loss in enumerate(losses, start=1):
        state, signal = monitor.update(state, replace(BLANK, step=step, loss=loss))
    return state, signal


def test_the_smoothed_loss_covers_a_plateau_and_follows_a_fall() -> None:
    rng = np.random.default_rng(0)
    plateau = fall = 0
    for _ in range(100):
        noise = 0.1 * rng.standard_normal(400)
        _, flat = smoothed((0.7 + noise).tolist())
        truth = 2.0 * np.exp(-np.arange(400) / 150)
        _, falling = smoothed((truth + noise).tolist())
        plateau += flat.low <= 0.7 <= flat.high
        fall += falling.low <= truth[-1] <= falling.high
    assert plateau >= 90
    assert fall >= 90


def test_the_smoothed_loss_may_be_negative_and_survives_the_codec() -> None:
    state, signal = smoothed([-1.0 - 0.01 * (step % 5) for step in range(100)])
    assert signal.low < -1.02 < signal.high
    assert from_json(LossSmoothedState, to_json(state)) == state


@pytest.mark.parametrize(
    "poison", [{"loss": nan}, {"loss": 1e200}, {"loss": None}, {"skipped": True}]
)
def test_the_smoothed_loss_ignores_what_cannot_count(poison: dict[str, object]) -> None:
    state, before = smoothed([1.0, 1.1] * 10)
    facts = replace(replace(BLANK, loss=1.0), **poison)  # type: ignore[arg-type]
    after, signal = LossSmoothed().update(state, facts)
    assert after is state
    assert signal == before


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(0.001, 10)), min_size=1, max_size=120))
@settings(deadline=None, max_examples=50)
def test_throughput_is_all_samples_over_all_seconds_of_the_last_fifty_steps(
    steps: list[tuple[int, float]],
) -> None:
    monitor = Throughput()
    state = monitor.init()
    signal = None
    for samples, seconds in steps:
        facts = replace(BLANK, batch_size_global=samples, seconds=seconds, batch_size_target=512)
        state, signal = monitor.update(state, facts)
    last = steps[-50:]
    assert signal is not None
    assert signal.value == pytest.approx(sum(n for n, _ in last) / sum(s for _, s in last))
    assert from_json(ThroughputState, to_json(state)) == state


def test_throughput_starts_anew_when_the_job_changes_its_shape() -> None:
    monitor = Throughput()
    state, _ = monitor.update(monitor.init(), BLANK)
    _, other = monitor.update(state, replace(BLANK, workers=2, seconds=0.1))
    assert other.value == pytest.approx(80.0)
    _, grown = monitor.update(state, replace(BLANK, batch_size_target=16, seconds=0.2))
    assert grown.value == pytest.approx(40.0)


@pytest.mark.parametrize("seconds", [nan, inf, -1.0])
def test_throughput_leaves_impossible_times_out(seconds: float) -> None:
    monitor = Throughput()
    state, _ = monitor.update(monitor.init(), BLANK)
    after, signal = monitor.update(state, replace(BLANK, seconds=seconds))
    assert after == state
    assert signal.value == pytest.approx(16.0)


def test_throughput_is_undetermined_while_no_time_has_passed() -> None:
    monitor = Throughput()
    _, signal = monitor.update(monitor.init(), replace(BLANK, seconds=0.0))
    assert isnan(signal.value)
    assert signal.unit == "samples/s"
