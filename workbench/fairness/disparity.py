"""Difference, ratio and worst group, each with an interval that knows it is an extreme.

The largest of many noisy gaps is large even when all groups are equal. The interval of
``max - min`` is therefore built from *all* pairs of groups at once: if every difference
``p_i - p_j`` lies in ``[L_ij, U_ij]`` together with probability ``level``, then ``max - min`` lies in
``[max L_ij, max U_ij]`` with at least that probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .intervals import (
    all_pairs_quantile,
    difference_interval,
    each_group_quantile,
    one_group_quantile,
    ratio_interval,
)
from .measures import BINARY_RATES, Measure
from .results import Disparity, LeftOut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .intervals import Floats, Interval

KINDS = ("difference", "ratio", "group_min", "group_max")
POWER = 0.8
_BLOCK = 256  # rows of the matrix of pairs held at a time
_SAME = {
    "accuracy_score": "accuracy",
    "demographic_parity": "selection_rate",
    "equal_opportunity": "true_positive_rate",
    "precision_score": "precision",
    "positive_predictive_value": "precision",
    "recall_score": "true_positive_rate",
    "recall": "true_positive_rate",
    "roc_auc_score": "roc_auc",
}
_TOGETHER = {"equalized_odds": ("true_positive_rate", "false_positive_rate")}
STANDARD = {
    "binary": (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "equalized_odds_difference",
        "equalized_odds_ratio",
        "equal_opportunity_difference",
        "equal_opportunity_ratio",
        "false_positive_rate_difference",
        "false_negative_rate_difference",
        "precision_difference",
        "accuracy_difference",
        "accuracy_group_min",
        "base_rate_difference",
        "base_rate_ratio",
        "roc_auc_difference",
        "roc_auc_group_min",
    ),
    "multiclass": (
        "accuracy_difference",
        "accuracy_ratio",
        "accuracy_group_min",
        "demographic_parity_difference",
        "equalized_odds_difference",
    ),
    "regression": (
        "mean_absolute_error_difference",
        "mean_absolute_error_ratio",
        "mean_absolute_error_group_max",
        "mean_error_difference",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A disparity by name: what is done (``kind``) to which metrics.

    Example:
        >>> figure("equalized_odds_difference").metrics
        ('true_positive_rate', 'false_positive_rate')
    """

    name: str
    kind: str
    metrics: tuple[str, ...]


def figure(name: str) -> Figure | None:
    """Return what ``name`` means, by fairlearn's names; ``None`` when it has no such form.

    Example:
        >>> figure("demographic_parity_ratio").metrics, figure("nonsense")
        (('selection_rate',), None)
    """
    for kind in KINDS:
        base = name.removesuffix(f"_{kind}")
        if base != name:
            metrics = _TOGETHER.get(base, (_SAME.get(base, base),))
            together = base in _TOGETHER and kind.startswith("group")
            return None if together else Figure(name=name, kind=kind, metrics=metrics)
    return None


def allowed_names(task: str, *, with_score: bool) -> tuple[str, ...]:
    """Return every disparity name of a task, without the synonyms.

    Example:
        >>> allowed_names("regression", with_score=False)[:2]
        ('mean_absolute_error_difference', 'mean_absolute_error_ratio')
    """
    if task == "regression":
        error = [f"mean_absolute_error_{kind}" for kind in KINDS]
        return (*error, "mean_error_difference", "mean_error_group_min", "mean_error_group_max")
    rates = ("roc_auc", *BINARY_RATES) if with_score else tuple(BINARY_RATES)
    named = [
        f"{base}_{kind}"
        for base in ("demographic_parity", "equalized_odds", "equal_opportunity")
        for kind in ("difference", "ratio")
    ]
    return (*named, *(f"{rate}_{kind}" for rate in rates for kind in KINDS))


def disparity(
    wanted: Figure,
    measures: Mapping[str, Sequence[Measure]],
    names: Sequence[str],
    *,
    level: float = 0.95,
    min_count: int = 0,
) -> Disparity:
    """Return the disparity of the groups ``names`` with its simultaneous interval.

    ``difference = max - min`` and ``ratio = min / max`` over the groups (fairlearn's
    ``between_groups``); ``equalized_odds`` is the worse of the true and the false positive rates.
    Undefined rates enter none of them. Pairs of groups: square-and-add from score intervals at the
    Tukey-Kramer quantile; worst group: exact intervals at the Sidak quantile. Where several metrics
    (or classes) stand behind one name, the level is shared out between them (Bonferroni).

    Args:
        wanted: From :func:`figure`.
        measures: For each metric one measure, or one for each class of a multi-class task.
        names: Group names, in the order of the measures' values.
        level: Confidence, between 0 and 1.
        min_count: Groups with fewer cases behind the metric are left out, and named.

    Example:
        >>> import numpy as np
        >>> from workbench.fairness.measures import proportion
        >>> selected = proportion("selection_rate", np.array([9, 41]), np.array([27, 68]), "no rows")
        >>> print(disparity(figure("demographic_parity_ratio"), {"selection_rate": [selected]},
        ...                 ["Black", "White"]))
        demographic_parity_ratio 0.553 [0.303, 0.913]
    """
    behind = [measure for metric in wanted.metrics for measure in measures[metric]]
    share = 1 - (1 - level) / len(behind)
    parts = [_part(wanted, measure, names, share, min_count) for measure in behind]
    return _worst(wanted, parts)


def _part(
    wanted: Figure, measure: Measure, names: Sequence[str], level: float, min_count: int
) -> Disparity:
    import numpy as np

    defined = ~np.isnan(measure.values)
    large = measure.counts >= min_count
    unknown = [
        LeftOut(group=names[i], metric=measure.metric, n=int(measure.counts[i]), reason=reason)
        for i, reason in enumerate(measure.undefined)
        if reason and large[i]
    ]
    small = [
        LeftOut(
            group=names[i],
            metric=measure.metric,
            n=int(measure.counts[i]),
            reason=f"n {int(measure.counts[i])} < {min_count}",
        )
        for i in np.flatnonzero(~large).tolist()
    ]
    keep = np.flatnonzero(defined & large)
    found = _extreme(wanted, measure, keep, [names[i] for i in keep.tolist()], level)
    return _with(found, unknown=tuple(unknown), left_out=tuple(small))


def _extreme(
    wanted: Figure, measure: Measure, keep: NDArray[np.int64], names: list[str], level: float
) -> Disparity:
    if len(keep) < 2:
        which = f"only {names[0]} has" if names else "no group has"
        return _none(wanted, f"{which} a defined {measure.metric}")
    values = measure.values[keep]
    lowest, highest = names[int(values.argmin())], names[int(values.argmax())]
    if wanted.kind == "ratio" and values.max() <= 0:
        return _none(wanted, f"{measure.metric} is 0 in every group")
    if wanted.kind.startswith("group"):
        # score intervals are too short in the far tails of extreme rates: 0.908 for 0.95 at K = 10
        low, high = (end[keep] for end in measure.exact(each_group_quantile(len(keep), level)))
        pick = values.argmin() if wanted.kind == "group_min" else values.argmax()
        ends = (low.min(), high.min()) if wanted.kind == "group_min" else (low.max(), high.max())
        weak = low.argmin() if wanted.kind == "group_min" else high.argmax()
        return _made(wanted, values[pick], *ends, lowest, highest, (names[int(weak)],), None)
    z = all_pairs_quantile(len(keep), level)
    ends_all = measure.interval(z)
    ends_of = (ends_all[0][keep], ends_all[1][keep])
    if wanted.kind == "ratio":
        low_end, high_end, pair = _smallest_ratio(values, ends_of)
        value = values.min() / values.max()
    else:
        low_end, high_end, pair = _largest_gap(values, ends_of)
        value, low_end = values.max() - values.min(), max(low_end, 0.0)
        high_end = min(high_end, measure.ceiling - measure.floor)
    weakest = (names[pair[0]], names[pair[1]])
    gap = _detectable(ends_of, pair, z)
    return _made(wanted, value, low_end, high_end, lowest, highest, weakest, gap)


def _largest_gap(values: Floats, ends: Interval) -> tuple[float, float, tuple[int, int]]:
    """Largest lower and upper end over all ordered pairs, and the pair of the upper one."""
    import numpy as np

    best_low, best_high, pair = -np.inf, -np.inf, (0, 0)
    for start in range(0, len(values), _BLOCK):
        rows = slice(start, start + _BLOCK)
        mine = (ends[0][rows, None], ends[1][rows, None])
        low, high = difference_interval(values[rows, None], mine, values, ends)
        low, high = _without_self(low, start, -np.inf), _without_self(high, start, -np.inf)
        best_low = max(best_low, float(low.max()))
        if high.max() > best_high:
            best_high = float(high.max())
            row, column = np.unravel_index(int(high.argmax()), high.shape)
            pair = (int(row) + start, int(column))
    return best_low, best_high, pair


def _smallest_ratio(values: Floats, ends: Interval) -> tuple[float, float, tuple[int, int]]:
    """Smallest lower and upper end over all ordered pairs, and the pair of the lower one."""
    import numpy as np

    best_low, best_high, pair = 1.0, 1.0, (0, 0)
    for start in range(0, len(values), _BLOCK):
        rows = slice(start, start + _BLOCK)
        mine = (ends[0][rows, None], ends[1][rows, None])
        low, high = ratio_interval(values[rows, None], mine, values, ends)
        # a ratio to 0 is not defined: nothing is known of that pair, from 0 to no bound
        low = np.where(np.isnan(low), 0.0, low)
        high = np.where(np.isnan(high), np.inf, high)
        low, high = _without_self(low, start, np.inf), _without_self(high, start, np.inf)
        best_high = min(best_high, float(high.min()))
        if low.min() < best_low:
            best_low = float(low.min())
            row, column = np.unravel_index(int(low.argmin()), low.shape)
            pair = (int(row) + start, int(column))
    return best_low, best_high, pair


def _without_self(matrix: Floats, start: int, filler: float) -> Floats:
    import numpy as np

    rows = np.arange(matrix.shape[0])
    matrix[rows, rows + start] = filler
    return matrix


def _detectable(ends: Interval, pair: tuple[int, int], z: float) -> float:
    """Smallest true gap of the pair whose test at ``z`` rejects with 80 % power.

    ``(z + z_0.8) * sqrt(s_i^2 + s_j^2)``, the standard errors ``s`` read off the intervals.
    """
    import numpy as np

    errors = [(ends[1][i] - ends[0][i]) / (2 * z) for i in pair]
    return float((z + one_group_quantile(2 * POWER - 1)) * np.hypot(*errors))


def _worst(wanted: Figure, parts: list[Disparity]) -> Disparity:
    """The part furthest from parity gives the value; the ends are the furthest ends."""
    unknown = tuple(item for part in parts for item in part.unknown)
    small = tuple(item for part in parts for item in part.left_out)
    known = [part for part in parts if part.value is not None]
    if not known:
        return _with(parts[0], unknown=unknown, left_out=small)
    sign = 1 if wanted.kind in ("difference", "group_max") else -1
    chosen = max(known, key=lambda part: sign * (part.value or 0.0))
    far = max(known, key=lambda part: sign * _end(part.high if sign > 0 else part.low, sign))
    lows = [_end(part.low, -1) for part in known]
    highs = [_end(part.high, 1) for part in known]
    pick = max if sign > 0 else min
    silent = [part.reason for part in parts if part.value is None]
    return Disparity(
        metric=wanted.name,
        value=chosen.value,
        low=_finite(pick(lows)),
        high=_finite(pick(highs)),
        lowest=chosen.lowest,
        highest=chosen.highest,
        weakest=far.weakest,
        detectable=far.detectable,
        unknown=unknown,
        left_out=small,
        reason="; ".join(dict.fromkeys(silent)),
    )


def _end(end: float | None, side: int) -> float:
    return side * float("inf") if end is None else end


def _none(wanted: Figure, reason: str) -> Disparity:
    return Disparity(metric=wanted.name, value=None, low=None, high=None, reason=reason)


def _with(
    found: Disparity, *, unknown: tuple[LeftOut, ...], left_out: tuple[LeftOut, ...]
) -> Disparity:
    from dataclasses import replace

    return replace(found, unknown=unknown, left_out=left_out)


def _made(
    wanted: Figure,
    value: float,
    low: float,
    high: float,
    lowest: str,
    highest: str,
    weakest: tuple[str, ...],
    detectable: float | None,
) -> Disparity:
    return Disparity(
        metric=wanted.name,
        value=float(value),
        low=_finite(low),
        high=_finite(high),
        lowest=lowest,
        highest=highest,
        weakest=weakest,
        detectable=None if detectable is None else _finite(detectable),
    )


def _finite(value: float) -> float | None:
    value = float(value)
    return value if abs(value) != float("inf") and value == value else None
