"""Made-up steps, a way to run `wb` as a process, and one workspace for tests that need MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from workbench import Record, SetBatchSize, Signal, Signals, StepFacts
from workbench.decision import Applied, Decision, Keep, Outcome, Refused
from workbench.records import MLflowStore
from workbench.signal import exact

MakeRecord = Callable[..., Record]
Wb = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def make_record() -> MakeRecord:
    return _record


def _record(
    step: int,
    *,
    loss: float | None = 0.5,
    batch_size: int = 64,
    decision: Decision | None = None,
    outcome: Outcome | None = None,
    noise: Signal | None = None,
) -> Record:
    noise = noise or Signal(
        name="noise_scale", value=812.0, low=640.0, high=1010.0, unit="samples", step=step
    )
    throughput = exact("throughput", 6400.0, unit="samples/s", step=step)
    return Record(
        facts=StepFacts(
            step=step,
            epoch=(step - 1) // 100,
            samples=64 * step,
            seconds=0.01,
            workers=2,
            batch_size_global=batch_size,
            batch_size_target=batch_size,
            loss=loss,
            learning_rate=0.1,
        ),
        signals=Signals.of([noise, throughput]),
        decision=decision or Keep(),
        outcome=outcome,
        policy="" if decision is None else "grow_with_noise",
        unix_time=1_700_000_000.0 + 0.01 * step,
    )


@pytest.fixture
def growth(make_record: MakeRecord) -> list[Record]:
    """Four steps; after the second the batch grows, after the third growth is refused."""
    noise = make_record(2).signals["noise_scale"]
    grow = SetBatchSize(128, because=(noise,), reason=f"{noise} is surely above batch size 64")
    more = SetBatchSize(4096, because=(noise,))
    return [
        make_record(1),
        make_record(2, decision=grow, outcome=Applied(step=2, detail="batch size 64 -> 128")),
        make_record(3, batch_size=128, decision=more, outcome=Refused("more than the data set")),
        make_record(4, batch_size=128),
    ]


@pytest.fixture
def wb(tmp_path: Path) -> Wb:
    """Run ``wb`` in an empty folder, with nothing of this session's environment that it reads."""

    def run(
        *args: str, environment: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workbench.cli", *args],
            env=clean_environment() | dict(environment or {}),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def clean_environment() -> dict[str, str]:
    unwanted = {"WB_WORKSPACE", "MLFLOW_TRACKING_URI", "NO_COLOR", "FORCE_COLOR", "COLUMNS"}
    kept = {key: value for key, value in os.environ.items() if key not in unwanted}
    return kept | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no environment that ``wb`` reads."""
    for name in ("WB_WORKSPACE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> MLflowStore:
    """Making MLflow's database takes seconds: tests share one, each with runs of its own."""
    return MLflowStore(tmp_path_factory.mktemp("workspace"))
