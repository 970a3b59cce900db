"""Attributes to groups: single attributes, their observed intersections, binned numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigurationError, DataContractError

from .levels import MISSING, levels_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CROSS = " × "
MOST_LEVELS = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grouping:
    """Every row in exactly one group.

    Attributes:
        attribute: Name of the attribute, or the names of an intersection joined by ``" × "``.
        columns: The columns it comes from.
        codes: One integer a row, the index into ``groups``.
        groups: One tuple of level names a group (one name for each column), in a stable order.
        unseen: Declared categories that no row has (single attributes only).
        rule: How numbers were cut into groups; empty when they were not.

    Example:
        >>> sexes = grouping({"sex": ["F", "M", None, "F"]}, "sex")
        >>> sexes.names, sexes.codes.tolist()
        (('F', 'M', 'missing'), [0, 1, 2, 0])
    """

    attribute: str
    columns: tuple[str, ...]
    codes: NDArray[np.int64]
    groups: tuple[tuple[str, ...], ...]
    unseen: tuple[str, ...] = ()
    rule: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """One name a group."""
        return tuple(CROSS.join(levels) for levels in self.groups)


def grouping(table: Any, attribute: str) -> Grouping:
    """Return the groups of one attribute.

    Missing values are a group of their own, ``missing``. A numeric column with more than 20
    distinct values is cut at its quartiles (observed values, the inverse of the empirical
    distribution; each group holds its upper edge). ``column@25`` or ``column@25,40`` cuts at the
    edges given instead: up to and including 25, above 25.

    Args:
        table: A mapping from column name to values.
        attribute: A column, or ``column@edge[,edge…]``.

    Raises:
        DataContractError: The column is absent, or holds values that are no levels.
        ConfigurationError: The edges are not increasing numbers.

    Example:
        >>> grouping({"age": [19, 25, 26, 61]}, "age@25").names
        ('≤ 25', '> 25')
    """
    column, edges = _parse(table, attribute)
    values = table[column]
    levels = levels_of(values, name=column)
    numeric = all(isinstance(value, (int, float)) for value in levels.values)
    if edges or (numeric and len(levels.values) > MOST_LEVELS):
        return _binned(attribute, column, values, edges, numeric=numeric)
    names: list[tuple[str, ...]] = [(name,) for name in levels.names]
    return _with_missing(attribute, column, levels.codes, names, unseen=levels.unseen)


def intersections(groupings: Sequence[Grouping], *, depth: int = 3) -> list[Grouping]:
    """Return the intersections of 2 to ``depth`` attributes, each with its observed groups only.

    The size of the result follows the rows, never the product of the levels.

    Example:
        >>> table = {"a": ["x", "y", "y"], "b": [1, 1, 2]}
        >>> both, = intersections([grouping(table, "a"), grouping(table, "b")])
        >>> both.attribute, both.names
        ('a × b', ('x × 1', 'y × 1', 'y × 2'))
    """
    sizes = range(2, min(depth, len(groupings)) + 1)
    return [_cross(some) for size in sizes for some in combinations(groupings, size)]


def _parse(table: Any, attribute: str) -> tuple[str, tuple[float, ...]]:
    if attribute in table:
        return attribute, ()
    column, at, text = attribute.rpartition("@")
    if not at or column not in table:
        raise DataContractError(missing_column("attribute", attribute, table))
    try:
        edges = tuple(float(edge) for edge in text.split(","))
    except ValueError:
        edges = ()
    if not edges or any(
        b <= a or a != a for a, b in zip(edges, (*edges[1:], float("inf")), strict=True)
    ):
        raise ConfigurationError(
            f"attribute {attribute!r}: {text!r} are no edges; allowed: increasing numbers "
            f"separated by commas; write {column}@25 or {column}@25,40"
        )
    return column, edges


def missing_column(role: str, name: str, table: Any) -> str:
    """Return the message for a column that is not there.

    Example:
        >>> missing_column("label", "incom", {"income": [], "age": []})
        "label column 'incom' is not in the table; did you mean 'income'? columns: income, age"
    """
    from difflib import get_close_matches

    columns = [str(column) for column in table]
    close = get_close_matches(name, columns, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    shown = ", ".join(columns[:20]) + (f", … ({len(columns)} in all)" if len(columns) > 20 else "")
    return f"{role} column {name!r} is not in the table{hint} columns: {shown}"


def _binned(
    attribute: str, column: str, values: Any, edges: tuple[float, ...], *, numeric: bool
) -> Grouping:
    import numpy as np
    import pandas as pd

    if not numeric:
        raise DataContractError(
            f"attribute {attribute!r}: column {column!r} holds text; allowed with edges: numbers; "
            f"write the attribute as {column}"
        )
    numbers = np.asarray(pd.to_numeric(pd.Series(values), errors="raise"), dtype=float)
    known = numbers[~np.isnan(numbers)]
    if edges:
        cuts, rule = np.array(edges), f"{column} cut at {', '.join(_number(e) for e in edges)}"
        names = _open_names(cuts)
    else:
        found = np.quantile(known, [0.25, 0.5, 0.75], method="inverted_cdf")
        cuts = np.unique(found[found < known.max()])
        rule = f"{column} has more than {MOST_LEVELS} distinct numbers: cut at its quartiles"
        names = _closed_names(np.array([known.min(), *cuts, known.max()]))
    codes = np.where(np.isnan(numbers), -1, np.searchsorted(cuts, numbers, side="left"))
    return _compact(_with_missing(attribute, column, codes, [(n,) for n in names], rule=rule))


def _open_names(cuts: NDArray[np.float64]) -> list[str]:
    inner = [f"{_number(a)} < to ≤ {_number(b)}" for a, b in pairwise(cuts.tolist())]
    return [f"≤ {_number(cuts[0])}", *inner, f"> {_number(cuts[-1])}"]


def _closed_names(edges: NDArray[np.float64]) -> list[str]:
    pairs = pairwise(edges.tolist())
    return [
        f"{'[' if index == 0 else '('}{_number(a)}, {_number(b)}]"
        for index, (a, b) in enumerate(pairs)
    ]


def _number(value: float) -> str:
    return f"{value:.6g}"


def _with_missing(
    attribute: str,
    column: str,
    codes: NDArray[np.int64],
    names: list[tuple[str, ...]],
    *,
    unseen: tuple[str, ...] = (),
    rule: str = "",
) -> Grouping:
    import numpy as np

    absent = codes < 0
    if absent.any():
        codes, names = np.where(absent, len(names), codes), [*names, (MISSING,)]
    return Grouping(
        attribute=attribute,
        columns=(column,),
        codes=codes.astype(np.int64),
        groups=tuple(names),
        unseen=unseen,
        rule=rule,
    )


def _compact(found: Grouping) -> Grouping:
    """Drop the groups that no row is in (an edge outside the data)."""
    import numpy as np

    used, codes = np.unique(found.codes, return_inverse=True)
    return Grouping(
        attribute=found.attribute,
        columns=found.columns,
        codes=codes.astype(np.int64),
        groups=tuple(found.groups[index] for index in used),
        unseen=tuple(g[0] for i, g in enumerate(found.groups) if i not in set(used.tolist())),
        rule=found.rule,
    )


def _cross(parts: Sequence[Grouping]) -> Grouping:
    import numpy as np

    codes, groups = parts[0].codes, parts[0].groups
    for part in parts[1:]:
        width = len(part.groups)
        # observed pairs only: at most as many as rows, so the product never overflows
        seen, codes = np.unique(codes * width + part.codes, return_inverse=True)
        groups = tuple(groups[pair // width] + part.groups[pair % width] for pair in seen.tolist())
    return Grouping(
        attribute=CROSS.join(part.attribute for part in parts),
        columns=tuple(column for part in parts for column in part.columns),
        codes=codes.astype(np.int64),
        groups=groups,
        rule="; ".join(part.rule for part in parts if part.rule),
    )
