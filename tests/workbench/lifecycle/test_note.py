"""Notes are Markdown that tells the story, fit into a tag, and show text as it was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.lifecycle.note import (
    MOST_ROWS,
    NOTE_TAG,
    pipeline_note,
    stage_note,
    train_note,
    version_note,
)
from workbench.lifecycle.ports import PipelineResult, StageResult

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
]
TAG_BYTES = 8000  # of MLflow


def row(**changes: Any) -> dict[str, Any]:
    plain = {
        "step": 7,
        "decision": "set_batch_size",
        "value": 128,
        "batch_size_before": 64,
        "reason": "noise",
        "signals": "",
        "outcome": "refused",
        "detail": "too large",
    }
    return plain | changes


def test_a_deployed_pipeline_tells_its_story_in_mlflow(deployed: Any) -> None:
    project, result = deployed
    note = project.store.get_run(result.run_id).tags[NOTE_TAG]

    for stage in result.stages:
        assert f"[{stage.name}](#/experiments/1/runs/{stage.run_id}?" in note
    assert "**Audit: pass**" in note
    assert "batch size" in note.split("because")[1]
    assert "[tiny version 1](#/models/tiny/versions/1), now `@champion`" in note


def test_every_stage_of_a_pipeline_has_a_note(deployed: Any) -> None:
    project, result = deployed
    notes = {run.name: run.tags[NOTE_TAG] for run in project.store.children(result.run_id)}

    assert len(notes) == 7
    assert "| after step | decision | because | outcome |" in notes["train"]
    assert "- accuracy" in notes["audit"].replace("\\", "")


def test_the_parent_run_has_the_settings_of_training_as_parameters(deployed: Any) -> None:
    project, result = deployed
    params = project.store.get_run(result.run_id).params

    assert params["train.loss"] == "cross_entropy"
    assert int(params["train.batch_size"]) > 0


def test_a_version_is_described_by_its_metrics_and_verdict(deployed: Any) -> None:
    project, _ = deployed
    described = project.store.client.get_model_version("tiny", "1").description

    assert described.startswith("accuracy 0.")
    assert described.endswith("audit: pass")
    assert version_note({}, "not audited") == "audit: not audited"


def test_a_failed_run_says_why_first() -> None:
    stage = StageResult(name="train", status="failed", summary="out of memory")
    result = PipelineResult(
        run_id="r",
        run_name="a-1",
        pipeline="a",
        status="failed",
        message="train: out of memory",
        stages=(stage,),
    )

    assert pipeline_note(result, "1").startswith("**failed**: train: out of memory\n")


def test_a_refused_decision_shows_what_stood_against_it() -> None:
    line = train_note("done", [row()]).splitlines()[4]

    assert line == "| 7 | batch size 64 → 128 | noise | refused: too large |"


def test_many_decisions_are_counted_not_listed() -> None:
    note = train_note("done", [row(step=step) for step in range(MOST_ROWS + 30)])

    assert note.count("batch size 64") == MOST_ROWS
    assert "and 30 more" in note


@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=20_000), gates=st.lists(st.text(max_size=3000), max_size=9))
def test_a_note_fits_into_a_tag(text: str, gates: list[str]) -> None:
    assert len(stage_note(text, {"gates": gates})) <= TAG_BYTES
    assert len(train_note("done", [row(reason=text)] * 3)) <= TAG_BYTES


@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=200))
def test_a_reason_stays_in_its_cell(text: str) -> None:
    line = train_note("done", [row(reason=text or "x")]).splitlines()[4]

    assert line.replace("\\|", "").count("|") == 5
