"""The parent run of a pipeline: started or found again, described, and always ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from workbench.errors import InfrastructureError

from .pipeline import Pipeline
from .ports import Watcher
from .results import held, is_held

if TYPE_CHECKING:
    from workbench.records import MLflowStore, StoredRun

_RUN_STATUS = {"done": "FINISHED", "interrupted": "KILLED"}
_ENDED_WELL = {"done", "refused"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The run that all stages are nested under.

    Attributes:
        run_id: Its identifier.
        name: Its name, such as ``digits-3``.
        resumed: Whether it goes on with a run that did not end well.
    """

    run_id: str
    name: str
    resumed: bool = False


@contextmanager
def open_parent(
    pipeline: Pipeline,
    workspace: Path,
    store: MLflowStore,
    watcher: Watcher,
    *,
    resume: bool,
) -> Iterator[Parent]:
    """Hold the pipeline's parent run, a new one or the last unfinished one.

    Raises:
        InfrastructureError: Server or workspace cannot be used.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    store.ping()
    runs = store.find_runs(tags={"wb.kind": "pipeline", "wb.pipeline": pipeline.name})
    parent = _to_resume(runs, workspace, watcher) if resume else None
    if parent is None:
        parent = _new(pipeline, store, runs)
    with held(_lock(workspace, parent.run_id), f"run {parent.name}"):
        try:
            _describe(pipeline, store, parent)
        except BaseException:
            end_parent(store, parent, "failed", "", {}, watcher.note)
            raise
        yield parent


def end_parent(
    store: MLflowStore,
    parent: Parent,
    status: str,
    message: str,
    tags: Mapping[str, str],
    note: Callable[[str], None],
    *,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """End the parent run as ``status``; a server that is down is noted, not raised."""
    told = {"wb.status": status, "wb.error": message, **tags}
    try:
        if metrics:
            store.log_metrics(parent.run_id, metrics)
        store.set_tags(parent.run_id, {key: value for key, value in told.items() if value})
        store.end_run(parent.run_id, _RUN_STATUS.get(status, "FAILED"))
    except InfrastructureError as error:
        note(f"run {parent.run_id} stays open: {error}")


def _to_resume(runs: list[StoredRun], workspace: Path, watcher: Watcher) -> Parent | None:
    idle = [run for run in runs if not is_held(_lock(workspace, run.run_id))]
    if not idle:
        watcher.note("nothing to resume: this pipeline has no earlier run; starting a new one")
        return None
    unfinished = [run for run in idle if run.tags.get("wb.status") not in _ENDED_WELL]
    if not unfinished:
        last = idle[0]
        watcher.note(
            f"nothing to resume: run {last.name} ended ({last.tags['wb.status']}); "
            "starting a new one"
        )
        return None
    return Parent(run_id=unfinished[0].run_id, name=unfinished[0].name, resumed=True)


def _new(pipeline: Pipeline, store: MLflowStore, runs: list[StoredRun]) -> Parent:
    last = runs[0].name.rpartition("-")[2] if runs else "0"
    name = f"{pipeline.name}-{int(last) + 1 if last.isdigit() else len(runs) + 1}"
    tags = {"wb.kind": "pipeline", "wb.pipeline": pipeline.name, "wb.status": "running"}
    return Parent(run_id=store.start_run(name, tags=tags), name=name)


def _describe(pipeline: Pipeline, store: MLflowStore, parent: Parent) -> None:
    from workbench.records.provenance import provenance

    if parent.resumed:
        store.resume_run(parent.run_id)
        store.set_tags(parent.run_id, {"wb.status": "running", "wb.resumed": "true"})
    source = pipeline.source
    from_where = provenance(source.path.parent if source.path else ".")
    tags = from_where.tags()
    if source.path:
        tags["wb.pipeline_file"] = str(source.path)
    if source.overrides:
        tags["wb.overrides"] = " ".join(source.overrides)
    store.set_tags(parent.run_id, tags)
    if not parent.resumed:  # what was noted once cannot be noted otherwise
        store.log_params(parent.run_id, _params(pipeline))
    if source.text:
        store.log_text(parent.run_id, source.text, "pipeline.yaml")
    resolved = yaml.safe_dump(pipeline.plain(), sort_keys=False)
    store.log_text(parent.run_id, resolved, "pipeline.resolved.yaml")
    store.log_json(parent.run_id, asdict(from_where), "provenance.json")


def _params(pipeline: Pipeline) -> dict[str, Any]:
    """Return the settings of training as ``a.b=c`` would give them, to compare runs by."""
    settings: Mapping[str, Any] = pipeline.plain()["train"]
    return {
        f"train.{name}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
        if value not in (None, {}, [])
    }


def _lock(workspace: Path, run_id: str) -> Path:
    return workspace / "runs" / f"{run_id}.lock"
