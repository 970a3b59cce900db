"""The audit calls codes by the names that the pipeline gives them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from workbench.lifecycle.pipeline import AuditSettings
from workbench.lifecycle.stages.audit import named


@pytest.mark.parametrize("codes", [[1, 2, 9], [1.0, 2.0, 9.0], ["1", "2", "9"]])
def test_codes_of_any_type_get_their_names_and_unknown_ones_stay(codes: list[Any]) -> None:
    table = pd.DataFrame({"SEX": codes, "AGE": [30, 40, 50]})
    shown = named(table, {"SEX": {1: "male", "2": "female"}})
    assert shown["SEX"].tolist() == ["male", "female", codes[2]]
    assert shown["AGE"].tolist() == [30, 40, 50]
    assert table["SEX"].tolist() == codes


def test_missing_values_stay_missing() -> None:
    shown = named(pd.DataFrame({"SEX": [1.0, None, 2.0]}), {"SEX": {1: "male", 2: "female"}})
    assert shown["SEX"].isna().tolist() == [False, True, False]
    assert shown["SEX"].tolist()[::2] == ["male", "female"]


def test_no_names_change_nothing() -> None:
    table = pd.DataFrame({"SEX": [1, 2]})
    pd.testing.assert_frame_equal(named(table, {}), table)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"AGE": {1: "one"}}, "names has the attribute AGE; allowed: SEX"),
        ({"SEX": {1: "same", 2: "same"}}, "two codes one name"),
    ],
)
def test_impossible_names_are_refused(names: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AuditSettings(attributes=["SEX"], names=names)
