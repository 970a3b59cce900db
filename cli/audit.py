"""`wb audit`: a table of predictions, audited for group fairness."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.errors import GateError, InfrastructureError

from .errors import one_line
from .options import Debug, Json
from .output import only_the_result_on_stdout
from .words import number

if TYPE_CHECKING:
    from rich.console import Console

    from workbench.fairness import AttributeResult, AuditReport, Estimate

MOST_METRICS = 4  # columns of a table on a terminal; all are in --json and in the report
MOST_GROUPS = 24


def audit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, .csv.gz or .parquet file.")],
    label: Annotated[str, typer.Option(metavar="Y", help="Column of the true label.")],
    prediction: Annotated[str, typer.Option(metavar="P", help="Column of the prediction.")],
    attribute: Annotated[
        list[str], typer.Option(metavar="A", help="Column that names groups; repeatable.")
    ],
    score: Annotated[
        str | None, typer.Option(metavar="S", help="Column of the model's score.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GATE", help="Such as 'demographic_parity_difference<=0.2@SEX'; repeatable."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write the report as one HTML file.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Audit a table of predictions for group fairness.

    Exit code 3 when a gate refuses.
    """
    del debug
    from workbench.fairness import audit_file

    with only_the_result_on_stdout(as_json):
        found = audit_file(
            file,
            label=label,
            prediction=prediction,
            score=score,
            attributes=attribute,
            gates=gate or (),
        )
        if report is not None:
            _save(found, report)
    if as_json:
        print(found.to_json(indent=None))
    else:
        _print(found)
        if report is not None:
            print(f"report     {report}")
    if found.refused:
        print(f"wb: {one_line(found.refusal)}", file=sys.stderr)
        return GateError.exit_code
    return 0


def _save(found: AuditReport, path: Path) -> None:
    from workbench.fairness import save_report

    try:
        save_report(found, path)
    except OSError as error:
        raise InfrastructureError(
            f"report {path} cannot be written ({error.strerror or error}); give --report a file "
            "in a folder that this user may write"
        ) from error


def _print(report: AuditReport) -> None:
    from .summary import console_for_result, print_line, print_verdict

    console = console_for_result()
    unlabelled = report.rows - report.labelled
    without = f", {unlabelled:,} without a label" if unlabelled else ""
    print_line(console, "rows", f"{report.rows:,}{without}")
    for found in report.attributes:
        _print_attribute(console, found)
    for note in report.notes:
        print_line(console, "note", note, "yellow")
    print_verdict(console, report.verdict or "", [gate.reason for gate in report.gates])


def _print_attribute(console: Console, found: AttributeResult) -> None:
    from .summary import new_table, print_line

    shown = [estimate.metric for estimate in found.groups[0].estimates][:MOST_METRICS]
    table = new_table(found.attribute, "group", "rows", *(name.replace("_", " ") for name in shown))
    for column in table.columns[1:]:
        column.justify = "right"
    for group in found.groups[:MOST_GROUPS]:
        cells = [_cell(group.estimate(metric)) for metric in shown]
        table.add_row(group.group, f"{group.rows:,}", *cells)
    console.print(table)
    if len(found.groups) > MOST_GROUPS:
        left_out = len(found.groups) - MOST_GROUPS
        print_line(console, "", f"{left_out:,} more groups: --json or --report FILE.html", "dim")


def _cell(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    if estimate.low is None or estimate.high is None:
        return number(estimate.value)
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
