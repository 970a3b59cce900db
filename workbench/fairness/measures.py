"""One metric over all groups of one attribute: values, counts, and intervals at any level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .intervals import Floats, Interval

BINARY_RATES: dict[str, tuple[str, str, str]] = {
    # name: (cells counted, cells counted among, what is missing when there is none)
    "accuracy": ("tn tp", "tn fp fn tp", "no rows"),
    "base_rate": ("fn tp", "tn fp fn tp", "no rows"),
    "selection_rate": ("fp tp", "tn fp fn tp", "no rows"),
    "true_positive_rate": ("tp", "fn tp", "no positives"),
    "false_positive_rate": ("fp", "tn fp", "no negatives"),
    "true_negative_rate": ("tn", "tn fp", "no negatives"),
    "false_negative_rate": ("fn", "fn tp", "no positives"),
    "precision": ("tp", "fp tp", "no predicted positives"),
    "negative_predictive_value": ("tn", "tn fn", "no predicted negatives"),
}
CELLS = ("tn", "fp", "fn", "tp")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measure:
    """A metric in every group, before it becomes a table.

    Attributes:
        metric: Such as ``selection_rate``.
        values: One value a group; NaN where it is undefined.
        counts: Cases behind each value: its denominator (for AUC the smaller class).
        undefined: Why a value is undefined, one reason a group; empty where it is defined.
        interval: From ``z`` to the lower and upper ends.
        exact: The same with guaranteed coverage where there is such an interval (rates).
        floor: Smallest possible value.
        ceiling: Largest possible value, infinite when there is none.
    """

    metric: str
    values: Floats
    counts: NDArray[np.int64]
    undefined: tuple[str, ...]
    interval: Callable[[float], Interval]
    exact: Callable[[float], Interval]
    floor: float = 0.0
    ceiling: float = 1.0


def cell_counts(
    codes: NDArray[np.int64], groups: int, truth: NDArray[np.int64], decision: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the 2 x 2 table of each group: one row a group, columns ``tn fp fn tp``.

    Args:
        codes: Group of each row, ``0 <= code < groups``.
        groups: Number of groups.
        truth: 0 or 1 a row.
        decision: 0 or 1 a row.

    Example:
        >>> import numpy as np
        >>> zero, one = np.zeros(3, int), np.array([0, 1, 1])
        >>> cell_counts(zero, 1, one, np.array([0, 0, 1])).tolist()
        [[1, 0, 1, 1]]
    """
    import numpy as np

    cells = np.bincount(codes * 4 + truth * 2 + decision, minlength=groups * 4)
    return cells.reshape(groups, 4).astype(np.int64)


def rate(metric: str, cells: NDArray[np.int64]) -> Measure:
    """Return a binary rate of each group, from its 2 x 2 counts.

    The definitions are those of ``fairlearn.metrics`` (and of scikit-learn for ``accuracy`` and
    ``precision``), except that a rate without cases is undefined, not 0.

    Args:
        metric: A key of ``BINARY_RATES``.
        cells: From :func:`cell_counts`.

    Example:
        >>> import numpy as np
        >>> found = rate("true_positive_rate", np.array([[5, 1, 1, 3], [2, 0, 0, 0]]))
        >>> found.values.tolist(), found.undefined
        ([0.75, nan], ('', 'no positives'))
    """
    counted, among, absent = BINARY_RATES[metric]
    successes = cells[:, [CELLS.index(cell) for cell in counted.split()]].sum(axis=1)
    trials = cells[:, [CELLS.index(cell) for cell in among.split()]].sum(axis=1)
    return proportion(metric, successes, trials, absent)


def proportion(
    metric: str, successes: NDArray[np.int64], trials: NDArray[np.int64], absent: str
) -> Measure:
    """Return ``successes / trials`` of each group with Wilson's interval; ``absent`` names 0 / 0.

    Example:
        >>> import numpy as np
        >>> proportion("accuracy", np.array([1, 0]), np.array([2, 0]), "no rows").undefined
        ('', 'no rows')
    """
    import numpy as np

    from .intervals import clopper_pearson, wilson

    k, n = successes.astype(float), trials.astype(float)
    with np.errstate(invalid="ignore"):
        values = k / n
    return Measure(
        metric=metric,
        values=values,
        counts=trials,
        undefined=tuple("" if count else absent for count in trials.tolist()),
        interval=lambda z: wilson(k, n, z),
        exact=lambda z: clopper_pearson(k, n, z),
    )


def area_under_curve(
    codes: NDArray[np.int64], groups: int, truth: NDArray[np.int64], score: Floats
) -> Measure:
    """Return the area under the ROC curve of each group: the Mann-Whitney statistic, ties by half.

    ``AUC = (R - m (m + 1) / 2) / (m n)``, ``R`` the sum of the mid-ranks of the ``m`` positives
    within the group (Hanley and McNeil 1982). Undefined where a class is absent.

    Example:
        >>> import numpy as np
        >>> found = area_under_curve(np.zeros(4, int), 1, np.array([0, 1, 0, 1]),
        ...                          np.array([0.1, 0.4, 0.35, 0.8]))
        >>> found.values.tolist()
        [1.0]
    """
    import numpy as np

    from .intervals import area_interval

    positives = np.bincount(codes, weights=truth, minlength=groups).astype(float)
    negatives = np.bincount(codes, minlength=groups).astype(float) - positives
    ranks = np.bincount(codes, weights=_ranks_within(codes, score) * truth, minlength=groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (ranks - positives * (positives + 1) / 2) / (positives * negatives)
    area = np.where((positives > 0) & (negatives > 0), area, np.nan)
    pairs = zip(positives.tolist(), negatives.tolist(), strict=True)
    return Measure(
        metric="roc_auc",
        values=area,
        counts=np.minimum(positives, negatives).astype(np.int64),
        undefined=tuple(_absent_class(m, n) for m, n in pairs),
        interval=lambda z: area_interval(area, positives, negatives, z),
        exact=lambda z: area_interval(area, positives, negatives, z),
    )


def mean(
    metric: str,
    codes: NDArray[np.int64],
    groups: int,
    values: Floats,
    *,
    floor: float = 0.0,
) -> Measure:
    """Return the mean of ``values`` in each group, with Student's interval.

    Example:
        >>> import numpy as np
        >>> mean("mean_absolute_error", np.array([0, 0]), 1, np.array([1.0, 3.0])).values.tolist()
        [2.0]
    """
    import numpy as np

    from .intervals import mean_interval

    count = np.bincount(codes, minlength=groups)
    with np.errstate(invalid="ignore"):
        average = np.bincount(codes, weights=values, minlength=groups) / count
        squares = np.bincount(codes, weights=(values - average[codes]) ** 2, minlength=groups)
    deviation = np.sqrt(squares / np.maximum(count - 1, 1))

    def interval(z: float) -> Interval:
        low, high = mean_interval(average, deviation, count.astype(float), z)
        return np.maximum(low, floor), high

    return Measure(
        metric=metric,
        values=average,
        counts=count.astype(np.int64),
        undefined=tuple("" if n else "no rows" for n in count.tolist()),
        interval=interval,
        exact=interval,
        floor=floor,
        ceiling=float("inf"),
    )


def _absent_class(positives: float, negatives: float) -> str:
    if not positives:
        return "no positives"
    return "" if negatives else "no negatives"


def _ranks_within(codes: NDArray[np.int64], score: Floats) -> Floats:
    """Mid-ranks from 1 of each row among the rows of its own group."""
    import numpy as np

    order = np.lexsort((score, codes))
    sorted_codes, sorted_score = codes[order], score[order]
    new_group = np.append(True, sorted_codes[1:] != sorted_codes[:-1])
    new_tie = new_group | np.append(True, sorted_score[1:] != sorted_score[:-1])
    place = np.arange(len(order), dtype=float)
    first = place[new_tie]
    last = np.append(first[1:], len(order)) - 1
    start = np.repeat(
        place[new_group], np.diff(np.append(place[new_group], len(order)).astype(int))
    )
    tie = np.cumsum(new_tie) - 1
    ranks = np.empty(len(order))
    ranks[order] = (first[tie] + last[tie]) / 2 - start + 1
    return ranks
