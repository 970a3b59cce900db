"""The audit as one HTML file: verdicts first, then plots and tables, methods and limits last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench._version import __version__

from .plot import dot_plot, readable
from .results import AttributeResult, AuditReport, Disparity, Estimate, GateResult

SHOWN = {
    "binary": (
        "selection_rate",
        "accuracy",
        "true_positive_rate",
        "false_positive_rate",
        "precision",
        "roc_auc",
    ),
    "multiclass": ("accuracy",),
    "regression": ("mean_absolute_error", "mean_error"),
}
MOST_ROWS = 60
_BADGE = {"pass": "pass", "fail": "fail", "not enough evidence": "open"}
_SIGN = {"pass": "✓", "fail": "✕", "not enough evidence": "?"}
_HEADLINE = {
    None: "No gate was set",
    "pass": "Pass",
    "fail": "Fail",
    "not enough evidence": "Not enough evidence",
}


def to_html(
    report: AuditReport,
    *,
    title: str = "Fairness audit",
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Return the report as one self-contained page.

    It needs no network and no script, follows light and dark, prints, and is the same for the same
    report: no clock and no random name enters it.

    Args:
        report: What to show.
        title: Heading of the page.
        provenance: Lines of the footer, such as ``{"run": "1a2b…", "data": "sha256:…"}``.

    Example:
        >>> from workbench.fairness import audit
        >>> people = {"y": [1, 0, 1, 0], "p": [1, 0, 0, 0], "sex": list("FFMM")}
        >>> page = to_html(audit(people, label="y", prediction="p", attributes=["sex"]))
        >>> page.startswith("<!DOCTYPE html>"), "http" in page
        (True, False)
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(figure=_figure, words=readable, ends=_ends)
    source = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=title,
        report=report,
        headline=_HEADLINE[report.verdict],
        badge=_BADGE.get(report.verdict or "", "none"),
        counts=_counts(report),
        gates=[_gate_row(gate) for gate in report.gates],
        sections=[_section(found, report) for found in report.attributes],
        provenance=dict(provenance or {}),
        version=__version__,
    )


def save_report(
    report: AuditReport,
    path: str | Path,
    *,
    title: str = "Fairness audit",
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write :func:`to_html` to ``path``, with its folders, and return the path.

    Raises:
        OSError: The path cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(to_html(report, title=title, provenance=provenance), encoding="utf-8")
    return target


def _counts(report: AuditReport) -> str:
    given = [gate.verdict for gate in report.gates]
    named = [f"{given.count(v)} {v}" for v in _BADGE if v in given]
    return ", ".join(named)


def _gate_row(gate: GateResult) -> dict[str, Any]:
    sign = "≤" if gate.bound == "max" else "≥"
    lacking = gate.verdict == "not enough evidence"
    return {
        "gate": gate,
        "badge": _BADGE[gate.verdict],
        "sign": _SIGN[gate.verdict],
        "bound": f"{sign} {gate.threshold:g}",
        "then": ("refuses" if gate.refuses else "warns") if lacking else "",
    }


def _section(found: AttributeResult, report: AuditReport) -> dict[str, Any]:
    from markupsafe import Markup

    known = {estimate.metric for estimate in report.overall}
    metrics = [metric for metric in SHOWN[report.task] if metric in known]
    largest = sorted(found.groups, key=lambda group: -group.rows)[:MOST_ROWS]
    return {
        "result": found,
        "crossed": len(found.columns) > 1,
        "metrics": metrics,
        "plot": Markup(dot_plot(found, report.overall, metrics)),  # every text in it is escaped
        "groups": [group for group in found.groups if group in largest],
        "hidden": max(len(found.groups) - MOST_ROWS, 0),
        "unlabelled": any(group.unlabelled for group in found.groups),
        "unknown": any(disparity.unknown for disparity in found.disparities),
        "recall": _recall(found, report),
    }


def _recall(found: AttributeResult, report: AuditReport) -> tuple[str, ...]:
    """Names of the per-class recalls to tabulate: multi-class tasks of up to 12 classes."""
    if report.task != "multiclass" or len(report.classes) > 12 or len(found.columns) > 1:
        return ()
    return tuple(f"true_positive_rate[{name}]" for name in report.classes)


def _figure(found: Estimate | Disparity) -> str:
    if found.value is None:
        return "undefined"
    return _end(found.value)


def _ends(found: Estimate | Disparity) -> str:
    if found.value is None:
        return found.reason
    ends = (found.low, found.high)
    if all(end is None for end in ends):
        return "no interval"
    return " to ".join("open" if end is None else _end(end) for end in ends)


def _end(end: float) -> str:
    text = f"{end:.3f}" if abs(end) < 100 else f"{end:,.4g}"
    return text.replace("-", "−") if abs(end) < 100 else text
