"""Student's quantiles against scipy's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workbench.monitors.student import t_quantile


@pytest.mark.parametrize("dof", [0.5, 1, 1.5, 2, 3, 7.25, 15.75, 16, 64, 1024, 2.0**16])
@pytest.mark.parametrize("probability", [0.55, 0.9, 0.975, 0.995, 0.9999, 0.025, 0.2])
def test_quantile_is_scipys_on_the_grid_of_degrees_of_freedom(
    dof: float, probability: float
) -> None:
    assert t_quantile(probability, dof) == pytest.approx(stats.t.ppf(probability, dof), rel=1e-9)


@given(dof=st.floats(0.5, 1e7), probability=st.floats(0.9, 0.999))
@settings(deadline=None, max_examples=100)
def test_rounding_the_degrees_of_freedom_never_narrows_an_interval(
    dof: float, probability: float
) -> None:
    ours, truth = t_quantile(probability, dof), float(stats.t.ppf(probability, dof))
    assert ours >= truth * (1 - 1e-4)
    assert dof < 4 or ours <= truth * 1.08


@given(dof=st.floats(0.5, 1e6), probability=st.floats(0.001, 0.999))
@settings(deadline=None, max_examples=100)
def test_the_quantile_is_odd_around_one_half(dof: float, probability: float) -> None:
    left, right = t_quantile(probability, dof), t_quantile(1.0 - probability, dof)
    assert left == pytest.approx(-right, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("probability", "dof"), [(0.0, 3), (1.0, 3), (0.9, 0.0), (0.9, -1)])
def test_arguments_out_of_range_are_refused(probability: float, dof: float) -> None:
    with pytest.raises(ValueError, match="allowed"):
        t_quantile(probability, dof)
