"""Read the columns an audit needs from a csv or parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.errors import DataContractError

from .slices import missing_column

KINDS = (".csv", ".csv.gz", ".parquet")


def read_columns(path: Path, wanted: Sequence[str]) -> Any:
    """Return a frame with the columns ``wanted`` (an edge such as ``age@25`` means its column).

    Raises:
        DataContractError: The file is missing, of another kind, unreadable, or lacks a column.

    Example:
        >>> read_columns(Path("nowhere.csv"), ["y"])
        Traceback (most recent call last):
        workbench.errors.DataContractError: file 'nowhere.csv' does not exist; ...
    """
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise DataContractError(f"file {str(path)!r} {wrong}; allowed: a {_kinds()} file")
    if not path.name.endswith(KINDS):
        raise DataContractError(f"file {str(path)!r} is of an unknown kind; allowed: {_kinds()}")
    try:
        columns = _header(path)
        names = [_existing(name, columns) for name in dict.fromkeys(wanted)]
        return _read(path, list(dict.fromkeys(names)))
    except DataContractError:
        raise
    except (OSError, ValueError, EOFError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataContractError(
            f"file {str(path)!r} cannot be read ({line}); allowed: a valid {_kinds()} file"
        ) from None


def _kinds() -> str:
    return ", ".join(KINDS)


def _header(path: Path) -> list[str]:
    import pandas as pd

    if path.suffix == ".parquet":
        from pyarrow.parquet import read_schema

        return [str(name) for name in read_schema(path).names]
    return [str(name) for name in pd.read_csv(path, nrows=0).columns]


def _read(path: Path, names: list[str]) -> Any:
    import pandas as pd

    if path.suffix == ".parquet":
        return pd.read_parquet(path, columns=names)
    return pd.read_csv(path, usecols=names, low_memory=False)


def _existing(name: str, columns: list[str]) -> str:
    column = name if name in columns else name.rpartition("@")[0]
    if column not in columns:
        raise DataContractError(missing_column("needed", name, columns))
    return column
