"""A tiny project in a folder of its own, and what a run of it needs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from workbench.lifecycle import PipelineResult, load_pipeline, run_pipeline
from workbench.lifecycle.testing import FakeFramework, MemoryWatcher
from workbench.records import MLflowStore

PREPARE = """
import numpy as np
import pandas as pd

from workbench.lifecycle import Prepared


def load(rows=400, shift=1.5, seed=0):
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, rows)
    inputs = random.normal(size=(rows, 4)) + shift * targets[:, None]
    table = pd.DataFrame({"group": random.choice(["a", "b"], rows), "age": random.integers(18, 80, rows)})
    return Prepared(table=table, inputs=inputs, targets=targets)
"""
MODEL = """
def build():
    raise AssertionError("the fake framework never builds it")
"""
PIPELINE = """
name: tiny
prepare: {call: "tiny_prepare:load", rows: 400}
contract: {columns: {age: {type: int, min: 18, max: 80}, group: {values: [a, b]}}}
train:
  model: "tiny_model:build"
  optimizer: {name: sgd, lr: 0.5}
  batch_size: 20
  epochs: 2
  policies: [{grow_with_noise: {max_batch_size: 64}}]
evaluate: {metrics: [accuracy, roc_auc]}
audit: {attributes: [group], gates: [{metric: accuracy_difference, max: 0.9}]}
register: {model: tiny}
deploy: {alias: champion}
"""


class Project:
    """A pipeline's folder, its workspace, and one call that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.workspace = folder / "workspace"
        self.folder.mkdir()
        self.watcher = MemoryWatcher()
        self.framework = FakeFramework()
        self._store: MLflowStore | None = None
        self.write("tiny_prepare.py", PREPARE)
        self.write("tiny_model.py", MODEL)
        self.write("pipeline.yaml", PIPELINE)

    @property
    def store(self) -> MLflowStore:
        if self._store is None:
            self._store = MLflowStore(self.workspace)
        return self._store

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def run(self, *overrides: str, **options: Any) -> PipelineResult:
        self.watcher = MemoryWatcher()
        return run_pipeline(
            load_pipeline(self.folder / "pipeline.yaml", overrides),
            workspace=self.workspace,
            store=options.pop("store", self.store),
            framework=options.pop("framework", self.framework),
            watcher=self.watcher,
            **options,
        )


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's schema without a row: making it takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("schema")
    MLflowStore(folder)
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, empty_database: Path) -> Project:
    made = Project(tmp_path)
    made.workspace.mkdir()
    with (
        closing(sqlite3.connect(empty_database)) as source,
        closing(sqlite3.connect(made.workspace / "mlflow.db")) as target,
    ):
        source.backup(target)
    return made


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, PipelineResult]:
    """A project run once from data to deployment; tests that share it only read."""
    shared = Project(tmp_path_factory.mktemp("deployed"))
    return shared, shared.run()
