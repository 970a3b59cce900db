"""The calibrated noise scale covers the truth of the whole model from norms of a part of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workbench.codec import from_json, to_json
from workbench.errors import ConfigurationError
from workbench.facts import StepFacts, TwoNorms
from workbench.monitors import NoiseScaleCalibrated, NoiseScaleCalibratedState
from workbench.signal import Signal

B = 32


def run(
    rng: np.random.Generator,
    truth: np.ndarray,
    *,
    covered: int = 64,
    rest: int = 640,
    share: float = 0.5,
    every: int = 10,
) -> list[StepFacts]:
    """Covered and other coordinates with noise of trace 1 each; the covered hold ``share`` of |G|^2.

    ``truth`` is the noise scale of the whole. The two halves of a split step and the per-example
    norms of the covered layers come from one and the same draw.
    """
    steps, signal = len(truth), 2.0 / truth
    apart = [rng.chisquare(d, steps) * 4 / B / d for d in (covered, rest)]  # |h1 - h2|^2
    within = rng.chisquare(covered * (B - 2), steps) / covered
    mean = [
        rng.noncentral_chisquare(d, part * signal * d * B) / (d * B)
        for d, part in ((covered, share), (rest, 1 - share))
    ]
    noise = (apart[0] * B / 4 + within) / (B - 1)
    made = []
    for t in range(steps):
        of_covered, within_covered = float(mean[0][t]), float(noise[t]) * (B - 1) / B
        big = of_covered + float(mean[1][t])
        small = big + float(apart[0][t] + apart[1][t]) / 4
        exact = (t + 1) % every == 0
        made.append(
            StepFacts(
                step=t + 1, epoch=0, samples=B * (t + 1), seconds=0.1, workers=1,
                batch_size_global=B, batch_size_target=B, small_batches=2 if exact else 0,
                grad_sqnorm_small=small if exact else None,
                grad_sqnorm_big=big if exact else None, origin="split" if exact else "none",
                covered=TwoNorms(
                    small=of_covered + within_covered, big=of_covered, small_batches=B
                ),
            )
        )  # fmt: skip
    return made


def play(facts: list[StepFacts]) -> tuple[NoiseScaleCalibratedState, Signal]:
    monitor = NoiseScaleCalibrated()
    state = monitor.init()
    signal = state.signal
    for each in facts:
        state, signal = monitor.update(state, each)
    return state, signal


@pytest.mark.parametrize(("share", "scale"), [(0.5, 40.0), (0.2, 15.0)])
def test_the_truth_is_inside_whatever_part_is_covered(share: float, scale: float) -> None:
    rng = np.random.default_rng(1)
    found = [play(run(rng, np.full(320, scale), share=share))[1] for _ in range(60)]
    inside = [each.low <= scale <= each.high for each in found if each.determined]
    assert len(inside) >= 57
    assert np.mean(inside) >= 0.92


def test_it_follows_the_covered_layers_between_splits() -> None:
    """The truth grows fourfold while splits are rare: the calibration stands, the value moves."""
    rng = np.random.default_rng(2)
    truth = np.concatenate([np.full(300, 20.0), np.geomspace(20.0, 80.0, 300)])
    found = [play(run(rng, truth, covered=2000, rest=20_000, every=50))[1] for _ in range(40)]
    errors = [abs(each.value / 80.0 - 1) for each in found]
    assert np.median(errors) < 0.15
    assert np.mean([each.low <= 80.0 <= each.high for each in found]) >= 0.9


def test_too_few_splits_are_said_to_be_too_few() -> None:
    state, signal = play(run(np.random.default_rng(3), np.full(75, 20.0)))
    assert not signal.determined
    assert signal.reason == "7 of 8 splits to calibrate by"
    assert state.window.steps == 75


def test_the_reason_says_how_it_was_obtained() -> None:
    _, signal = play(run(np.random.default_rng(4), np.full(200, 10.0)))
    assert signal.reason == "per-example norms of some layers, calibrated by 20 splits"


def test_steps_that_cannot_count_change_nothing() -> None:
    facts = run(np.random.default_rng(5), np.full(100, 20.0))
    state, before = play(facts)
    bad: list[dict[str, object]] = [
        {"covered": None}, {"skipped": True}, {"loss": float("nan")},
        {"covered": TwoNorms(small=float("inf"), big=1.0, small_batches=B)},
        {"covered": TwoNorms(small=1.0, big=2.0, small_batches=B)},
    ]  # fmt: skip
    for poison in bad:
        after, signal = NoiseScaleCalibrated().update(state, replace(facts[-1], **poison))  # type: ignore[arg-type]
        assert after is state
        assert signal == before


def test_the_state_survives_the_codec_and_halves_can_be_merged() -> None:
    facts = run(np.random.default_rng(6), np.full(400, 20.0))
    whole, signal = play(facts)
    assert repr(from_json(NoiseScaleCalibratedState, to_json(whole))) == repr(whole)
    both = NoiseScaleCalibrated().merge(play(facts[:200])[0], play(facts[200:])[0])
    assert both.strength.steps == whole.strength.steps == 40
    assert signal.low < both.signal.value < signal.high


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="4 or more"):
        NoiseScaleCalibrated(min_splits=3)
