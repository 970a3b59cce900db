"""The story of a pipeline run, told from the tracking server alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import UsageError

from .pipeline import STAGES

if TYPE_CHECKING:
    from workbench.records import MLflowStore, StoredRun


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryStage:
    """One stage as it was recorded.

    Attributes:
        name: Such as ``train``.
        status: ``done``, ``reused``, ``refused``, ``failed``, ``interrupted`` or ``running``.
        run_id: Its run.
        seconds: How long it took; ``None`` while it runs.
        reused_from: The run whose result it took, or empty.
        summary: One line.
        error: Why it failed, or empty.
        metrics: Last value of each.
    """

    name: str
    status: str
    run_id: str
    seconds: float | None = None
    reused_from: str = ""
    summary: str = ""
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything ``wb show`` prints.

    Attributes:
        run_id: The parent run.
        name: Its name.
        pipeline: The pipeline's name.
        status: ``done``, ``failed``, ``refused``, ``interrupted`` or ``running``.
        message: Why it did not end well, or empty.
        started_unix: Seconds since 1970.
        seconds: How long it took; ``None`` while it runs.
        stages: In order; attempts that ``--resume`` gave up are left out.
        metrics: Of the evaluate stage.
        params: Of the train stage.
        decisions: Rows as in ``decisions.json`` of the training run.
        verdict: Of the audit, or empty.
        gates: Each gate as in ``audit.json``: metric, attribute, verdict, reason ...
        model: Registered name, or empty.
        version: Registered version, or empty.
        alias: Alias given by this run, or empty.
        deployment: The deployment record, empty without one.
        provenance: Tags on where it came from: command, commit, user, machine.
    """

    run_id: str
    name: str
    pipeline: str
    status: str
    message: str = ""
    started_unix: float = 0.0
    seconds: float | None = None
    stages: tuple[StoryStage, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[Mapping[str, Any], ...] = ()
    verdict: str = ""
    gates: tuple[Mapping[str, Any], ...] = ()
    model: str = ""
    version: str = ""
    alias: str = ""
    deployment: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


def tell(store: MLflowStore, run_id: str) -> Story:
    """Return the story of the pipeline run ``run_id``; a stage's run leads to its pipeline's.

    Raises:
        UsageError: There is no such run, or it is no run of a pipeline.
    """
    run = store.get_run(run_id)
    if run.tags.get("wb.kind") == "stage" and run.parent_id:
        run = store.get_run(run.parent_id)
    if run.tags.get("wb.kind") != "pipeline":
        raise UsageError(
            f"run {run_id} is not the run of a pipeline; wb show lists those there are"
        )
    stages = _stages(store, run)
    makers = {
        name: child.tags.get("wb.reused_from", child.run_id) for name, child in stages.items()
    }
    trained = store.get_run(makers["train"]) if "train" in makers else None
    audit = _json_of(store, makers.get("audit"), "audit.json")
    return Story(
        run_id=run.run_id,
        name=run.name,
        pipeline=run.tags.get("wb.pipeline", ""),
        status=run.tags.get("wb.status", run.status.lower()),
        message=run.tags.get("wb.error", ""),
        started_unix=run.started_unix,
        seconds=_seconds(run),
        stages=tuple(_stage(name, child) for name, child in stages.items()),
        metrics=stages["evaluate"].metrics if "evaluate" in stages else {},
        params=trained.params if trained else {},
        decisions=tuple(_rows(_json_of(store, makers.get("train"), "decisions.json"))),
        verdict=run.tags.get("wb.verdict", ""),
        gates=tuple(audit.get("gates", ())),
        model=run.tags.get("wb.model", ""),
        version=run.tags.get("wb.version", ""),
        alias=run.tags.get("wb.alias", ""),
        deployment=_json_of(store, makers.get("deploy"), "deployment.json"),
        provenance={key: value for key, value in run.tags.items() if _tells_origin(key)},
    )


def _stages(store: MLflowStore, parent: StoredRun) -> dict[str, StoredRun]:
    latest = {run.tags.get("wb.stage", run.name): run for run in store.children(parent.run_id)}
    return {name: latest[name] for name in STAGES if name in latest}


def _stage(name: str, run: StoredRun) -> StoryStage:
    return StoryStage(
        name=name,
        status=run.tags.get("wb.status", run.status.lower()),
        run_id=run.run_id,
        seconds=_seconds(run),
        reused_from=run.tags.get("wb.reused_from", ""),
        summary=run.tags.get("wb.summary", ""),
        error=run.tags.get("wb.error", ""),
        metrics=run.metrics,
    )


def _seconds(run: StoredRun) -> float | None:
    return None if run.ended_unix is None else run.ended_unix - run.started_unix


def _json_of(store: MLflowStore, run_id: str | None, name: str) -> dict[str, Any]:
    if run_id is None or name not in store.artifact_names(run_id):
        return {}
    value = json.loads(Path(store.artifact_path(run_id, name)).read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _rows(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = table.get("columns", [])
    return [dict(zip(columns, row, strict=True)) for row in table.get("data", [])]


def _tells_origin(key: str) -> bool:
    return key.startswith(("wb.git", "mlflow.source.")) or key in {
        "wb.command",
        "wb.user",
        "wb.host",
        "wb.cpu",
        "wb.cores",
        "wb.gpus",
        "wb.python",
        "wb.torch",
        "wb.pipeline_file",
        "wb.overrides",
    }
