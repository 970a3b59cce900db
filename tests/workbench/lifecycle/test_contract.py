"""Columns against their contract."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from workbench.errors import DataContractError
from workbench.lifecycle.contract import check_contract
from workbench.lifecycle.pipeline import ContractSettings

TABLE = pd.DataFrame(
    {
        "age": [20, 30, 40],
        "name": pd.Series(["x", "y", None], dtype="str"),
        "share": [0.5, None, 1.5],
        "yes": [True, False, True],
    }
)


def contract(**settings: Any) -> ContractSettings:
    return ContractSettings.model_validate(settings)


@pytest.mark.parametrize(
    ("column", "rules", "said"),
    [
        (
            "age",
            {"max": 35},
            "column age breaks its contract: 1 of 3 rows above 35 (the first: 40 in row 2)",
        ),
        ("age", {"min": 25}, "1 of 3 rows below 25"),
        ("age", {"values": [20, 30]}, "outside 20, 30"),
        ("age", {"type": "str"}, "holds int64; the contract asks for str"),
        ("age", {"type": "float"}, "asks for float"),
        ("name", {"type": "str"}, "1 of 3 rows empty"),
        ("name", {"min": 0}, "min and max need a column of numbers"),
        ("share", {"type": "int", "nullable": True}, "asks for int"),
        ("height", {}, "column height is missing; the table has: age, name, share, yes"),
    ],
)
def test_a_broken_column_gets_one_line_with_its_first_row(
    column: str, rules: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataContractError) as caught:
        check_contract(TABLE, contract(columns={column: rules}))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repeated_values_in_a_unique_column_are_found() -> None:
    with pytest.raises(DataContractError, match="2 of 3 rows repeated"):
        check_contract(pd.DataFrame({"id": [1, 1, 2]}), contract(columns={"id": {"unique": True}}))


def test_what_keeps_the_contract_passes() -> None:
    rules = {
        "age": {"type": "int", "min": 20, "max": 40},
        "name": {"type": "str", "nullable": True, "values": ["x", "y"]},
        "share": {"type": "float", "nullable": True, "min": 0.5},
        "yes": {"type": "bool"},
    }
    assert check_contract(TABLE, contract(columns=rules, only_these_columns=True)) > 8


def test_too_few_rows_and_unwanted_columns_are_refused() -> None:
    with pytest.raises(DataContractError, match="asks for 4 or more"):
        check_contract(TABLE, contract(min_rows=4))
    with pytest.raises(DataContractError, match="name is not in the contract"):
        check_contract(TABLE, contract(columns={"age": {}}, only_these_columns=True))
