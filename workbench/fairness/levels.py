"""The levels of a column: their codes, their order and their names, whatever their types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import DataContractError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Levels:
    """One column as codes.

    Attributes:
        codes: One integer a row, the index into ``values``; -1 where the value is missing.
        values: The levels seen, numbers first by size, then text by alphabet; an ordered or
            unordered pandas category keeps its own order.
        names: One name a level, all different.
        unseen: Names of declared categories that no row has.

    Example:
        >>> found = levels_of(["b", None, 2, "a", 2], name="x")
        >>> found.names, found.codes.tolist()
        (('2', 'a', 'b'), [2, -1, 0, 1, 0])
    """

    codes: NDArray[np.int64]
    values: tuple[Any, ...]
    names: tuple[str, ...]
    unseen: tuple[str, ...] = ()


def levels_of(column: Any, *, name: str) -> Levels:
    """Return the levels of ``column`` (a series, an array or a list); ``name`` is for messages.

    None, NaN, NaT and ``pandas.NA`` are missing. ``1`` and ``"1"`` are two levels, named ``1`` and
    ``'1'``; ``1`` and ``1.0`` are one.

    Raises:
        DataContractError: A value cannot be compared for equality (a list, a dict).
    """
    import numpy as np
    import pandas as pd

    series = column if isinstance(column, pd.Series) else pd.Series(column, dtype=_dtype(column))
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _of_category(series)
    try:
        raw, uniques = pd.factorize(series, use_na_sentinel=True)
    except TypeError as error:
        raise DataContractError(
            f"column {name!r} holds values that are no levels ({error}); allowed: numbers, text, "
            "booleans, dates; turn them into one of these"
        ) from None
    values = [_plain(value) for value in uniques]
    order = sorted(range(len(values)), key=lambda index: _rank(values[index]))
    position = np.empty(len(values) + 1, dtype=np.int64)
    position[order] = np.arange(len(values))
    position[-1] = -1  # the code -1 indexes the last entry
    ordered = tuple(values[index] for index in order)
    return Levels(codes=position[raw], values=ordered, names=names_of(ordered))


def names_of(values: tuple[Any, ...]) -> tuple[str, ...]:
    """Return one name for each value, all different and none the word for missing values.

    Example:
        >>> names_of((1, 2.0, "1", "missing", ""))
        ('1', '2', "'1'", "'missing'", "''")
    """
    taken: set[str] = set()
    names = []
    for value in values:
        text = _text(value)
        if text in taken or text in ("", MISSING):
            text = repr(value)
        while text in taken:
            text += "′"
        taken.add(text)
        names.append(text)
    return tuple(names)


def _of_category(series: Any) -> Levels:
    import numpy as np

    codes = np.asarray(series.cat.codes, dtype=np.int64)
    values = tuple(_plain(value) for value in series.cat.categories)
    names = names_of(values)
    seen = np.bincount(codes[codes >= 0], minlength=len(values)) > 0
    position = np.append(np.where(seen, np.cumsum(seen) - 1, -1), -1)
    return Levels(
        codes=position[codes],
        values=tuple(value for value, here in zip(values, seen, strict=True) if here),
        names=tuple(name for name, here in zip(names, seen, strict=True) if here),
        unseen=tuple(name for name, here in zip(names, seen, strict=True) if not here),
    )


def _dtype(column: Any) -> Any:
    # A list of mixed types must stay mixed: pandas would turn [1, 2.5, None] into floats, which is
    # right, but numpy would turn [1, "a"] into text, which is not.
    return None if hasattr(column, "dtype") else object


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _rank(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (bool, int, float)):
        return (0, float(value), "")
    return (1, 0.0, str(value)) if isinstance(value, str) else (2, 0.0, str(value))


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)
