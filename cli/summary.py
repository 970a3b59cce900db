"""The end of a run on paper: stages, metrics, decisions and verdicts, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from workbench.codec import to_plain
from workbench.lifecycle.ports import PipelineResult, StageResult

from .words import Told, duration, number, tell

if TYPE_CHECKING:
    from rich.console import Console

    from workbench.lifecycle import Plan

MOST_DECISIONS = 12  # rows of the table; the rest is in `wb show --json` and in MLflow
PLAIN_WIDTH = 120  # where there is no terminal to ask


def print_summary(result: PipelineResult, see: str) -> None:
    """Print the tables on stdout, and ``see``: how to look at the run."""
    console = console_for_result()
    name = result.run_name or result.run_id
    if result.stages:
        print_stages(console, name, result.stages)
    print_metrics(console, result.metrics)
    if result.decisions or training_ended(result.stages):
        print_decisions(console, [tell(record) for record in result.decisions])
    print_verdict(console, result.verdict, result.gates)
    console.print()
    if result.version:
        alias = f", now @{result.alias}" if result.alias else ""
        serve = f"{result.model}@{result.alias}" if result.alias else result.model
        print_line(console, "model", f"{result.model} version {result.version}{alias}")
        print_line(console, "serve it", f"wb serve {serve}")
    if see:
        print_line(console, "see it", see)


def console_for_result() -> Console:
    """Return a console on stdout: the terminal's width, or a fixed one for files and pipes."""
    import sys

    from rich.console import Console

    wide = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(width=wide, highlight=False, soft_wrap=False)


def print_stages(console: Console, title: str, stages: Sequence[StageResult]) -> None:
    """Print the table of stages."""
    from rich.text import Text

    from .live import STYLES

    table = new_table(title, "stage", "", "time", "")
    table.columns[2].justify = "right"
    for stage in stages:
        mark, style = STYLES.get(stage.status, ("·", ""))
        took = "" if stage.status in ("skipped", "waiting", "running") else duration(stage.seconds)
        table.add_row(stage.name, Text(f"{mark} {stage.status}", style), took, Text(stage.summary))
    console.print()
    console.print(table)


def print_metrics(console: Console, metrics: Mapping[str, float]) -> None:
    """Print the metrics on one line each, if there are any."""
    if not metrics:
        return
    table = new_table("metrics", "metric", "value")
    table.columns[1].justify = "right"
    for name, value in metrics.items():
        table.add_row(name, number(value))
    console.print()
    console.print(table)


def training_ended(stages: Sequence[Any]) -> bool:
    """Return whether training came to its end, so that no decision means that none was taken.

    Example:
        >>> training_ended([StageResult(name="train", status="interrupted")])
        False
    """
    return any(stage.name == "train" and stage.status in ("done", "reused") for stage in stages)


def print_decisions(console: Console, decisions: Sequence[Told]) -> None:
    """Print the decisions with their reasons; long histories show their two ends."""
    from rich.text import Text

    if not decisions:
        console.print()
        print_line(console, "decisions", "none: nothing was changed while training")
        return
    policies = sorted({told.policy for told in decisions})
    columns = ["step", "change", "because", "outcome"]
    alone = len(policies) == 1  # then its name is in the title, and the reasons have more room
    title = f"decisions of {policies[0]}" if alone else "decisions"
    table = new_table(title, *columns, *([] if alone else ["by"]))
    table.columns[0].justify = "right"
    for told in _ends(decisions):
        if told is None:
            left_out = len(decisions) - MOST_DECISIONS
            table.add_row("…", Text(f"{left_out:,} more: wb show --json", "dim"))
            continue
        style = {"applied": "green", "refused": "yellow"}.get(told.outcome, "")
        row = [f"{told.step:,}", Text(told.change, "bold"), Text(told.reason)]
        table.add_row(*row, Text(told.answer, style), *([] if alone else [told.policy]))
    console.print()
    console.print(table)


def print_verdict(console: Console, verdict: str, gates: Sequence[str]) -> None:
    """Print the audit's verdict and each gate's sentence."""
    if not verdict and not gates:
        return
    console.print()
    style = {"pass": "bold green", "fail": "bold red"}.get(verdict, "bold yellow")
    print_line(console, "audit", verdict or "no gates", style)
    for sentence in gates:
        print_sentence(console, sentence)


def print_plan(plan: Plan) -> None:
    """Print what would become of every stage."""
    console = console_for_result()
    table = new_table(f"{plan.pipeline} · dry run, nothing was started", "stage", "", "why")
    for stage in plan.stages:
        table.add_row(stage.name, stage.action, stage.why)
    console.print()
    console.print(table)


def result_json(result: PipelineResult, **place: str) -> dict[str, Any]:
    """Return the result as plain values, and ``place``: where it is recorded.

    Example:
        >>> result = PipelineResult(run_id="r", run_name="n", pipeline="p", status="done")
        >>> result_json(result, workspace="w")["exit_code"]
        0
    """
    plain: dict[str, Any] = {
        "run_id": result.run_id,
        "run_name": result.run_name,
        "pipeline": result.pipeline,
        "status": result.status,
        "exit_code": result.exit_code,
        "message": result.message,
        "stages": [asdict(stage) for stage in result.stages],
        "metrics": dict(result.metrics),
        "decisions": [
            {**asdict(tell(record)), "because": to_plain(record.decision.because)}
            for record in result.decisions
        ],
        "verdict": result.verdict,
        "gates": list(result.gates),
        "model": result.model,
        "version": result.version,
        "alias": result.alias,
    }
    return {**plain, **place}


def _ends(decisions: Sequence[Told]) -> list[Told | None]:
    if len(decisions) <= MOST_DECISIONS:
        return list(decisions)
    half = MOST_DECISIONS // 2
    return [*decisions[:half], None, *decisions[-half:]]


def new_table(title: str, *columns: str) -> Any:
    """Return an empty table in the house's style."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, header_style="dim")
    return table


def print_sentence(console: Console, sentence: str) -> None:
    """Print a sentence under its name: wrapped between words on a terminal, whole in a file."""
    from rich.padding import Padding
    from rich.text import Text

    if console.is_terminal:
        console.print(Padding(Text(sentence), (0, 0, 0, 11)))
    else:
        print_line(console, "", sentence)


def print_line(console: Console, name: str, text: str, style: str = "") -> None:
    """Print a name and a text."""
    from rich.text import Text

    console.print(Text.assemble((f"{name:<10} ", "dim"), (text, style)), soft_wrap=True)
