"""The difference of successive steps: right while the weights stand still, too high when they move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workbench.codec import from_json, to_json
from workbench.facts import StepFacts, Successive
from workbench.monitors import NoiseScaleSuccessive, NoiseScaleSuccessiveState
from workbench.signal import Signal

B, DIM = 16, 64


def run(
    rng: np.random.Generator, steps: int, *, scale: float, rate: float = 0.0
) -> list[StepFacts]:
    """Noise of trace 1 a sample around ``G + w``; descent moves ``w`` around 0 if there is a rate."""
    slope = np.full(DIM, np.sqrt(1.0 / scale / DIM))
    weights, before, made = np.zeros(DIM), np.zeros(DIM), []
    for step in range(1, steps + 1):
        noise = rng.standard_normal(DIM) / np.sqrt(DIM * B)
        gradient = slope + weights + noise
        pair = Successive(
            dot=float(gradient @ before), sqnorm=float(gradient @ gradient),
            sqnorm_before=float(before @ before), batch_size_before=B,
        )  # fmt: skip
        made.append(
            StepFacts(
                step=step, epoch=0, samples=B * step, seconds=0.1, workers=1, batch_size_global=B,
                batch_size_target=B, successive=pair if step > 1 else None,
            )
        )  # fmt: skip
        before = gradient
        weights = weights - rate * (weights + noise)
    return made


def play(facts: list[StepFacts]) -> tuple[NoiseScaleSuccessiveState, Signal]:
    monitor = NoiseScaleSuccessive()
    state = monitor.init()
    signal = state.signal
    for each in facts:
        state, signal = monitor.update(state, each)
    return state, signal


@pytest.mark.parametrize("scale", [4.0, 32.0])
def test_with_frozen_weights_the_interval_holds_at_its_level(scale: float) -> None:
    rng = np.random.default_rng(1)
    found = [play(run(rng, 200, scale=scale))[1] for _ in range(120)]
    inside = [each.low <= scale <= each.high for each in found if each.determined]
    assert len(inside) >= 117
    assert 0.91 <= np.mean(inside) <= 0.985


def test_movement_of_the_weights_raises_the_value_and_the_signal_says_so() -> None:
    """Around a minimum ``|w|^2 = eta / (2 - eta) / B`` belongs to ``|G|^2``, and the product loses it."""
    rng, rate = np.random.default_rng(2), 0.3
    found = [play(run(rng, 400, scale=8.0, rate=rate))[1] for _ in range(24)]
    truth = 1.0 / (1.0 / 8.0 + rate / (2.0 - rate) / B)
    assert np.median([each.value for each in found]) > 1.2 * truth
    assert {each.reason for each in found} == {"successive steps, biased by movement"}


def test_pairs_that_share_a_step_are_not_used_twice() -> None:
    state, _ = play(run(np.random.default_rng(3), 101, scale=4.0))
    assert state.window.steps == 50


def test_pairs_measured_now_and_then_are_all_used() -> None:
    facts = run(np.random.default_rng(4), 100, scale=4.0)
    state, _ = play(facts[4::5])
    assert state.window.steps == 20


def test_steps_that_cannot_count_change_nothing() -> None:
    facts = run(np.random.default_rng(5), 40, scale=4.0)
    state, before = play(facts)
    good = Successive(dot=0.1, sqnorm=1.0, sqnorm_before=1.0, batch_size_before=B)
    bad = [
        replace(good, dot=float("nan")), replace(good, sqnorm=float("inf")),
        replace(good, sqnorm_before=-1.0), replace(good, batch_size_before=0), None,
    ]  # fmt: skip
    for pair in bad:
        poison = replace(facts[-1], step=99, successive=pair)
        assert NoiseScaleSuccessive().update(state, poison) == (state, before)
    skipped = replace(facts[-1], step=99, successive=good, skipped=True)
    assert NoiseScaleSuccessive().update(state, skipped) == (state, before)


def test_the_state_survives_the_codec_and_halves_can_be_merged() -> None:
    facts = run(np.random.default_rng(6), 400, scale=4.0)
    whole, signal = play(facts)
    assert repr(from_json(NoiseScaleSuccessiveState, to_json(whole))) == repr(whole)
    both = NoiseScaleSuccessive().merge(play(facts[:200])[0], play(facts[200:])[0])
    assert abs(both.window.steps - whole.window.steps) <= 1
    assert signal.low < both.signal.value < signal.high
