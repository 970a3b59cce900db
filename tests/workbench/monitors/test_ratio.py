"""Fieller's interval against its definition, the delta method and the jack-knife."""

from __future__ import annotations

from math import inf, isinf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workbench.monitors.kernel import MEAN
from workbench.monitors.pieces import Piece
from workbench.monitors.ratio import Moments, fieller, moments, weighted
from workbench.monitors.window import Window, push


def _mean(x: np.ndarray, y: np.ndarray) -> Moments:
    window = Window()
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        window = push(window, 1.0, a, b)
    return moments(window.blocks, degree=MEAN)


def _sample(seed: int, n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = 6.0 + noise * rng.standard_normal(n)
    return x, 2.0 + 0.3 * noise * rng.standard_normal(n) - 0.1 * (x - 6.0)


def test_moments_of_steady_steps_are_the_mean_and_its_covariance() -> None:
    x, y = _sample(0, 3000, 1.0)
    found = _mean(x, y)
    covariance = np.cov(x, y) / 3000
    assert found.x == pytest.approx(x.mean())
    assert found.y == pytest.approx(y.mean())
    assert [found.xx, found.xy, found.yy] == pytest.approx(covariance[np.triu_indices(2)], rel=0.1)
    assert found.dof == pytest.approx(2000, rel=0.1)


def test_degrees_of_freedom_are_right_on_average() -> None:
    """Eight pieces of two steps each: 16 neighbours' differences are worth 10.7."""
    found = [_mean(*_sample(seed, 16, 1.0)).dof for seed in range(400)]
    assert np.median(found) == pytest.approx(2 * 16 / 3, rel=0.2)


def test_a_constant_denominator_gives_students_interval_of_the_mean() -> None:
    x, _ = _sample(1, 17, 1.0)
    found = weighted([Piece(17.0, -0.5, 1.0, float(x.mean()), 1.0, 0.04, 0.0, 0.0)], [1.0])
    low, high = fieller(found, 0.95)
    dof = np.floor(4 * 17 / 1.5) / 4  # rounded down to a quarter
    expected = stats.t.interval(0.95, dof, x.mean(), 0.2)
    assert (low, high) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_for_small_errors_it_agrees_with_the_delta_method_and_the_jackknife(seed: int) -> None:
    x, y = _sample(seed, 4096, 0.1)
    found = _mean(x, y)
    low, high = fieller(found, 0.95)
    ratio = x.mean() / y.mean()
    delta = sqrt(float(np.var(x - ratio * y, ddof=1)) / 4096) / y.mean()
    left_out = (x.sum() - x) / (y.sum() - y)
    jackknife = sqrt(4095 / 4096 * float(((left_out - left_out.mean()) ** 2).sum()))
    half = (high - low) / 2 / stats.t.ppf(0.975, found.dof)
    assert half == pytest.approx(delta, rel=0.06)
    assert half == pytest.approx(jackknife, rel=0.06)


@given(
    x=st.floats(-10, 10), y=st.floats(0.01, 10), xx=st.floats(1e-6, 10), yy=st.floats(1e-6, 10),
    correlation=st.floats(-0.99, 0.99), dof=st.floats(1, 60),
)  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_the_interval_holds_exactly_the_ratios_that_the_test_accepts(
    x: float, y: float, xx: float, yy: float, correlation: float, dof: float
) -> None:
    from workbench.monitors.student import t_quantile

    xy = correlation * sqrt(xx * yy)
    low, high = fieller(Moments(x, y, xx, xy, yy, dof), 0.9)
    t = t_quantile(0.95, dof)
    assert low <= x / y * (1 + 1e-9 * np.sign(x)) + 1e-12
    assert high >= x / y * (1 - 1e-9 * np.sign(x)) - 1e-12
    for end in (low, high):
        if not isinf(end):
            excess = (x - end * y) ** 2 - t * t * (xx - 2 * end * xy + end * end * yy)
            size = (abs(x) + abs(end) * y) ** 2 + t * t * (xx + end * end * yy)
            assert abs(excess) <= 1e-6 * size


def test_a_denominator_that_may_be_zero_leaves_the_upper_end_open() -> None:
    low, high = fieller(Moments(6.0, 2.0, 0.01, 0.0, 4.0, 20.0), 0.95)
    assert 0 < low < 3
    assert high == inf


def test_a_denominator_that_is_surely_negative_gives_no_interval() -> None:
    assert fieller(Moments(6.0, -2.0, 0.01, 0.0, 0.01, 20.0), 0.95) == (-inf, inf)


def test_a_denominator_below_zero_within_its_error_still_gives_a_low_end() -> None:
    low, high = fieller(Moments(6.0, -0.5, 0.01, 0.0, 1.0, 20.0), 0.95)
    assert 1.0 < low < 6.0
    assert high == inf


@given(st.integers(0, 1000), st.sampled_from([1e-60, 1e-20, 1.0, 1e20, 1e60]))
@settings(deadline=None, max_examples=40)
def test_the_interval_scales_with_the_numbers(seed: int, scale: float) -> None:
    x, y = _sample(seed, 12, 2.0)
    y = np.abs(y)
    plain = fieller(_mean(x, y), 0.95)
    scaled = fieller(_mean(scale * x, scale * y), 0.95)
    assert scaled == pytest.approx(plain, rel=1e-6)
