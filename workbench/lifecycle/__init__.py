"""From data to deployment: a pipeline's settings, its stages, the runner and the story of a run.

Names are imported when they are first used: a training worker reads ``ports`` with the standard
library alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import find_problems
    from .data import Prepared, split_rows
    from .loading import load_pipeline, loading_problems
    from .pipeline import Pipeline, pipeline_schema
    from .planning import Plan, PlannedStage, plan
    from .ports import Framework, PipelineResult, StageResult, Trained, TrainOrder, Watcher
    from .runner import run_pipeline
    from .story import Story, tell

_HOMES = {
    "Framework": "ports",
    "Pipeline": "pipeline",
    "PipelineResult": "ports",
    "Plan": "planning",
    "PlannedStage": "planning",
    "Prepared": "data",
    "StageResult": "ports",
    "Story": "story",
    "TrainOrder": "ports",
    "Trained": "ports",
    "Watcher": "ports",
    "find_problems": "checks",
    "load_pipeline": "loading",
    "loading_problems": "loading",
    "pipeline_schema": "pipeline",
    "plan": "planning",
    "run_pipeline": "runner",
    "split_rows": "data",
    "tell": "story",
}

__all__ = [
    "Framework",
    "Pipeline",
    "PipelineResult",
    "Plan",
    "PlannedStage",
    "Prepared",
    "StageResult",
    "Story",
    "TrainOrder",
    "Trained",
    "Watcher",
    "find_problems",
    "load_pipeline",
    "loading_problems",
    "pipeline_schema",
    "plan",
    "run_pipeline",
    "split_rows",
    "tell",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
