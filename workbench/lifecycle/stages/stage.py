"""What a stage is: its function, and what its result depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.lifecycle.keys import StageKey
from workbench.lifecycle.ports import Framework, Watcher
from workbench.lifecycle.results import Kept, Produced

if TYPE_CHECKING:
    from workbench.lifecycle.pipeline import Pipeline
    from workbench.records import MLflowStore

Earlier = Mapping[str, Mapping[str, Any]]
"""The values of the stages before, by name of the stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """All that a stage function is given.

    Attributes:
        pipeline: The settings.
        earlier: What the stages before produced.
        folder: The stage's own folder, for its files.
        run_id: The stage's own run, already started.
        parent_id: The pipeline's run.
        store: The tracking server.
        framework: Trains and predicts.
        watcher: Hears of training steps.
        should_stop: Turns true when the user wants to end.
        resume: Whether ``folder`` may hold an unfinished result to go on from.
    """

    pipeline: Pipeline
    earlier: Earlier
    folder: Path
    run_id: str
    parent_id: str
    store: MLflowStore
    framework: Framework
    watcher: Watcher
    should_stop: Callable[[], bool] = lambda: False
    resume: bool = False

    def folder_of(self, stage: str) -> Path:
        """Return the folder in which an earlier stage left its files."""
        return Path(self.earlier[stage]["folder"])


def _always(kept: Kept, store: MLflowStore) -> str:  # noqa: ARG001 - the default of a protocol
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage: ``run`` makes its result, the rest says when an old result is as good.

    Attributes:
        name: Such as ``train``.
        version: Raised when the stage's own code changes what it makes.
        run: The function.
        settings: The settings that its result depends on.
        inputs: Digests of what it takes from earlier stages.
        code: Digests of the user's code that it runs.
        outdated: Why a kept result no longer holds in the world outside, or empty.
        resumable: Whether its folder is kept for ``--resume`` when it fails.
    """

    name: str
    version: int
    run: Callable[[Task], Produced]
    settings: Callable[[Pipeline], Mapping[str, Any]]
    inputs: Callable[[Earlier], Mapping[str, str]] = lambda _: {}
    code: Callable[[Pipeline], Mapping[str, str]] = field(default=lambda _: {})
    outdated: Callable[[Kept, MLflowStore], str] = _always
    resumable: bool = False

    def key(self, pipeline: Pipeline, earlier: Earlier) -> StageKey:
        """Return what the result depends on."""
        return StageKey(
            stage=self.name,
            settings=self.settings(pipeline),
            inputs=self.inputs(earlier),
            code={**self.code(pipeline), f"workbench {self.name} stage": str(self.version)},
        )
