"""What a prepare call may return, how it is divided, and what bad data get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import DataContractError
from workbench.lifecycle import Prepared, data, split_rows


def prepared(rows: int = 20, **changes: Any) -> Prepared:
    given_ = Prepared(
        table=pd.DataFrame({"a": range(rows)}),
        inputs=np.ones((rows, 3)),
        targets=np.arange(rows) % 2,
    )
    return replace(given_, **changes)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(2, 60), min_size=2, max_size=5),
    test=st.floats(0.05, 0.5),
    held_back=st.floats(0.0, 0.3),
    seed=st.integers(0, 2**31),
)
def test_every_row_is_in_one_split_and_every_class_in_train_and_test(
    sizes: list[int], test: float, held_back: float, seed: int
) -> None:
    targets = np.repeat(np.arange(len(sizes)), sizes)
    split = split_rows(targets, test=test, held_back=held_back, seed=seed)
    assert set(split) <= {"train", "test", "held_back"}
    for group, size in enumerate(sizes):
        of_class = split[targets == group]
        assert (of_class == "train").any()
        assert (of_class == "test").sum() == max(round(size * test), 1)
    assert (split == split_rows(targets, test=test, held_back=held_back, seed=seed)).all()


def test_another_seed_divides_otherwise() -> None:
    targets = np.arange(200) % 2
    assert (split_rows(targets, seed=1) != split_rows(targets, seed=2)).any()


def test_types_are_settled() -> None:
    settled = data.checked(prepared(inputs=np.ones((20, 3), dtype=np.int8)), "p:load")
    assert settled.inputs.dtype == np.int64
    assert data.checked(prepared(), "p:load").inputs.dtype == np.float32
    numbers = data.checked(prepared(targets=np.linspace(0, 1, 20)), "p:load")
    assert numbers.targets.dtype == np.float32
    assert numbers.classes == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: prepared(0), "no rows"),
        (lambda: prepared(targets=np.zeros(20, int)), "one class only (0 in all 20 rows)"),
        (lambda: prepared(targets=np.full(20, np.nan)), "NaN or infinite labels in 20 of 20 rows"),
        (lambda: prepared(inputs=np.full((20, 3), np.nan)), "NaN or infinite inputs in 20"),
        (lambda: prepared(inputs=np.ones((19, 3))), "table 20, inputs 19, targets 20 rows"),
        (lambda: prepared(targets=np.ones((20, 1), int)), "shape (20, 1); allowed: (n,)"),
        (lambda: prepared(inputs=np.full((20, 3), "a")), "floats or integers"),
        (lambda: prepared(targets=np.array(["a", "b"] * 10)), "integer classes"),
        (lambda: prepared(targets=np.arange(20) % 2 - 1), "class -1"),
        (lambda: prepared(split=np.full(20, "dev")), "'dev'; allowed: train, test, held_back"),
        (lambda: prepared(split=np.full(20, "train")), "no row into the test split"),
        (
            lambda: prepared(split=np.array(["train", "test"] * 10)),
            "no row of class 1 into the train split",
        ),
        (lambda: 42, "returned a int"),
    ],
)
def test_bad_data_get_one_clear_line(wrong: Any, said: str) -> None:
    with pytest.raises(DataContractError) as caught:
        data.checked(wrong(), "p:load")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    given_ = data.checked(prepared(split=split_rows(np.arange(20) % 2)), "p:load")
    digest = data.save(given_, tmp_path)
    loaded = data.load(tmp_path)
    assert data.digest(loaded) == digest
    assert len(np.load(tmp_path / "train_inputs.npy")) == len(given_.rows("train"))


@settings(deadline=None, max_examples=30)
@given(row=st.integers(0, 19), column=st.sampled_from(["table", "inputs", "targets"]))
def test_the_digest_sees_every_value(row: int, column: str) -> None:
    one = prepared()
    changed = prepared()
    if column == "table":
        changed.table.loc[row, "a"] = -7
    elif column == "inputs":
        changed.inputs[row, 1] = 2.0
    else:
        changed.targets[row] = 5
    assert data.digest(one) != data.digest(changed)
    assert data.digest(one) == data.digest(prepared())
