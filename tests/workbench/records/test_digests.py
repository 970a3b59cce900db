"""Equal contents have equal digests, and different ones different digests."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench.signal
from workbench.errors import ConfigurationError, DataContractError
from workbench.records import (
    array_digest,
    bytes_digest,
    file_digest,
    folder_digest,
    json_digest,
    path_digest,
    source_digest,
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(), _json, max_size=5), st.randoms())
def test_the_order_of_keys_does_not_count(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)

    assert json_digest(dict(items)) == json_digest(value)


@settings(deadline=None, max_examples=60)
@given(_json, _json)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    assert (json_digest(one) == json_digest(other)) == (repr(one) == repr(other)) or one == other


def test_what_is_not_json_has_no_digest() -> None:
    with pytest.raises(ConfigurationError, match="no digest of set"):
        json_digest({1, 2})


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_bytes_and_files_agree(
    tmp_path_factory: pytest.TempPathFactory, one: bytes, other: bytes
) -> None:
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(one)

    assert file_digest(path) == bytes_digest(one) == path_digest(path)
    assert (bytes_digest(one) == bytes_digest(other)) == (one == other)


def test_a_folder_counts_names_and_contents_but_no_times(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "x").write_text("1")
        (tmp_path / folder / "y").write_text("2")
    os.utime(tmp_path / "a" / "y", (1, 1))
    same = folder_digest(tmp_path / "a")

    assert same == folder_digest(tmp_path / "b") == path_digest(tmp_path / "b")
    (tmp_path / "b" / "y").rename(tmp_path / "b" / "z")
    assert folder_digest(tmp_path / "b") != same
    (tmp_path / "a" / "y").write_text("3")
    assert folder_digest(tmp_path / "a") != same


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="cannot be read: No such file"):
        path_digest(tmp_path / "none")


def test_an_array_counts_type_shape_and_values_but_no_layout() -> None:
    grid = np.arange(6.0).reshape(2, 3)
    same = array_digest(grid)

    assert array_digest(np.asfortranarray(grid)) == same
    assert array_digest(grid[::1]) == array_digest(grid.astype(">f8")) == same
    for other in (grid.reshape(3, 2), grid.astype("float32"), grid + 1, grid.ravel()):
        assert array_digest(other) != same
    assert array_digest(np.array(["a", "bc"], dtype=object)) != array_digest(
        np.array(["ab", "c"], dtype=object)
    )
    assert array_digest(np.float64(1.0)) == array_digest(np.array(1.0))


def test_a_function_counts_as_its_file(tmp_path: Path) -> None:
    here = file_digest(__file__)

    @functools.wraps(test_bytes_and_files_agree)
    def wrapped() -> None: ...

    class Callee:
        def __call__(self) -> None: ...

    assert source_digest(test_a_missing_file_is_a_clear_error) == here
    assert source_digest(functools.partial(test_a_missing_file_is_a_clear_error, tmp_path)) == here
    assert source_digest(wrapped) == here
    assert source_digest("workbench.signal") == file_digest(workbench.signal.__file__)


@pytest.mark.parametrize("function", [len, eval("lambda: 0"), "no_such_module"])
def test_what_is_written_in_no_file_is_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not written in a file"):
        source_digest(function)
