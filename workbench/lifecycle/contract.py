"""Check a table against the columns a pipeline names, by pandera, and say the first break clearly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import DataContractError

from .pipeline import ColumnSettings, ContractSettings

if TYPE_CHECKING:
    import pandas as pd


def check_contract(table: pd.DataFrame, contract: ContractSettings) -> int:
    """Return how many checks ``table`` passed.

    Raises:
        DataContractError: A column is missing or breaks its contract, or there are too few rows.

    Example:
        >>> import pandas as pd
        >>> contract = ContractSettings(columns={"age": ColumnSettings(type="int", min=0)})
        >>> check_contract(pd.DataFrame({"age": [3, 70]}), contract)
        4
        >>> check_contract(pd.DataFrame({"age": [3, -1]}), contract)
        Traceback (most recent call last):
        workbench.errors.DataContractError: column age breaks its contract: 1 of 2 rows below
        0 (the first: -1 in row 1)
    """
    if len(table) < contract.min_rows:
        raise DataContractError(
            f"the table has {len(table):,} rows; the contract asks for {contract.min_rows:,} or more"
        )
    missing = [name for name in contract.columns if name not in table.columns]
    if missing:
        raise DataContractError(
            f"column {missing[0]} is missing; the table has: {', '.join(map(str, table.columns))}"
        )
    extra = [str(name) for name in table.columns if name not in contract.columns]
    if contract.only_these_columns and extra:
        raise DataContractError(
            f"column {extra[0]} is not in the contract, which allows only: "
            f"{', '.join(contract.columns)}"
        )
    passed = 1
    for name, column in contract.columns.items():
        passed += _check_column(table[name], name, column)
    return passed


def _check_column(values: pd.Series[Any], name: str, column: ColumnSettings) -> int:
    import pandera.pandas as pandera

    checks = _checks(column)
    schema = pandera.Column(
        checks=[check for _, check in checks],
        nullable=column.nullable,
        unique=column.unique,
        required=True,
        name=name,
    )
    _check_type(values, name, column)
    try:
        pandera.DataFrameSchema({name: schema}).validate(values.to_frame(name), lazy=True)
    except pandera.errors.SchemaErrors as errors:
        raise DataContractError(_line(name, values, column, errors)) from None
    return 1 + len(checks) + (column.type is not None) + column.unique


def _checks(column: ColumnSettings) -> list[tuple[str, Any]]:
    import pandera.pandas as pandera

    checks = []
    if column.min is not None:
        checks.append((f"below {column.min:g}", pandera.Check.ge(column.min)))
    if column.max is not None:
        checks.append((f"above {column.max:g}", pandera.Check.le(column.max)))
    if column.values is not None:
        allowed = ", ".join(map(str, column.values))
        checks.append((f"outside {allowed}", pandera.Check.isin(column.values)))
    return checks


def _check_type(values: pd.Series[Any], name: str, column: ColumnSettings) -> None:
    import pandas as pd

    present = values.dropna()
    kinds = {
        "int": pd.api.types.is_integer_dtype(values)
        or (pd.api.types.is_float_dtype(values) and bool((present % 1 == 0).all())),
        "float": pd.api.types.is_float_dtype(values),
        "number": pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values),
        "str": pd.api.types.is_string_dtype(values),
        "bool": pd.api.types.is_bool_dtype(values),
    }
    numeric = kinds["number"]
    if column.type is not None and not kinds[column.type]:
        raise DataContractError(
            f"column {name} holds {values.dtype}; the contract asks for {column.type}"
        )
    if (column.min is not None or column.max is not None) and not numeric:
        raise DataContractError(
            f"column {name} holds {values.dtype}; min and max need a column of numbers"
        )


def _line(name: str, values: pd.Series[Any], column: ColumnSettings, errors: Any) -> str:
    cases = errors.failure_cases
    check = str(cases["check"].iloc[0])
    of_check = cases[cases["check"] == cases["check"].iloc[0]]
    if check.startswith("not_nullable"):
        what = "empty"
    elif "unique" in check:
        what = "repeated"
    else:
        index = int(of_check["check_number"].iloc[0])
        what = _checks(column)[index][0]
    first = of_check.iloc[0]
    return (
        f"column {name} breaks its contract: {len(of_check):,} of {len(values):,} rows {what} "
        f"(the first: {first['failure_case']} in row {first['index']})"
    )
