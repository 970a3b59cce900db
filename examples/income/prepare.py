"""Census people as numbers and category codes, with the table that the audit groups by."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd

from workbench.errors import DataContractError
from workbench.lifecycle import Prepared

LABEL = "PINCP"
NUMBERS = {"AGEP": 100.0, "SCHL": 24.0, "WKHP": 100.0}
CATEGORIES = ("COW", "MAR", "OCCP", "POBP", "RELP", "SEX", "RAC1P")
TABLES = {"COW": 32, "MAR": 16, "OCCP": 1024, "POBP": 256, "RELP": 64, "SEX": 4, "RAC1P": 16}
"""Rows of the embedding table of each category; code 0 is kept for values not seen in training."""

_ADULT = {
    "age": "AGEP", "workclass": "COW", "education-num": "SCHL", "marital-status": "MAR",
    "occupation": "OCCP", "native-country": "POBP", "relationship": "RELP",
    "hours-per-week": "WKHP", "sex": "SEX", "race": "RAC1P",
}  # fmt: skip


def load(*, path: str | None = None, protected_inputs: bool = False, seed: int = 0) -> Prepared:
    """Return the people of an ACSIncome parquet file, or of the Adult table without a file.

    Inputs are the numbers, scaled by fixed constants, then the category codes, all float32: shape
    ``(n, 3 + categories)``. Codes are numbered by the training rows alone.

    Args:
        path: Parquet file with the columns of ACSIncome; ``None`` fetches Adult from OpenML.
        protected_inputs: Whether the model may see SEX and RAC1P; the audit always does.
        seed: Of the split.

    Raises:
        DataContractError: A column is missing, the file is missing, or OpenML cannot be reached.
    """
    people = _from_file(Path(path)) if path else _from_openml()
    missing = [name for name in (*NUMBERS, *CATEGORIES, LABEL) if name not in people.columns]
    if missing:
        raise DataContractError(
            f"column {missing[0]} is missing in {path}; needed: "
            f"{', '.join((*NUMBERS, *CATEGORIES, LABEL))}"
        )
    if people[LABEL].isna().any():
        count = int(people[LABEL].isna().sum())
        raise DataContractError(
            f"label {LABEL} is empty in {count:,} of {len(people):,} rows; drop these rows"
        )
    targets = people[LABEL].to_numpy(dtype=np.int64)
    split = _split(targets, seed)
    seen = [name for name in CATEGORIES if protected_inputs or name not in ("SEX", "RAC1P")]
    columns = [people[name].to_numpy(dtype=np.float32) / scale for name, scale in NUMBERS.items()]
    columns += [_codes(people[name], split == "train", TABLES[name]) for name in seen]
    table = people[[*NUMBERS, *CATEGORIES, LABEL]]
    return Prepared(table=table, inputs=np.stack(columns, axis=1), targets=targets, split=split)


def _split(targets: np.ndarray, seed: int) -> np.ndarray:
    from workbench.lifecycle import split_rows

    return split_rows(targets, test=0.2, held_back=0.02, seed=seed)


def _codes(column: pd.Series, training: np.ndarray, table_rows: int) -> np.ndarray:
    known = pd.Index(column[training].dropna().unique()).sort_values()[: table_rows - 1]
    codes: np.ndarray = known.get_indexer(column) + 1  # -1, not known, becomes 0
    return codes.astype(np.float32)


def _from_file(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise DataContractError(f"there is no file {path}; give an ACSIncome parquet file")
    try:
        people: pd.DataFrame = pd.read_parquet(path)
        return people
    except (OSError, ValueError) as error:
        raise DataContractError(f"{path} is no parquet file ({error}); give one") from error


def _from_openml() -> pd.DataFrame:
    from sklearn.datasets import fetch_openml

    try:
        people: pd.DataFrame = fetch_openml(data_id=1590, as_frame=True, parser="auto").frame
    except (URLError, OSError, ValueError) as error:
        raise DataContractError(
            f"the Adult table cannot be fetched from OpenML ({_first_line(error)}); connect to the "
            "network, or give an ACSIncome parquet file: prepare.path=FILE"
        ) from error
    people = people.rename(columns=_ADULT)
    people[LABEL] = people["class"].astype(str).str.strip().isin([">50K", ">50K."]).astype("int64")
    people["SEX"] = people["SEX"].astype(str).map({"Male": 1, "Female": 2})
    for name in set(CATEGORIES) - {"SEX"}:
        people[name] = people[name].astype("str")
    return people


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
