"""Records of made-up steps, and one MLflow database for all tests here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from workbench import Record, SetBatchSize, Signal, Signals, StepFacts
from workbench.decision import Applied, Decision, Keep, Outcome
from workbench.records import MLflowStore

MakeRecord = Callable[..., Record]


@pytest.fixture
def make_record() -> MakeRecord:
    return _record


def _record(
    step: int,
    *,
    loss: float = 0.5,
    batch_size: int = 64,
    decision: Decision | None = None,
    outcome: Outcome | None = None,
) -> Record:
    noise = Signal(name="noise_scale", value=812.0, low=640.0, high=1010.0, unit="samples")
    return Record(
        facts=StepFacts(
            step=step,
            epoch=step // 100,
            samples=64 * step,
            seconds=0.01,
            workers=2,
            batch_size_global=batch_size,
            batch_size_target=batch_size,
            loss=loss,
            learning_rate=0.1,
        ),
        signals=Signals.of([noise]),
        decision=decision or Keep(),
        outcome=outcome,
        policy="" if decision is None else "grow_with_noise",
        unix_time=1_700_000_000.0 + step,
    )


@pytest.fixture
def growth(make_record: MakeRecord) -> list[Record]:
    """Three steps; after the second the batch grows."""
    noise = make_record(1).signals["noise_scale"]
    grow = SetBatchSize(128, because=(noise,), reason="noise 812 is above batch 64")
    return [
        make_record(1),
        make_record(2, decision=grow, outcome=Applied(step=2, detail="batch size 64 -> 128")),
        make_record(3, batch_size=128),
    ]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> MLflowStore:
    """Making MLflow's database takes seconds: tests share one, each with runs of its own."""
    folder: Path = tmp_path_factory.mktemp("workspace")
    return MLflowStore(folder)
