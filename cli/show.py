"""`wb show`: the story of a run, told from what MLflow holds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.lifecycle.ports import StageResult

from .options import Debug, Json, TrackingUri, Workspace
from .output import print_json
from .runs import LATEST, find_run
from .ui import how_to_see
from .words import duration, tell_row
from .workspace import Place, open_store, place_from

if TYPE_CHECKING:
    from workbench.lifecycle import Story
    from workbench.records.mlflow_store import MLflowStore
    from workbench.records.stored import StoredRun


def show(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="A run's name, its id, or latest.")
    ] = LATEST,
    as_json: Json = False,
    workspace: Workspace = None,
    tracking_uri: TrackingUri = None,
    debug: Debug = False,
) -> int:
    """Tell the story of a run: stages, metrics, decisions, verdicts."""
    del debug
    place = place_from(workspace, tracking_uri)
    store = open_store(place, to_read=True)
    story = story_of(store, find_run(store, run))
    if as_json:
        from dataclasses import asdict

        print_json({**asdict(story), "see": how_to_see(place, story.run_id)})
    else:
        print_story(story, place)
    return 0


def story_of(store: MLflowStore, run: StoredRun) -> Story:
    """Return the story of a pipeline's run, of one of its stages, or of a script's run."""
    from workbench.lifecycle import tell

    return (
        _script_story(store, run)
        if run.tags.get("wb.kind") == "script"
        else tell(store, run.run_id)
    )


def print_story(story: Story, place: Place) -> None:
    """Print the story as tables."""
    from .summary import (
        console_for_result,
        print_decisions,
        print_line,
        print_metrics,
        print_stages,
        print_verdict,
        training_ended,
    )

    console = console_for_result()
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(story.started_unix))
    took = f", took {duration(story.seconds)}" if story.seconds is not None else ""
    style = {"done": "green", "failed": "red", "refused": "yellow"}.get(story.status, "")
    print_line(console, "run", f"{story.name} ({story.run_id})", "bold")
    print_line(console, "status", story.status, style)
    print_line(console, "started", started + took)
    for name, text in _origin(story).items():
        print_line(console, name, text)
    if story.message:
        print_line(console, "why", story.message, style)
    print_stages(console, "", [_stage(stage) for stage in story.stages])
    print_metrics(console, story.metrics)
    if story.decisions or training_ended(story.stages):
        print_decisions(console, [tell_row(row) for row in story.decisions])
    print_verdict(console, story.verdict, [str(gate.get("reason", gate)) for gate in story.gates])
    console.print()
    if story.version:
        alias = f", was given @{story.alias}" if story.alias else ""
        print_line(console, "model", f"{story.model} version {story.version}{alias}")
    print_line(console, "see it", how_to_see(place, story.run_id))


def _stage(stage: Any) -> StageResult:
    return StageResult(
        name=stage.name,
        status=stage.status,
        seconds=stage.seconds or 0.0,
        summary=stage.error or stage.summary,
    )


def _origin(story: Story) -> dict[str, str]:
    tags = story.provenance
    commit = tags.get("mlflow.source.git.commit", "")
    dirty = " (with changes that are not committed)" if tags.get("wb.git.dirty") == "true" else ""
    found = {
        "command": tags.get("wb.command", ""),
        "commit": commit[:12] + dirty if commit else "",
        "by": " on ".join(tags[key] for key in ("wb.user", "wb.host") if key in tags),
    }
    return {name: text for name, text in found.items() if text}


def _script_story(store: MLflowStore, run: StoredRun) -> Story:
    from workbench.lifecycle.story import Story, StoryStage

    status = run.tags.get("wb.status", run.status.lower())
    seconds = None if run.ended_unix is None else run.ended_unix - run.started_unix
    stage = StoryStage(
        name="train",
        status=status,
        run_id=run.run_id,
        seconds=seconds,
        summary=run.tags.get("wb.summary", ""),
        error=run.tags.get("wb.error", ""),
        metrics=run.metrics,
    )
    return Story(
        run_id=run.run_id,
        name=run.name,
        pipeline=Path(run.tags.get("wb.script", "")).stem,
        status=status,
        message=stage.error,
        started_unix=run.started_unix,
        seconds=seconds,
        stages=(stage,),
        metrics={"loss": run.metrics["loss"]} if "loss" in run.metrics else {},
        params=run.params,
        decisions=tuple(_decisions(store, run.run_id)),
        provenance=run.tags,
    )


def _decisions(store: MLflowStore, run_id: str) -> list[dict[str, Any]]:
    if "decisions.json" not in store.artifact_names(run_id):
        return []
    table = json.loads(store.artifact_path(run_id, "decisions.json").read_text(encoding="utf-8"))
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
