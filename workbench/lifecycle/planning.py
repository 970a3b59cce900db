"""What a run would do, without doing it: each stage runs or is reused, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .pipeline import STAGES, Pipeline
from .results import latest_key, stage_folder
from .runner import find_reusable
from .stages import ALL_STAGES

if TYPE_CHECKING:
    from workbench.records import MLflowStore


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """What would become of one stage.

    Attributes:
        name: ``prepare`` ... ``deploy``.
        action: ``run``, ``reuse``, ``skip`` or ``open`` (an earlier stage runs: this one is
            reused if that one's result turns out the same).
        why: In words.
    """

    name: str
    action: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would become of every stage, in order."""

    pipeline: str
    stages: tuple[PlannedStage, ...]

    def lines(self) -> list[str]:
        """Return it as one line a stage.

        Example:
            >>> Plan(pipeline="p", stages=(PlannedStage(name="train", action="run",
            ...      why="never ran"),)).lines()
            ['train     run    never ran']
        """
        return [f"{stage.name:<9} {stage.action:<6} {stage.why}" for stage in self.stages]


def plan(pipeline: Pipeline, workspace: Path, store: MLflowStore | None = None) -> Plan:
    """Return what :func:`run_pipeline` would do now; nothing is imported, called or written.

    Args:
        pipeline: The settings.
        workspace: Folder of the stages' results; it may not exist.
        store: With it, results whose run or version is gone are found out; without, the workspace
            is trusted.
    """
    planned: list[PlannedStage] = []
    earlier: dict[str, dict[str, Any]] = {}
    running = ""
    for name in STAGES:
        if name not in pipeline.stages:
            planned.append(PlannedStage(name=name, action="skip", why="not in the pipeline"))
            continue
        if running:
            why = f"reused only if {running} gives the same result as before"
            planned.append(PlannedStage(name=name, action="open", why=why))
            continue
        stage = ALL_STAGES[name]
        key = stage.key(pipeline, earlier)
        kept = find_reusable(stage, stage_folder(workspace.absolute(), key), store)
        if kept:
            earlier[name] = {**kept.produced.values, "run_id": kept.run_id}
            why = f"same settings, inputs and code as run {kept.run_id[:8]}"
            planned.append(PlannedStage(name=name, action="reuse", why=why))
            continue
        before = latest_key(workspace.absolute(), name)
        changed = key.changed_since(before) if before else "never ran"
        planned.append(PlannedStage(name=name, action="run", why=changed or "its run is gone"))
        running = name
    return Plan(pipeline=pipeline.name, stages=tuple(planned))
