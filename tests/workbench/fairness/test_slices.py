"""Groups: missing values, mixed types, categories, bins, intersections."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigurationError, DataContractError
from workbench.fairness.levels import names_of
from workbench.fairness.slices import grouping, intersections

ANYTHING = st.one_of(
    st.none(), st.integers(-3, 3), st.text("ab1", max_size=2), st.just("missing"), st.floats(0, 1)
)


@given(left=st.lists(ANYTHING, min_size=1, max_size=60), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_group_and_equal_values_share_it(left: list[object], seed: int) -> None:
    right = np.random.default_rng(seed).choice(["u", "v"], len(left)).tolist()
    table = {"a": pd.Series(left, dtype=object), "b": right}
    both = [grouping(table, "a"), grouping(table, "b")]
    for found in (*both, *intersections(both)):
        assert len(found.codes) == len(left)
        assert set(found.codes.tolist()) == set(range(len(found.groups)))
        assert len(set(found.names)) == len(found.names)
    crossed = intersections(both)[0]
    for i, value in enumerate(left):
        for j, other in enumerate(left):
            same = value == other or (value is None and other is None)
            if both[0].rule == "":
                assert (both[0].codes[i] == both[0].codes[j]) == same
                assert (crossed.codes[i] == crossed.codes[j]) == (same and right[i] == right[j])


def test_missing_values_of_every_kind_are_one_group_apart_from_the_word() -> None:
    column = pd.Series([None, float("nan"), pd.NA, pd.NaT, "missing", "a"], dtype=object)
    found = grouping({"a": column}, "a")
    assert found.names == ("a", "'missing'", "missing")
    assert found.codes.tolist() == [2, 2, 2, 2, 1, 0]


def test_numbers_that_became_floats_by_a_missing_value_keep_their_names() -> None:
    assert grouping({"a": pd.Series([1, 2, None])}, "a").names == ("1", "2", "missing")


def test_mixed_numbers_and_text_in_two_attributes_intersect() -> None:
    table = {"a": [1, "1", 2], "b": ["x", 0, "x"]}
    (both,) = intersections([grouping(table, "a"), grouping(table, "b")])
    assert set(both.names) == {"1 × x", "'1' × 0", "2 × x"}


def test_three_attributes_of_sixty_levels_give_only_the_observed_slices() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.integers(0, 60, 400).astype(str) for name in "abc"})
    found = intersections([grouping(table, name) for name in "abc"])
    assert [item.attribute for item in found] == ["a × b", "a × c", "b × c", "a × b × c"]
    assert len(found[-1].groups) == len(table.drop_duplicates())


def test_a_category_that_no_row_has_is_named_and_the_given_order_is_kept() -> None:
    column = pd.Series(pd.Categorical(["low", "high", None], ["low", "mid", "high"], ordered=True))
    found = grouping({"a": column}, "a")
    assert (found.names, found.unseen) == (("low", "high", "missing"), ("mid",))
    assert found.codes.tolist() == [0, 1, 2]


@given(seed=st.integers(0, 999), missing=st.booleans())
@settings(max_examples=30, deadline=None)
def test_many_numbers_are_cut_at_quartiles_that_each_hold_about_a_quarter(
    seed: int, missing: bool
) -> None:
    values = np.random.default_rng(seed).normal(size=400)
    if missing:
        values[:40] = np.nan
    found = grouping({"a": values}, "a")
    known = found.codes[~np.isnan(values)]
    assert np.bincount(known).tolist() == [len(known) // 4] * 4
    assert len(found.groups) == 4 + missing
    assert "more than 20 distinct numbers" in found.rule


def test_twenty_numbers_are_levels_and_a_heavy_tie_makes_fewer_bins() -> None:
    assert len(grouping({"a": np.arange(20)}, "a").groups) == 20
    tied = np.concatenate([np.zeros(900), np.arange(1, 101)])
    assert grouping({"a": tied}, "a").names == ("[0, 0]", "(0, 100]")


def test_given_edges_cut_and_an_edge_outside_the_data_is_named_unseen() -> None:
    found = grouping({"age": [19, 25, 26]}, "age@25,60")
    assert found.names == ("≤ 25", "25 < to ≤ 60")
    assert found.unseen == ("> 60",)


@pytest.mark.parametrize("text", ["age@", "age@x", "age@3,2", "age@nan", "age@1,1"])
def test_edges_that_are_no_increasing_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write age@25"):
        grouping({"age": [1, 2]}, text)


def test_edges_on_text_and_levels_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(DataContractError, match="holds text"):
        grouping({"a": ["x", "y"]}, "a@1")
    with pytest.raises(DataContractError, match="no levels"):
        grouping({"a": pd.Series([[1], [2]])}, "a")


@given(values=st.lists(st.one_of(st.integers(), st.text(), st.booleans()), unique=True))
@settings(max_examples=60, deadline=None)
def test_names_are_all_different_and_never_the_word_for_missing(values: list[object]) -> None:
    names = names_of(tuple(values))
    assert len(set(names)) == len(values)
    assert "missing" not in names
