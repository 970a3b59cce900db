"""Run a user's own training script in N processes, recorded as one MLflow run."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workbench.adaptors.torch.launch import run_script
from workbench.codec import to_plain
from workbench.errors import InfrastructureError, Interrupted, WorkbenchError
from workbench.lifecycle.ports import PipelineResult, StageResult, Watcher
from workbench.lifecycle.remarks import remarks
from workbench.lifecycle.watching import Follower
from workbench.parts import search_path
from workbench.record import Record
from workbench.records.mlflow_sink import MLflowSink
from workbench.records.provenance import provenance
from workbench.records.shipper import Shipper
from workbench.records.spool_reader import SpoolReader, read_spool, surviving

from .targets import PolicyChoice
from .workspace import Place

if TYPE_CHECKING:
    from workbench.records.mlflow_store import MLflowStore

_DRAIN_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptJob:
    """A script, its own arguments, and how it is to be run.

    Attributes:
        path: The script.
        arguments: What it finds in ``sys.argv[1:]``.
        workers: Processes, 1 or more.
        policies: In place of the script's own; ``None`` leaves those.
    """

    path: Path
    arguments: tuple[str, ...] = ()
    workers: int = 1
    policies: Sequence[PolicyChoice] | None = None


class Launch(Protocol):
    """What runs the script: :func:`workbench.adaptors.torch.launch.run_script`, or a fake."""

    def __call__(
        self,
        path: Path,
        arguments: Sequence[str] = (),
        *,
        workers: int,
        folder: Path,
        policies: Any = None,
        should_stop: Callable[[], bool] = ...,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Run it to its end."""
        ...


def run_script_job(
    job: ScriptJob,
    place: Place,
    store: MLflowStore,
    watcher: Watcher,
    should_stop: Callable[[], bool],
    launch: Launch | None = None,
) -> PipelineResult:
    """Run the script to its end, record it, and say how it ended; expected errors are results.

    Args:
        job: What to run.
        place: Workspace, for the job's folder.
        store: Where its run is recorded.
        watcher: Told of every step.
        should_stop: Asked all the time.
        launch: Starts the processes; the real one by default.
    """
    policies = _paths(job)
    name = job.path.stem
    run_name = f"{name}-{uuid.uuid4().hex[:6]}"
    run_id = store.start_run(run_name, tags=_tags(job), params=_params(job))
    folder = place.workspace / "scripts" / run_id
    folder.mkdir(parents=True)
    spool = folder / "records.jsonl"
    watcher.pipeline_started(name, run_id, run_name)
    watcher.stage_started("train")
    started = time.monotonic()
    # How many samples a script will show, nobody knows but the script.
    follower = Follower(spool, watcher, samples_total=0, epochs=0).start()
    shipper = Shipper(
        SpoolReader(spool), MLflowSink(store, run_id), folder / "shipped.json", report=watcher.note
    ).start()
    error: WorkbenchError | None = None
    try:
        (launch or run_script)(
            job.path.absolute(),
            list(job.arguments),
            workers=job.workers,
            folder=folder,
            policies=policies,
            should_stop=should_stop,
            on_line=print,
        )
    except WorkbenchError as caught:
        error = caught
    finally:
        follower.close()
        sent = shipper.close(timeout=_DRAIN_SECONDS)
    if not sent:
        watcher.note(f"not every number reached {store.tracking_uri}; all are kept in {spool}")
    history = surviving(record for record, _ in read_spool(spool)) if spool.exists() else []
    result = _result(name, run_id, run_name, time.monotonic() - started, history, error)
    watcher.stage_ended(result.stages[0])
    _close(store, folder, result, history, watcher)
    return result


def dry_run(job: ScriptJob, as_json: bool) -> int:
    """Print what would be started."""
    from .output import print_json

    paths = _paths(job)
    if as_json:
        plan = {
            "script": str(job.path),
            "arguments": list(job.arguments),
            "workers": job.workers,
            "policies": paths,
        }
        print_json({"plan": plan, "exit_code": 0})
        return 0
    policies = "the script's own"
    if paths is not None:
        policies = ", ".join(policy["name"] for policy in paths) or "none (watch only)"
    print(f"would run  {shlex.join(['python', str(job.path), *job.arguments])}")
    print(f"workers    {job.workers}")
    print(f"policies   {policies}")
    return 0


def _result(
    name: str,
    run_id: str,
    run_name: str,
    seconds: float,
    history: Sequence[Record],
    error: WorkbenchError | None,
) -> PipelineResult:
    status = "done"
    if error is not None:
        status = "interrupted" if isinstance(error, Interrupted) else "failed"
    stage = StageResult(
        name="train",
        status=status,
        seconds=seconds,
        run_id=run_id,
        summary=str(error) if error else _summary(history),
    )
    return PipelineResult(
        run_id=run_id,
        run_name=run_name,
        pipeline=name,
        status=status,
        exit_code=error.exit_code if error else 0,
        message=str(error) if error else "",
        stages=(stage,),
        metrics=_last_metrics(history),
        decisions=tuple(record for record in history if record.decision.kind != "keep"),
    )


def _summary(history: Sequence[Record]) -> str:
    if not history:
        return "no step was recorded: the script attaches no job (see the docs: your own loop)"
    facts = history[-1].facts
    epochs = f"{facts.epoch + 1} epoch" + ("s" if facts.epoch else "")
    return "; ".join(
        [f"{facts.step:,} steps, {facts.samples:,} samples, {epochs}", *remarks(history)]
    )


def _last_metrics(history: Sequence[Record]) -> dict[str, float]:
    losses = [record.facts.loss for record in history if record.facts.loss is not None]
    return {"loss": losses[-1]} if losses else {}


def _close(
    store: MLflowStore,
    folder: Path,
    result: PipelineResult,
    history: Sequence[Record],
    watcher: Watcher,
) -> None:
    """Keep logs and decisions with the run and end it; a dead server is noted, not raised."""
    ended = {"done": "FINISHED", "interrupted": "KILLED"}.get(result.status, "FAILED")
    try:
        for log in sorted(folder.glob("rank-*.log")):
            store.log_artifact(result.run_id, log, "logs")
        if history:
            store.log_decisions(result.run_id, history)
        tags = {"wb.status": result.status, "wb.error": result.message}
        tags["wb.summary"] = result.stages[0].summary
        store.set_tags(result.run_id, {key: value for key, value in tags.items() if value})
        store.end_run(result.run_id, ended)
    except InfrastructureError as error:
        watcher.note(f"run {result.run_id} stays open: {error}")


def _tags(job: ScriptJob) -> dict[str, str]:
    own = {"wb.kind": "script", "wb.script": str(job.path), "wb.status": "running"}
    return {**provenance(job.path.absolute().parent).tags(), **own}


def _params(job: ScriptJob) -> dict[str, Any]:
    params: dict[str, Any] = {"workers": job.workers, "arguments": shlex.join(job.arguments)}
    if job.policies is not None:
        params["policies"] = [to_plain({p.name: p.options}) for p in job.policies]
    return params


def _paths(job: ScriptJob) -> list[dict[str, Any]] | None:
    """Return the policies as the launcher takes them, each built once here to see that it can be.

    A policy of the user's own is found beside the script, as the script's own imports are.

    Raises:
        ConfigurationError: A policy or one of its options does not exist.
    """
    if job.policies is None:
        return None
    from workbench.policies import build_policy, policy_path

    with search_path([str(job.path.absolute().parent)]):
        for choice in job.policies:
            build_policy(choice.name, choice.options)
    return [{"name": policy_path(p.name), "options": p.options} for p in job.policies]
