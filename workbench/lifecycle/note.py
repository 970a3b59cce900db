"""The story of a run as a short Markdown note, which MLflow's UI shows as the run's description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .ports import PipelineResult, StageResult

NOTE_TAG = "mlflow.note.content"
MOST_ROWS = 12  # decisions in a note; the rest is in decisions.json
_LONGEST = 5000  # characters; a tag of MLflow holds 8,000 bytes, and a sign takes up to three


def pipeline_note(result: PipelineResult, experiment_id: str) -> str:
    """Return stages, decisions with their reasons, verdict and deployment, with links.

    Args:
        result: How the pipeline ended.
        experiment_id: Of its runs, for the links.

    Example:
        >>> stage = StageResult(name="train", status="done", seconds=2, summary="9 steps")
        >>> result = PipelineResult(run_id="r", run_name="a-1", pipeline="a", status="done",
        ...                         stages=(stage,))
        >>> print(pipeline_note(result, "1"))
        **done**
        <BLANKLINE>
        | stage | status | seconds | result |
        | --- | --- | --- | --- |
        | train | done | 2.0 | 9 steps |
    """
    from workbench.records import decision_rows

    rows = decision_rows(result.decisions) if result.decisions else []
    blocks = [_headline(result, len(rows)), _stages(result.stages, experiment_id)]
    if rows:
        blocks.append(_decisions(rows))
    if result.verdict:
        blocks.append("\n".join([f"**Audit: {result.verdict}**", "", *_points(result.gates)]))
    return _fitted(blocks)


def run_address(experiment_id: str, run_id: str) -> str:
    """Return a run's address inside MLflow's UI, which else opens as one for prompts and agents.

    Example:
        >>> run_address("1", "3f2a")
        '#/experiments/1/runs/3f2a?workflowType=machine_learning'
    """
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def train_note(summary: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how training went and what was decided, with where to look for more.

    Args:
        summary: One line.
        rows: As in ``decisions.json``.

    Example:
        >>> train_note("9 steps, loss 0.1", []).splitlines()[2]
        'No policy asked for a change.'
    """
    if not rows:
        return _fitted([_cell(summary), "No policy asked for a change."])
    more = (
        "All of them are in *Artifacts*, decisions.json, and in *Traces*; the estimates behind "
        "them, with the ends of their intervals (`_low`, `_high`), are in *Model metrics*."
    )
    return _fitted([_cell(summary), _decisions(rows), more])


def stage_note(summary: str, values: Mapping[str, Any]) -> str:
    """Return a stage's line, and each gate's sentence where gates were judged.

    Example:
        >>> stage_note("two groups: pass", {"gates": ["the gap is small"]})
        'two groups: pass\\n\\n- the gap is small'
    """
    gates = values.get("gates")
    points = "\n".join(_points(gates)) if isinstance(gates, (list, tuple)) else ""
    return _fitted([part for part in (_cell(summary), points) if part])


def version_note(metrics: Mapping[str, float], verdict: str) -> str:
    """Return what speaks for a model version: its metrics and the audit's verdict.

    Example:
        >>> version_note({"accuracy": 0.98123}, "pass")
        'accuracy 0.9812; audit: pass'
    """
    told = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    return f"{told}; audit: {verdict}" if told else f"audit: {verdict}"


def _stages(stages: Iterable[StageResult], experiment_id: str) -> str:
    rows = [
        (_linked(stage, experiment_id), stage.status, f"{stage.seconds:.1f}", _cell(stage.summary))
        for stage in stages
    ]
    return _table(("stage", "status", "seconds", "result"), rows)


def _linked(stage: StageResult, experiment_id: str) -> str:
    if not stage.run_id:
        return stage.name
    return f"[{stage.name}]({run_address(experiment_id, stage.run_id)})"


def _decisions(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (str(row["step"]), *map(_cell, (_change(row), _why(row), _answer(row))))
        for row in rows[:MOST_ROWS]
    ]
    table = _table(("after step", "decision", "because", "outcome"), cells)
    left = len(rows) - MOST_ROWS
    return f"{table}\n\nand {left} more" if left > 0 else table


def _change(row: Mapping[str, Any]) -> str:
    what = str(row["decision"]).removeprefix("set_").replace("_", " ")
    before = f" {row['batch_size_before']} →" if row["decision"] == "set_batch_size" else ""
    return what if row["value"] is None else f"{what}{before} {row['value']}"


def _why(row: Mapping[str, Any]) -> str:
    return str(row["reason"] or row["signals"])


def _answer(row: Mapping[str, Any]) -> str:
    detail = "" if row["outcome"] == "applied" or not row["detail"] else f": {row['detail']}"
    return f"{row['outcome']}{detail}"


def _headline(result: PipelineResult, decisions: int) -> str:
    """Return the whole story in a line: MLflow's UI folds away all but the first lines."""
    said = f": {_cell(result.message)}" if result.message else ""
    parts = [f"**{result.status}**{said}"]
    if decisions:
        parts.append(f"{decisions} decision{'s' if decisions > 1 else ''}")
    if result.verdict:
        parts.append(f"audit: {result.verdict}")
    if result.version:
        link = f"#/models/{result.model}/versions/{result.version}"
        now = f", now `@{result.alias}`" if result.alias else ""
        parts.append(f"[{result.model} version {result.version}]({link}){now}")
    return " · ".join(parts)


def _points(sentences: Iterable[str]) -> list[str]:
    return [f"- {_cell(sentence)}" for sentence in sentences]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return the text on one line, with what Markdown would take for markup made plain."""
    plain = " ".join(text.split())
    for sign in ("|", "<", "*", "_", "`"):
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def _fitted(blocks: Iterable[str]) -> str:
    """Return as many whole blocks as a tag holds."""
    kept, left = [], _LONGEST
    for block in blocks:
        if len(block) > left:
            kept.append("The rest is in *Artifacts* and in `wb show`.")
            break
        kept.append(block)
        left -= len(block) + 2
    return "\n\n".join(kept)
