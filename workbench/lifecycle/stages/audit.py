"""audit: compare the groups of the named attributes, and let the gates decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.lifecycle import data
from workbench.lifecycle.pipeline import AuditSettings, Pipeline
from workbench.lifecycle.results import Produced
from workbench.records.digests import bytes_digest

from .stage import Earlier, Stage, Task

if TYPE_CHECKING:
    import pandas as pd

    from workbench.fairness import AuditReport, Gate

NO_GATES = "no gates"


def audit(task: Task) -> Produced:
    """Return the verdict and each gate's sentence; the report is kept as JSON and as HTML."""
    from workbench.fairness import audit as audit_table
    from workbench.fairness import to_html

    settings = task.pipeline.audit
    assert settings is not None
    table, columns = audit_input(
        data.load(task.folder_of("prepare")).table,
        Path(task.earlier["evaluate"]["predictions"]),
        settings.attributes,
    )
    table = named(table, settings.names)
    if settings.positive is not None and task.earlier["prepare"]["classes"] > 2:
        columns["score"] = None
    report = audit_table(
        table,
        **columns,
        attributes=settings.attributes,
        gates=gates_of(settings),
        positive=settings.positive,
        task=kind_of_task(task.earlier["prepare"]["classes"], settings),
        depth=settings.depth,
        level=settings.level,
    )
    text = report.to_json()
    (task.folder / "audit.json").write_text(text, encoding="utf-8")
    page = to_html(report, provenance=_provenance(task))
    (task.folder / "audit.html").write_text(page, encoding="utf-8")
    verdict = report.verdict or NO_GATES
    return Produced(
        values={
            "folder": str(task.folder),
            "verdict": verdict,
            "gates": [result.reason for result in report.gates],
            "refused": report.refused,
            "notes": list(report.notes),
            "digest": bytes_digest(text.encode()),
            "report": str(task.folder / "audit.html"),
            "rows": report.labelled,
        },
        summary=_summary(report, settings),
        metrics=_metrics(report),
        tags={"wb.verdict": verdict},
        artifacts=("audit.json", "audit.html"),
        refused=report.refusal if report.refused else "",
    )


def gates_of(settings: AuditSettings) -> list[Gate]:
    """Return the pipeline's gates as the audit takes them.

    Raises:
        ConfigurationError: No such metric, or an impossible bound.
    """
    from workbench.fairness import Gate

    return [Gate(**gate.model_dump()) for gate in settings.gates]


def check_gates(settings: AuditSettings, classes: int) -> None:
    """Raise when a gate's metric does not exist for a task of ``classes`` (0: regression).

    Raises:
        ConfigurationError: Which metric, and which are allowed.
    """
    from workbench.fairness.gates import check_gate

    task = kind_of_task(classes, settings)
    crossed = [
        " × ".join(some)
        for size in range(2, settings.depth + 1)
        for some in combinations(settings.attributes, size)
    ]
    for gate in gates_of(settings):
        if task != "auto":
            check_gate(
                gate,
                task=task,
                with_score=classes == 2,
                singles=settings.attributes,
                crossed=crossed,
            )


def kind_of_task(classes: int, settings: AuditSettings) -> str:
    """Return the audit's task: ``regression``, ``binary``, ``multiclass`` or ``auto``."""
    if classes == 0:
        return "regression"
    if settings.positive is not None:
        return "auto"
    return "binary" if classes == 2 else "multiclass"


def _summary(report: AuditReport, settings: AuditSettings) -> str:
    over = f"{', '.join(settings.attributes)} on {report.labelled:,} rows"
    if not report.gates:
        return f"{over}; no gates"
    counts = Counter(gate.verdict for gate in report.gates)
    return f"{over}: {report.verdict} (" + ", ".join(f"{n} {v}" for v, n in counts.items()) + ")"


def _metrics(report: AuditReport) -> dict[str, float]:
    return {
        f"{gate.metric}/{gate.attribute}".replace("×", "x").replace("@", " at "): value
        for gate in report.gates
        if (value := gate.disparity.value) is not None
    }


def _provenance(task: Task) -> dict[str, str]:
    return {
        "pipeline": task.pipeline.name,
        "pipeline run": task.parent_id,
        "audit run": task.run_id,
        "training run": str(task.earlier["train"]["run_id"]),
        "data digest": str(task.earlier["prepare"]["digest"]),
        "weights digest": str(task.earlier["train"]["digest"]),
    }


def audit_input(
    table: pd.DataFrame, predictions: Path, attributes: list[str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return attributes beside label, prediction and score, and the names of these columns.

    An attribute that is itself called ``label`` keeps its name; the label then is ``label_``.
    """
    import pandas as pd

    attributes = [attribute.partition("@")[0] for attribute in attributes]
    predicted = pd.read_parquet(predictions)
    joined = table[attributes].iloc[predicted["row"].to_numpy()].reset_index(drop=True)
    names: dict[str, Any] = {"score": None}
    for name in ("label", "prediction", "score"):
        if name in predicted.columns:
            names[name] = f"{name}_" if name in attributes else name
            joined[names[name]] = predicted[name]
    return joined, names


def named(table: pd.DataFrame, names: Mapping[str, Mapping[int | str, str]]) -> pd.DataFrame:
    """Return the table with the codes of its columns replaced by their names; others stay.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"SEX": [1, 2]})
        >>> named(table, {"SEX": {1: "male", "2": "female"}})["SEX"].tolist()
        ['male', 'female']
    """

    def code(value: Any) -> str:
        whole = isinstance(value, float) and value.is_integer()
        return str(int(value)) if whole else str(value)

    replaced = {}
    for column, given in names.items():
        called = {str(key): name for key, name in given.items()}
        levels = {level: called.get(code(level), level) for level in table[column].unique()}
        replaced[column] = table[column].map(levels).astype(object)
    return table.assign(**replaced)


def _settings(pipeline: Pipeline) -> Mapping[str, Any]:
    assert pipeline.audit is not None
    return pipeline.audit.model_dump(mode="json")


def _inputs(earlier: Earlier) -> Mapping[str, str]:
    return {
        "data": earlier["prepare"]["digest"],
        "predictions": earlier["evaluate"]["digest"],
    }


AUDIT = Stage(name="audit", version=1, run=audit, settings=_settings, inputs=_inputs)
