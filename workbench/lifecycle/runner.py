"""Walk the stages of a pipeline: reuse or run each, record it, and end every run properly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import GateError, InfrastructureError, Interrupted, WorkbenchError
from workbench.record import Record

from .faults import as_workbench_error
from .inputs import link_data
from .note import NOTE_TAG, pipeline_note, stage_note
from .parents import Parent, end_parent, open_parent
from .pipeline import STAGES, Pipeline
from .ports import SPOOL, Framework, PipelineResult, StageResult, Watcher
from .results import Kept, Produced, empty, find_kept, held, keep, stage_folder
from .stages import ALL_STAGES, Stage, Task
from .stages.prepare import check_later_stages

if TYPE_CHECKING:
    from workbench.records import MLflowStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One walk through a pipeline, and all it may use."""

    pipeline: Pipeline
    workspace: Path
    store: MLflowStore
    framework: Framework
    watcher: Watcher
    parent: Parent
    should_stop: Callable[[], bool]


@dataclass(slots=True)
class Walked:
    """What a walk has produced so far."""

    stages: list[StageResult] = field(default_factory=list)
    earlier: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: Path | None = None  # its folder, known also when training does not come to its end
    error: WorkbenchError | None = None


def run_pipeline(
    pipeline: Pipeline,
    *,
    workspace: Path,
    store: MLflowStore,
    framework: Framework,
    watcher: Watcher,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> PipelineResult:
    """Run a pipeline from data to deployment; faults of every expected kind are in the result.

    A stage whose settings, inputs and code are those of a result in the workspace is reused. Each
    stage is a run nested under one parent run, and none is left open.

    Args:
        pipeline: The settings.
        workspace: Folder for the stages' results.
        store: The tracking server.
        framework: Trains and predicts.
        watcher: Hears of progress.
        resume: Go on with this pipeline's last run if it did not end well: in the same parent run,
            from the last checkpoint.
        should_stop: Turns true when the user wants to end; asked between stages and in training.

    Returns:
        The result, with ``exit_code`` and the one line of a failure.
    """
    try:
        with open_parent(pipeline, workspace.absolute(), store, watcher, resume=resume) as parent:
            session = Session(
                pipeline=pipeline,
                workspace=workspace.absolute(),
                store=store,
                framework=framework,
                watcher=watcher,
                parent=parent,
                should_stop=should_stop,
            )
            return _run(session)
    except (WorkbenchError, OSError) as error:
        fault = as_workbench_error(error, workspace)
        return PipelineResult(
            run_id="",
            run_name="",
            pipeline=pipeline.name,
            status="failed",
            exit_code=fault.exit_code,
            message=str(fault),
        )


def _run(session: Session) -> PipelineResult:
    session.watcher.pipeline_started(
        session.pipeline.name, session.parent.run_id, session.parent.name
    )
    walked = Walked()
    try:
        _walk(session, walked)
    except BaseException:
        end_parent(session.store, session.parent, "failed", "", {}, session.watcher.note)
        raise
    result = _result(session, walked)
    end_parent(
        session.store,
        session.parent,
        result.status,
        result.message,
        {
            "wb.verdict": result.verdict,
            "wb.model": result.model,
            "wb.version": result.version,
            "wb.alias": result.alias,
            NOTE_TAG: pipeline_note(result, session.store.experiment_id),
        },
        session.watcher.note,
        metrics=result.metrics,
    )
    return result


def _walk(session: Session, walked: Walked) -> None:
    for name in STAGES:
        if name not in session.pipeline.stages:
            result = StageResult(name=name, status="skipped", summary="not in the pipeline")
        elif walked.error is not None:
            result = StageResult(name=name, status="skipped", summary="not reached")
        else:
            session.watcher.stage_started(name)
            result = _stage(session, ALL_STAGES[name], walked)
        walked.stages.append(result)
        session.watcher.stage_ended(result)


def _stage(session: Session, stage: Stage, walked: Walked) -> StageResult:
    began = time.monotonic()
    run_id = ""
    try:
        if session.should_stop():
            raise Interrupted(f"interrupted before {stage.name}; wb run --resume goes on")
        key = stage.key(session.pipeline, walked.earlier)
        folder = stage_folder(session.workspace, key)
        with held(folder.with_suffix(".lock"), f"stage {stage.name} with these settings"):
            kept = find_reusable(stage, folder, session.store)
            if kept is None:
                run_id = _start_run(session, stage, key.digest)
                if not (session.parent.resumed and stage.resumable):
                    empty(folder)
                folder.mkdir(parents=True, exist_ok=True)
                if stage.name == "train":
                    walked.training = folder
                produced = stage.run(_task(session, walked, stage, folder, run_id))
                _record(session, run_id, folder, produced)
                keep(folder, key, run_id, produced)
                kept = Kept(key=key, run_id=run_id, produced=produced)
                result = _done(stage, kept, run_id, "done")
            else:
                run_id = _record_reuse(session, stage, kept)
                result = _done(stage, kept, run_id, "reused")
            if stage.name == "prepare":
                check_later_stages(session.pipeline, kept.produced.values)
                values, parent = kept.produced.values, session.parent
                link_data(session.store, parent.run_id, session.pipeline.name, values, "pipeline")
    except (WorkbenchError, OSError, KeyboardInterrupt) as error:
        walked.error = as_workbench_error(error, session.workspace, stage.name)
        result = _failed(session, stage.name, run_id, walked.error)
    except BaseException:
        _end_run(session, run_id, "FAILED", {"wb.status": "failed"})
        raise
    else:
        walked.earlier[stage.name] = {**kept.produced.values, "run_id": kept.run_id}
        if kept.produced.refused:
            walked.error = GateError(
                f"{kept.produced.refused.rstrip('.')}; nothing was promoted, the report is kept"
            )
    return replace(result, seconds=time.monotonic() - began)


def find_reusable(stage: Stage, folder: Path, store: MLflowStore | None) -> Kept | None:
    """Return the result in ``folder`` if it still holds: its run finished, the world unchanged."""
    kept = find_kept(folder)
    if kept is None or kept.produced.values.get("folder", str(folder)) != str(folder):
        return None  # a workspace that was moved holds paths that no longer exist
    if store is None:
        return kept
    found = store.find_runs(tags={"wb.key": kept.key.digest, "wb.stage": stage.name})
    if not any(run.run_id == kept.run_id and run.finished for run in found):
        return None
    return None if stage.outdated(kept, store) else kept


def _task(session: Session, walked: Walked, stage: Stage, folder: Path, run_id: str) -> Task:
    return Task(
        pipeline=session.pipeline,
        earlier=walked.earlier,
        folder=folder,
        run_id=run_id,
        parent_id=session.parent.run_id,
        store=session.store,
        framework=session.framework,
        watcher=session.watcher,
        should_stop=session.should_stop,
        resume=session.parent.resumed and stage.resumable,
    )


def _start_run(session: Session, stage: Stage, key: str) -> str:
    tags = {"wb.kind": "stage", "wb.stage": stage.name, "wb.key": key, "wb.status": "running"}
    if session.parent.resumed and stage.resumable:
        for run in session.store.find_runs(tags={"wb.key": key}, parent_id=session.parent.run_id):
            if not run.finished:
                session.store.resume_run(run.run_id)
                session.store.set_tags(run.run_id, tags)
                return run.run_id
    return session.store.start_run(stage.name, parent_id=session.parent.run_id, tags=tags)


def _record(session: Session, run_id: str, folder: Path, produced: Produced) -> None:
    store = session.store
    if produced.params:
        store.log_params(run_id, produced.params)
    store.log_metrics(run_id, produced.metrics)
    for name in produced.artifacts:
        store.log_artifact(run_id, folder / name)
    status = "refused" if produced.refused else "done"
    note = {NOTE_TAG: stage_note(produced.summary, produced.values), **produced.tags}
    store.set_tags(run_id, {**note, "wb.summary": produced.summary, "wb.status": status})
    store.end_run(run_id)


def _record_reuse(session: Session, stage: Stage, kept: Kept) -> str:
    store = session.store
    if store.get_run(kept.run_id).parent_id == session.parent.run_id:
        return kept.run_id  # done by an earlier attempt at this very pipeline run
    run_id = store.start_run(
        stage.name,
        parent_id=session.parent.run_id,
        tags={
            NOTE_TAG: stage_note(kept.produced.summary, kept.produced.values),
            **kept.produced.tags,
            "wb.kind": "stage",
            "wb.stage": stage.name,
            "wb.status": "reused",
            "wb.reused_from": kept.run_id,
            "wb.summary": kept.produced.summary,
        },
    )
    store.log_metrics(run_id, kept.produced.metrics)
    store.end_run(run_id)
    return run_id


def _done(stage: Stage, kept: Kept, run_id: str, status: str) -> StageResult:
    return StageResult(
        name=stage.name,
        status="refused" if kept.produced.refused else status,
        run_id=run_id,
        reused_from=kept.run_id if status == "reused" else "",
        summary=kept.produced.summary,
        values=kept.produced.values,
    )


def _failed(session: Session, name: str, run_id: str, error: WorkbenchError) -> StageResult:
    status = "interrupted" if isinstance(error, Interrupted) else "failed"
    run_status = "KILLED" if status == "interrupted" else "FAILED"
    _end_run(session, run_id, run_status, {"wb.status": status, "wb.error": str(error)})
    return StageResult(name=name, status=status, run_id=run_id, summary=str(error))


def _end_run(session: Session, run_id: str, status: str, tags: Mapping[str, str]) -> None:
    if not run_id:
        return
    try:
        session.store.set_tags(run_id, tags)
        session.store.end_run(run_id, status)
    except InfrastructureError as error:
        session.watcher.note(f"run {run_id} stays open: {error}")


def _result(session: Session, walked: Walked) -> PipelineResult:
    earlier, error = walked.earlier, walked.error
    deployed = earlier.get("deploy", {})
    registered = earlier.get("register", {})
    return PipelineResult(
        run_id=session.parent.run_id,
        run_name=session.parent.name,
        pipeline=session.pipeline.name,
        status=_status(error),
        exit_code=error.exit_code if error else 0,
        message=str(error) if error else "",
        stages=tuple(walked.stages),
        metrics=earlier.get("evaluate", {}).get("metrics", {}),
        decisions=_decisions(walked),
        verdict=earlier.get("audit", {}).get("verdict", ""),
        gates=tuple(earlier.get("audit", {}).get("gates", ())),
        model=registered.get("model", ""),
        version=str(registered.get("version", "")),
        alias=deployed.get("alias", ""),
    )


def _status(error: WorkbenchError | None) -> str:
    if error is None:
        return "done"
    if isinstance(error, GateError):
        return "refused"
    return "interrupted" if isinstance(error, Interrupted) else "failed"


def _decisions(walked: Walked) -> tuple[Record, ...]:
    """Return what was decided, from the spool: also when training was interrupted or failed."""
    from workbench.records import read_spool, surviving

    spool = walked.earlier.get("train", {}).get("records")
    if not spool and walked.training:
        spool = walked.training / SPOOL
    if not spool or not Path(spool).exists():
        return ()
    history = surviving(record for record, _ in read_spool(spool))
    return tuple(record for record in history if record.decision.kind != "keep")
