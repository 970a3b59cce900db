"""The learning-rate rules: their values, their algebra, and what a wrong name gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ConfigurationError
from workbench.learning_rate import RULES, learning_rate_factor

batch_sizes = st.integers(1, 1_000_000)


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("linear", 9.0), ("square_root", 3.0)])
def test_a_batch_nine_times_as_large_gives_the_factor_of_the_rule(rule: str, factor: float) -> None:
    assert learning_rate_factor(rule, 576, 64) == factor


@given(rule=st.sampled_from(RULES), batch_size=batch_sizes)
def test_the_first_batch_size_leaves_the_rate_exactly_alone(rule: str, batch_size: int) -> None:
    assert learning_rate_factor(rule, batch_size, batch_size) == 1.0


@given(rule=st.sampled_from(RULES), sizes=st.tuples(batch_sizes, batch_sizes, batch_sizes))
def test_factors_of_two_changes_multiply_to_that_of_both(
    rule: str, sizes: tuple[int, int, int]
) -> None:
    first, second, third = sizes
    both = learning_rate_factor(rule, second, first) * learning_rate_factor(rule, third, second)
    assert learning_rate_factor(rule, third, first) == pytest.approx(both)


@given(rule=st.sampled_from(RULES), sizes=st.tuples(batch_sizes, batch_sizes))
def test_a_larger_batch_never_lowers_the_rate(rule: str, sizes: tuple[int, int]) -> None:
    small, large = sorted(sizes)
    assert learning_rate_factor(rule, large, 64) >= learning_rate_factor(rule, small, 64) > 0.0


def test_an_unknown_rule_is_named_with_those_allowed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        learning_rate_factor("cubic", 128, 64)
    assert str(caught.value) == (
        "learning_rate_rule is 'cubic'; allowed: none, linear, square_root; 'none' keeps the rate"
    )
