"""The gradient variance covers the trace of the covariance and scales with the loss squared."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from workbench.codec import from_json, to_json
from workbench.facts import StepFacts
from workbench.monitors import GradientVariance, GradientVarianceState
from workbench.signal import Signal


def facts(step: int, noise: float, k: int = 4) -> StepFacts:
    """A step of 64 samples whose S_hat is ``noise``."""
    return StepFacts(
        step=step, epoch=0, samples=64 * step, seconds=0.1, workers=k, batch_size_global=64,
        batch_size_target=64, small_batches=k, grad_sqnorm_small=2.0 + noise * (k - 1) / 64,
        grad_sqnorm_big=2.0, loss=1.0, origin="ranks",
    )  # fmt: skip


def play(noise: list[float], k: int = 4) -> tuple[GradientVarianceState, Signal]:
    monitor = GradientVariance()
    state = monitor.init()
    signal = state.signal
    for step, each in enumerate(noise, start=1):
        state, signal = monitor.update(state, facts(step, each, k))
    return state, signal


@pytest.mark.parametrize("degrees", [3, 192])
def test_the_trace_is_inside_the_interval_in_nine_of_ten_runs(degrees: int) -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        _, signal = play((50.0 * rng.chisquare(degrees, 64) / degrees).tolist())
        inside += signal.low <= 50.0 <= signal.high
    assert inside >= 180


def test_a_loss_times_three_makes_it_nine_times_larger() -> None:
    rng = np.random.default_rng(1)
    noise = rng.chisquare(30, 40)
    plain, scaled = play(noise.tolist())[1], play((9 * noise).tolist())[1]
    assert scaled.value == pytest.approx(9 * plain.value)
    assert scaled.low == pytest.approx(9 * plain.low)
    assert scaled.high == pytest.approx(9 * plain.high)


def test_a_fall_of_the_variance_is_followed() -> None:
    rng = np.random.default_rng(2)
    noise = np.where(np.arange(300) < 200, 100.0, 10.0) * rng.chisquare(50, 300) / 50
    _, signal = play(noise.tolist())
    assert signal.low < 10.0 < signal.high < 15.0


def test_poison_and_skipped_steps_leave_the_state_as_it_was() -> None:
    state, before = play([50.0, 52.0] * 10)
    bad: list[dict[str, object]] = [
        {"grad_sqnorm_small": nan}, {"loss": nan}, {"skipped": True}, {"grad_sqnorm_small": None},
    ]  # fmt: skip
    for poison in bad:
        after, signal = GradientVariance().update(state, replace(facts(99, 50.0), **poison))  # type: ignore[arg-type]
        assert after is state
        assert signal == before


def test_the_state_survives_the_codec() -> None:
    for count in (0, 3, 100):
        state, _ = play([50.0 + step % 7 for step in range(count)])
        assert repr(from_json(GradientVarianceState, to_json(state))) == repr(state)


def test_the_signal_is_undetermined_before_enough_steps() -> None:
    assert play([])[1].reason == "no step was split yet"
    assert play([50.0] * 3)[1].reason == "3 of 8 split steps"


def test_halves_of_a_run_merge_into_one() -> None:
    rng = np.random.default_rng(3)
    noise = (50.0 * rng.chisquare(40, 300) / 40).tolist()
    whole, signal = play(noise)
    both = GradientVariance().merge(play(noise[:100])[0], play(noise[100:])[0])
    assert both.window.steps == whole.window.steps == 300
    assert sum(block[2] for block in both.window.blocks) == pytest.approx(
        sum(block[2] for block in whole.window.blocks)
    )
    assert signal.low < both.signal.value < signal.high
