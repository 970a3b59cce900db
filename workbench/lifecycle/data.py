"""What a prepare call returns: a table, inputs and targets, row by row, and which split each is in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import DataContractError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SPLITS = ("train", "test", "held_back")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Data ready for training; row ``i`` of every member is the same sample.

    Attributes:
        table: One row a sample: what the contract checks and the audit groups by.
        inputs: What the model takes, shape ``(n, ...)``; floats are kept as float32, integers
            and booleans as int64.
        targets: Shape ``(n,)``; integers, booleans and strings are classes, floats are numbers.
        split: ``train``, ``test`` or ``held_back`` for each row, shape ``(n,)``; ``None`` leaves
            the division to the pipeline's ``prepare.split``.

    Example:
        >>> import numpy as np, pandas as pd
        >>> Prepared(table=pd.DataFrame({"a": [1, 2]}), inputs=np.eye(2), targets=np.array([0, 1]),
        ...          split=None).targets.shape
        (2,)
    """

    table: pd.DataFrame
    inputs: np.ndarray
    targets: np.ndarray
    split: np.ndarray | None = None

    @property
    def classes(self) -> int:
        """Number of classes; 0 for regression."""
        return int(self.targets.max()) + 1 if self.targets.dtype.kind == "i" else 0

    def rows(self, split: str) -> np.ndarray:
        """Return the indices of the rows in ``split``, in order."""
        import numpy as np

        assert self.split is not None
        return np.flatnonzero(self.split == split)


def split_rows(
    targets: np.ndarray,
    *,
    test: float = 0.2,
    held_back: float = 0.02,
    seed: int = 0,
    stratify: bool = True,
) -> np.ndarray:
    """Return ``train``, ``test`` or ``held_back`` for each row, by a seeded permutation.

    Classes (integer targets) keep their shares in every split when ``stratify``: each class of
    ``m`` rows gives ``round(m test)`` rows to the test split, at least one when it has two or more.

    Args:
        targets: Shape ``(n,)``.
        test: Share of the test split, above 0 and below 1.
        held_back: Share of the held-back rows, from 0.
        seed: Of the permutation.
        stratify: Whether to divide class by class.

    Example:
        >>> import numpy as np
        >>> split = split_rows(np.array([0, 1] * 50), test=0.2, held_back=0.1)
        >>> [int((split == name).sum()) for name in SPLITS]
        [70, 20, 10]
    """
    import numpy as np

    random = np.random.default_rng(seed)
    split = np.full(len(targets), "train", dtype="U9")
    groups = np.unique(targets) if stratify and targets.dtype.kind in "iub" else [None]
    for group in groups:
        rows = np.arange(len(targets)) if group is None else np.flatnonzero(targets == group)
        rows = random.permutation(rows)
        tested = max(round(len(rows) * test), 1) if len(rows) > 1 else 0
        kept = min(round(len(rows) * held_back), max(len(rows) - tested - 1, 0))
        split[rows[:tested]] = "test"
        split[rows[tested : tested + kept]] = "held_back"
    return split


def checked(prepared: Any, call: str) -> Prepared:
    """Return what ``call`` returned with settled dtypes, or say what is wrong with it.

    Raises:
        DataContractError: It is no ``Prepared``; it is empty; lengths differ; a target or input
            is NaN or infinite; there is only one class; a split's name is unknown, or there is no
            row to train on.

    Example:
        >>> checked({}, "prepare:load")
        Traceback (most recent call last):
        workbench.errors.DataContractError: prepare:load returned a dict; return
        workbench.lifecycle.Prepared(table=..., inputs=..., targets=...)
    """
    if not isinstance(prepared, Prepared):
        raise DataContractError(
            f"{call} returned a {type(prepared).__name__}; return "
            "workbench.lifecycle.Prepared(table=..., inputs=..., targets=...)"
        )
    _check_shapes(prepared, call)
    settled = replace(
        prepared,
        inputs=_settled_inputs(prepared.inputs, call),
        targets=_settled_targets(prepared.targets, call),
    )
    _check_split(settled, call)
    return settled


def save(prepared: Prepared, folder: Path) -> str:
    """Write the data and the training rows into ``folder``; return the digest of their content.

    Files: ``table.parquet``, ``inputs.npy``, ``targets.npy``, ``split.npy``,
    ``train_inputs.npy``, ``train_targets.npy``.
    """
    import numpy as np

    assert prepared.split is not None
    prepared.table.to_parquet(folder / "table.parquet", index=False)
    np.save(folder / "inputs.npy", prepared.inputs)
    np.save(folder / "targets.npy", prepared.targets)
    np.save(folder / "split.npy", prepared.split)
    rows = prepared.rows("train")
    np.save(folder / "train_inputs.npy", prepared.inputs[rows])
    np.save(folder / "train_targets.npy", prepared.targets[rows])
    return digest(prepared)


def load(folder: Path) -> Prepared:
    """Return the data that :func:`save` wrote."""
    import numpy as np
    import pandas as pd

    return Prepared(
        table=pd.read_parquet(folder / "table.parquet"),
        inputs=np.load(folder / "inputs.npy", mmap_mode="r"),
        targets=np.load(folder / "targets.npy"),
        split=np.load(folder / "split.npy"),
    )


def digest(prepared: Prepared) -> str:
    """Return a SHA-256 over every value, dtype, column name and the split.

    Example:
        >>> import numpy as np, pandas as pd
        >>> one = Prepared(table=pd.DataFrame({"a": [1]}), inputs=np.eye(1), targets=np.zeros(1))
        >>> two = Prepared(table=pd.DataFrame({"a": [2]}), inputs=np.eye(1), targets=np.zeros(1))
        >>> digest(one) == digest(one), digest(one) == digest(two)
        (True, False)
    """
    import numpy as np
    import pandas as pd

    total = hashlib.sha256()
    for name in prepared.table.columns:
        column = prepared.table[name]
        total.update(f"{name}\0{column.dtype}\0".encode())
        total.update(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes())
    for array in (prepared.inputs, prepared.targets, prepared.split):
        if array is not None:
            total.update(f"{array.dtype}\0{array.shape}\0".encode())
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _check_shapes(prepared: Prepared, call: str) -> None:
    rows = len(prepared.table)
    if rows == 0:
        raise DataContractError(f"{call} returned no rows; give data that is not empty")
    lengths = {"table": rows, "inputs": len(prepared.inputs), "targets": len(prepared.targets)}
    if prepared.split is not None:
        lengths["split"] = len(prepared.split)
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise DataContractError(f"{call} returned members of different lengths: {said} rows")
    if prepared.targets.ndim != 1:
        raise DataContractError(
            f"{call} returned targets of shape {prepared.targets.shape}; allowed: (n,)"
        )


def _settled_inputs(inputs: np.ndarray, call: str) -> np.ndarray:
    import numpy as np

    if inputs.dtype.kind in "iub":
        return np.ascontiguousarray(inputs, dtype=np.int64)
    if inputs.dtype.kind != "f":
        raise DataContractError(
            f"{call} returned inputs of type {inputs.dtype}; allowed: floats or integers "
            "(encode texts and dates as numbers)"
        )
    bad = ~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1)
    if bad.any():
        raise DataContractError(
            f"{call} returned NaN or infinite inputs in {int(bad.sum()):,} of {len(inputs):,} rows "
            f"(the first: row {int(bad.argmax())}); fill them in or drop the rows"
        )
    return np.ascontiguousarray(inputs, dtype=np.float32)


def _settled_targets(targets: np.ndarray, call: str) -> np.ndarray:
    import numpy as np

    if targets.dtype.kind == "f":
        bad = ~np.isfinite(targets)
        if bad.any():
            raise DataContractError(
                f"{call} returned NaN or infinite labels in {int(bad.sum()):,} of "
                f"{len(targets):,} rows (the first: row {int(bad.argmax())}); drop these rows"
            )
        return targets.astype(np.float32)
    if targets.dtype.kind not in "iub":
        raise DataContractError(
            f"{call} returned targets of type {targets.dtype}; allowed: integer classes 0, 1, ... "
            "or floats for regression"
        )
    classes = np.unique(targets)
    if len(classes) < 2:
        raise DataContractError(
            f"{call} returned one class only ({classes[0]} in all {len(targets):,} rows); "
            "give data with two classes or more"
        )
    if int(classes[0]) < 0:
        raise DataContractError(
            f"{call} returned the class {classes[0]}; allowed: 0 to {len(classes) - 1}"
        )
    return targets.astype(np.int64)


def _check_split(prepared: Prepared, call: str) -> None:
    import numpy as np

    if prepared.split is None:
        return
    unknown = sorted(set(np.unique(prepared.split).tolist()) - set(SPLITS))
    if unknown:
        raise DataContractError(
            f"{call} returned the split {unknown[0]!r}; allowed: {', '.join(SPLITS)}"
        )
    for name in ("train", "test"):
        if not (prepared.split == name).any():
            raise DataContractError(f"{call} put no row into the {name} split; give it some")
    missing = np.setdiff1d(prepared.targets, prepared.targets[prepared.split == "train"])
    if prepared.targets.dtype.kind == "i" and len(missing):
        raise DataContractError(
            f"{call} put no row of class {missing[0]} into the train split; give it some"
        )
