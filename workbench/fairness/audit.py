"""The audit: a table in, a report value out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigurationError, DataContractError

from .disparity import STANDARD, Figure, disparity, figure
from .gates import Gate, check_gate, gate_from, judge
from .intervals import one_group_quantile
from .measures import BINARY_RATES, Measure, area_under_curve, cell_counts, mean, proportion, rate
from .outcomes import Outcomes, outcomes
from .results import AttributeResult, AuditReport, Estimate, GateResult, GroupResult
from .slices import Grouping, grouping, intersections

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Measures = dict[str, list[Measure]]  # one measure a metric, or one a class of a multi-class task
MOST_CLASSES = 50


def audit(
    table: Any,
    *,
    label: str,
    prediction: str,
    attributes: Sequence[str],
    score: str | None = None,
    gates: Iterable[Gate | Mapping[str, Any] | str] = (),
    positive: Any = None,
    task: str = "auto",
    level: float = 0.95,
    depth: int = 3,
) -> AuditReport:
    """Return the metrics of each group, their disparities, and the verdicts of the gates.

    Rows without a label are counted and enter no metric. A missing attribute value is the group
    ``missing``. Undefined rates (no positives, no negatives …) have a reason in place of a value.

    Args:
        table: A pandas frame, or a mapping from column name to values.
        label: Column of what was true.
        prediction: Column of what was decided, in the values of the label.
        attributes: Columns to compare by, each also as ``column@edge[,edge…]``.
        score: Column of a number that grows with the positive class (binary tasks): adds AUC.
        gates: :class:`Gate` values, mappings or texts; see :func:`gate_from`.
        positive: The value that counts as selected; needed unless it is 0/1, -1/1 or False/True.
        task: ``auto``, ``binary``, ``multiclass`` or ``regression``; see :func:`outcomes`.
        level: Confidence of every interval, between 0.5 and 1.
        depth: Intersections of up to so many attributes; 1 for none.

    Raises:
        DataContractError: A column is missing or empty, or no comparison is possible.
        ConfigurationError: A gate, the task, the level or the attributes are impossible.

    Example:
        >>> people = {"y": [1, 0, 1, 0, 1, 0], "p": [1, 0, 1, 1, 0, 0], "sex": list("FFFMMM")}
        >>> report = audit(people, label="y", prediction="p", attributes=["sex"],
        ...                gates=["demographic_parity_difference<=0.2"])
        >>> print(report.attribute("sex").group("F").estimate("true_positive_rate"))
        true_positive_rate 1.000 [0.342, 1.000]
        >>> report.verdict
        'not enough evidence'
    """
    table = _frame(table)
    _check_settings(attributes, level, depth)
    chosen = [gate_from(gate) for gate in gates]
    seen = outcomes(
        table, label=label, prediction=prediction, score=score, positive=positive, task=task
    )
    singles = [_two_levels(grouping(table, attribute)) for attribute in attributes]
    groupings = [*singles, *intersections(singles, depth=depth)]
    plans = [(gate, *_plan(gate, seen, groupings)) for gate in chosen]
    measured = {found.attribute: _measures(found, seen) for found in groupings}
    results = tuple(
        _attribute(found, seen, measured[found.attribute], level) for found in groupings
    )
    return AuditReport(
        label=label,
        prediction=prediction,
        score=score,
        task=seen.task,
        classes=seen.classes,
        level=level,
        rows=len(seen.labelled),
        labelled=int(seen.labelled.sum()),
        overall=_overall(seen, level),
        attributes=results,
        gates=tuple(
            _gate(gate, wanted, name, groupings, measured, level)
            for gate, wanted, names in plans
            for name in names
        ),
        notes=_notes(seen, results),
    )


def audit_file(
    path: str | Path,
    *,
    label: str,
    prediction: str,
    attributes: Sequence[str],
    score: str | None = None,
    gates: Iterable[Gate | Mapping[str, Any] | str] = (),
    positive: Any = None,
    task: str = "auto",
    level: float = 0.95,
    depth: int = 3,
) -> AuditReport:
    """Return :func:`audit` of a ``.csv``, ``.csv.gz`` or ``.parquet`` file.

    Only the columns named are read.

    Raises:
        DataContractError: The file is missing, unreadable, empty, or of another kind.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "rows.csv"
        >>> _ = path.write_text("y,p,sex\\n1,1,F\\n0,0,F\\n1,0,M\\n0,0,M\\n")
        >>> audit_file(path, label="y", prediction="p", attributes=["sex"]).rows
        4
    """
    from .tables import read_columns

    wanted = [label, prediction, *([score] if score else []), *attributes]
    return audit(
        read_columns(Path(path), wanted),
        label=label,
        prediction=prediction,
        attributes=attributes,
        score=score,
        gates=gates,
        positive=positive,
        task=task,
        level=level,
        depth=depth,
    )


def _frame(table: Any) -> Any:
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        columns = {str(name): _column(values) for name, values in dict(table).items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:  # pandas would pad the short ones with missing values
            shown = ", ".join(f"{name} {length}" for name, length in list(lengths.items())[:6])
            raise DataContractError(
                f"the table's columns differ in length ({shown}); allowed: equal lengths"
            )
        table = pd.DataFrame(columns)
    if len(table) == 0:
        raise DataContractError("the table has no rows; allowed: one or more; check the filter")
    return table


def _column(values: Any) -> Any:
    """A series that counts its rows from 0, so that no index can shift one column by another."""
    import pandas as pd

    if isinstance(values, pd.Series):
        return values.reset_index(drop=True)
    return pd.Series(values if hasattr(values, "dtype") else list(values))


def _check_settings(attributes: Sequence[str], level: float, depth: int) -> None:
    if isinstance(attributes, str) or not attributes:
        raise ConfigurationError(
            f"attributes is {attributes!r}; allowed: a list of one column or more; "
            "write attributes: [sex]"
        )
    twice = [name for name in dict.fromkeys(attributes) if list(attributes).count(name) > 1]
    if twice:
        raise ConfigurationError(f"attribute {twice[0]!r} is named twice; allowed: once")
    if not 0.5 < level < 1:
        raise ConfigurationError(f"level is {level!r}; allowed: between 0.5 and 1; usual: 0.95")
    if depth < 1:
        raise ConfigurationError(f"depth is {depth!r}; allowed: 1 (no intersections) or more")


def _two_levels(found: Grouping) -> Grouping:
    if len(found.groups) == 1:
        raise DataContractError(
            f"attribute {found.attribute!r} has one level ({found.names[0]!r}) in all rows; "
            "allowed: two or more; leave it out, or audit rows of more than one group"
        )
    return found


def _plan(
    gate: Gate, seen: Outcomes, groupings: Sequence[Grouping]
) -> tuple[Figure, tuple[str, ...]]:
    return check_gate(
        gate,
        task=seen.task,
        with_score=seen.score is not None,
        singles=[found.attribute for found in groupings if len(found.columns) == 1],
        crossed=[found.attribute for found in groupings if len(found.columns) > 1],
    )


def _measures(found: Grouping, seen: Outcomes) -> Measures:
    codes = found.codes[seen.labelled]
    return _by_code(codes, len(found.groups), seen)


def _by_code(codes: NDArray[np.int64], groups: int, seen: Outcomes) -> Measures:
    import numpy as np

    if seen.task == "regression":
        absolute = np.abs(seen.error)
        return {
            "mean_absolute_error": [mean("mean_absolute_error", codes, groups, absolute)],
            "mean_error": [mean("mean_error", codes, groups, seen.error, floor=-np.inf)],
        }
    if seen.task == "multiclass":
        return _multiclass(codes, groups, seen)
    cells = cell_counts(codes, groups, seen.truth, seen.decision)
    found = {metric: [rate(metric, cells)] for metric in BINARY_RATES}
    if seen.score is not None:
        found["roc_auc"] = [area_under_curve(codes, groups, seen.truth, seen.score)]
    return found


def _multiclass(codes: NDArray[np.int64], groups: int, seen: Outcomes) -> Measures:
    """Accuracy, and every class against the rest."""
    from dataclasses import replace

    import numpy as np

    right = np.bincount(codes[seen.truth == seen.decision], minlength=groups)
    rows = np.bincount(codes, minlength=groups)
    found: Measures = {"accuracy": [proportion("accuracy", right, rows, "no rows")]}
    for index, name in enumerate(seen.classes[:MOST_CLASSES]):
        truth = (seen.truth == index).astype(np.int64)
        decision = (seen.decision == index).astype(np.int64)
        cells = cell_counts(codes, groups, truth, decision)
        for metric in BINARY_RATES:
            if metric != "accuracy":
                one = replace(rate(metric, cells), metric=f"{metric}[{name}]")
                found.setdefault(metric, []).append(one)
    return found


def _overall(seen: Outcomes, level: float) -> tuple[Estimate, ...]:
    import numpy as np

    everyone = np.zeros(int(seen.labelled.sum()), dtype=np.int64)
    return _estimates(_by_code(everyone, 1, seen), 1, level)[0]


def _estimates(measures: Measures, groups: int, level: float) -> list[tuple[Estimate, ...]]:
    """The metrics of each group, each with the interval of that one group."""
    z = one_group_quantile(level)
    columns = [_estimates_of(measure, z) for behind in measures.values() for measure in behind]
    return [tuple(column[group] for column in columns) for group in range(groups)]


def _estimates_of(measure: Measure, z: float) -> list[Estimate]:
    low, high = measure.interval(z)
    return [
        Estimate(
            metric=measure.metric,
            value=None if reason else value,
            low=_open(start),
            high=_open(end),
            n=n,
            reason=reason,
        )
        for value, start, end, n, reason in zip(
            measure.values.tolist(),
            low.tolist(),
            high.tolist(),
            measure.counts.tolist(),
            measure.undefined,
            strict=True,
        )
    ]


def _open(end: float) -> float | None:
    return end if end == end and abs(end) != float("inf") else None


def _attribute(
    found: Grouping, seen: Outcomes, measures: Measures, level: float
) -> AttributeResult:
    import numpy as np

    groups, names = len(found.groups), found.names
    rows = np.bincount(found.codes[seen.labelled], minlength=groups).tolist()
    everyone = np.bincount(found.codes, minlength=groups).tolist()
    cells = _cells(found, seen)
    estimates = _estimates(measures, groups, level)
    return AttributeResult(
        attribute=found.attribute,
        columns=found.columns,
        rule=found.rule,
        unseen=found.unseen,
        groups=tuple(
            GroupResult(
                group=names[i],
                levels=found.groups[i],
                rows=rows[i],
                unlabelled=everyone[i] - rows[i],
                cells=cells[i],
                estimates=estimates[i],
            )
            for i in range(groups)
        ),
        disparities=tuple(
            disparity(wanted, measures, names, level=level)
            for wanted in (figure(name) for name in STANDARD[seen.task])
            if wanted is not None and all(metric in measures for metric in wanted.metrics)
        ),
    )


def _cells(found: Grouping, seen: Outcomes) -> list[dict[str, int]]:
    if seen.task != "binary":
        return [{} for _ in found.groups]
    codes = found.codes[seen.labelled]
    counts = cell_counts(codes, len(found.groups), seen.truth, seen.decision).tolist()
    return [dict(zip(("tn", "fp", "fn", "tp"), row, strict=True)) for row in counts]


def _gate(
    gate: Gate,
    wanted: Figure,
    name: str,
    groupings: Sequence[Grouping],
    measured: Mapping[str, Measures],
    level: float,
) -> GateResult:
    names = next(found.names for found in groupings if found.attribute == name)
    found = disparity(wanted, measured[name], names, level=level, min_count=gate.min_count)
    return judge(gate, name, found)


def _notes(seen: Outcomes, results: Sequence[AttributeResult]) -> tuple[str, ...]:
    notes = []
    unlabelled = len(seen.labelled) - int(seen.labelled.sum())
    if unlabelled:
        notes.append(
            f"{unlabelled:,} of {len(seen.labelled):,} rows have no label: they enter no metric."
        )
    if seen.task == "multiclass" and len(seen.classes) > MOST_CLASSES:
        notes.append(
            f"{len(seen.classes)} classes: the first {MOST_CLASSES} are compared one against the "
            "rest, all of them enter the accuracy."
        )
    for found in results:
        if found.rule and len(found.columns) == 1:
            notes.append(f"{found.rule}.")
        if found.unseen:
            notes.append(f"{found.attribute}: no row is in {', '.join(found.unseen)}.")
        if len(found.columns) == 1:
            notes.extend(_undefined(found, seen.task))
    return tuple(notes)


def _undefined(found: AttributeResult, task: str) -> list[str]:
    if task == "multiclass":  # one class against the rest is undefined all the time
        return []
    return [
        f"{found.attribute}: {estimate.metric} of {group.group} is undefined "
        f"({estimate.reason} in {group.rows:,} rows)."
        for group in found.groups
        for estimate in group.estimates
        if not estimate.defined
    ]
