"""The window keeps what lies on one line and drops what does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.monitors.drift import recent
from workbench.monitors.estimate import Estimate, due, estimate
from workbench.monitors.window import Window, push

Array = np.ndarray


def filled(x: Array, y: Array | None = None) -> Window:
    window = Window()
    ones = np.ones(len(x)) if y is None else y
    for one, other in zip(x.tolist(), ones.tolist(), strict=True):
        window = push(window, 1.0, one, other)
    return window


def kept(x: Array) -> float:
    return sum(block[0] for block in recent(filled(x).blocks))


def ends(line: Array, runs: int, seed: int, *, positive: bool = False) -> list[Estimate]:
    rng = np.random.default_rng(seed)
    return [
        estimate(
            filled(line + rng.standard_normal(len(line))), level=0.95, positive=positive
        )
        for _ in range(runs)
    ]  # fmt: skip


def test_an_unchanged_past_is_kept_whole_in_nearly_all_runs() -> None:
    rng = np.random.default_rng(0)
    whole = [kept(5.0 + rng.standard_normal(500)) == 500 for _ in range(200)]
    assert np.mean(whole) >= 0.97


def test_a_straight_past_is_kept_whole_too() -> None:
    rng = np.random.default_rng(0)
    line = 50.0 + 0.02 * np.arange(500)
    whole = [kept(line + rng.standard_normal(500)) == 500 for _ in range(200)]
    assert np.mean(whole) >= 0.97


@pytest.mark.parametrize("since", [32, 64, 200])
def test_a_clear_change_is_cut_away(since: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x = rng.standard_normal(500) + np.where(np.arange(500) < 500 - since, 0.0, 10.0)
        assert kept(x) <= since


def test_both_averages_may_rise_together_without_a_cut() -> None:
    rng = np.random.default_rng(2)
    scale = np.exp(np.linspace(0, 3, 400))
    window = filled(
        scale * (6 + rng.standard_normal(400)), scale * (2 + 0.3 * rng.standard_normal(400))
    )
    found = estimate(window, level=0.95)
    assert found.steps == 400
    assert found.low < 3.0 < found.high


@pytest.mark.parametrize("slope", [0.0, 0.001, 0.003, 0.01, 0.05])
def test_a_line_is_followed_to_its_end_whether_it_is_seen_or_not(slope: float) -> None:
    found = ends(slope * np.arange(300), 300, seed=3)
    inside = [each.low <= slope * 299.5 <= each.high for each in found]
    assert 0.92 <= np.mean(inside) <= 0.98


def test_while_no_line_is_seen_the_point_is_as_good_as_the_mean() -> None:
    error = np.array([each.value for each in ends(np.full(256, 5.0), 300, seed=4)]) - 5.0
    assert np.sqrt(np.mean(error**2)) < 1.25 / np.sqrt(256)


def test_on_a_steep_line_the_point_is_at_its_end() -> None:
    found = ends(0.05 * np.arange(300), 100, seed=5)
    error = np.array([each.value for each in found]) - 0.05 * 299.5
    assert abs(np.mean(error)) < 0.08
    assert np.std(error) < 2.5 / np.sqrt(300) + 0.1


def test_exponential_growth_is_followed_by_its_logarithm() -> None:
    rng = np.random.default_rng(6)
    growth = np.exp(np.linspace(0.0, 2.3, 300))
    errors, inside = [], 0
    for _ in range(100):
        found = estimate(
            filled(growth * (1 + 0.1 * rng.standard_normal(300)), 1 + 0.1 * rng.standard_normal(300)),
            level=0.95,
        )  # fmt: skip
        errors.append(found.value / growth[-1] - 1)
        inside += found.low <= growth[-1] <= found.high
    assert np.quantile(np.abs(errors), 0.95) < 0.08
    assert inside >= 90


def test_numbers_without_any_noise_have_no_width() -> None:
    found = estimate(filled(np.full(50, 6.0), np.full(50, 2.0)), level=0.95)
    assert found.low == pytest.approx(3.0)
    assert found.high == pytest.approx(3.0)
    line = estimate(filled(np.arange(50.0) + 0.5), level=0.95, positive=False)
    assert line.value == pytest.approx(50.0, rel=1e-3)


def test_estimates_become_rarer_and_never_stop() -> None:
    times = [steps for steps in range(1, 20_000) if due(steps)]
    gaps = np.diff(times)
    assert times[:32] == list(range(1, 33))
    assert all(gap <= at / 16 for gap, at in zip(gaps, times, strict=False) if gap > 1)
    assert gaps.max() == 16
    assert len([at for at in times if at <= 1000]) < 140


ANY = st.tuples(
    st.floats(1e-12, 1e12), st.floats(-1e60, 1e60), st.floats(-1e60, 1e60)
)  # fmt: skip


@given(st.lists(ANY, min_size=2, max_size=80), st.booleans())
@settings(deadline=None, max_examples=150)
def test_whatever_the_steps_the_value_lies_in_its_interval_or_there_is_none(
    steps: list[tuple[float, float, float]], positive: bool
) -> None:
    window = Window()
    for weight, x, y in steps:
        window = push(window, weight, x, y)
    found = estimate(window, level=0.95, positive=positive)
    if found.value == found.value:
        assert found.low <= found.value <= found.high
        assert np.isfinite(found.value)
    else:
        assert found.low != found.low
        assert found.high != found.high
    assert 1 <= found.steps <= len(steps)
