"""Decisions are kept as a table and as spans, each with its reason."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable

import pytest

from workbench import Record, Resize, SetBatchSize, SetLearningRate, Stop
from workbench.decision import Decision, Deferred, Refused, SetSync
from workbench.errors import InfrastructureError
from workbench.records import MLflowStore, decision_rows

MakeRecord = Callable[..., Record]


def test_a_row_says_what_was_decided_why_and_what_came_of_it(growth: list[Record]) -> None:
    assert decision_rows(growth) == [
        {
            "step": 2,
            "epoch": 0,
            "policy": "grow_with_noise",
            "decision": "set_batch_size",
            "value": 128,
            "reason": "noise 812 is above batch 64",
            "signals": "noise_scale 812 [640, 1010] samples",
            "outcome": "applied",
            "detail": "batch size 64 -> 128",
            "batch_size_before": 64,
            "batch_size_after": 128,
            "seconds": 0.01,
            "unix_time": 1_700_000_002.0,
        }
    ]


@pytest.mark.parametrize(
    ("decision", "value"),
    [
        (SetLearningRate(0.5), 0.5),
        (Resize(4), 4),
        (SetSync("every_step"), "every_step"),
        (Stop(), None),
    ],
)
def test_each_kind_of_decision_shows_its_value(
    make_record: MakeRecord, decision: Decision, value: object
) -> None:
    refused = make_record(1, decision=decision, outcome=Refused("fixed number of workers"))
    deferred = make_record(2, decision=decision, outcome=Deferred("newcomers are starting"))

    rows = decision_rows([refused, deferred, make_record(3, decision=decision)])
    assert [row["value"] for row in rows] == [value] * 3
    assert [(row["outcome"], row["detail"]) for row in rows] == [
        ("refused", "fixed number of workers"),
        ("deferred", "newcomers are starting"),
        ("", ""),
    ]


def test_a_decision_of_an_attempt_that_was_given_up_is_left_out(
    growth: list[Record], make_record: MakeRecord
) -> None:
    assert decision_rows([*growth, make_record(2), make_record(3)]) == []


def test_decisions_become_a_table_and_one_trace_that_is_linked_to_the_run(
    store: MLflowStore, growth: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_id = store.start_run("train")
    trace_id = store.log_decisions(run_id, growth)

    table = json.loads(store.artifact_path(run_id, "decisions.json").read_text())
    assert dict(zip(table["columns"], table["data"][0], strict=True)) == decision_rows(growth)[0]
    trace = store.client.get_trace(trace_id, display=False)
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run_id
    root, span = sorted(trace.data.spans, key=lambda item: item.parent_id is not None)
    assert (root.name, span.parent_id) == ("decisions", root.span_id)
    assert span.name == "step 2: set_batch_size 128"
    assert root.outputs["decisions"] == [
        "step 2: set_batch_size 128 (grow_with_noise: noise 812 is above batch 64), applied"
    ]
    assert span.attributes["reason"] == "noise 812 is above batch 64"
    assert span.outputs["outcome"] == "applied"
    assert span.end_time_ns == 1_700_000_002 * 10**9
    assert "MLFLOW_TRACKING_URI" not in os.environ
    found = store.client.search_traces(
        locations=[store.experiment_id], run_id=run_id, include_spans=False
    )
    assert [item.info.trace_id for item in found] == [trace_id]


def test_a_run_without_decisions_has_an_empty_table_and_no_trace(
    store: MLflowStore, make_record: MakeRecord
) -> None:
    run_id = store.start_run("train")

    assert store.log_decisions(run_id, [make_record(1), make_record(2)]) == ""
    table = json.loads(store.artifact_path(run_id, "decisions.json").read_text())
    assert table["data"] == []


def test_more_decisions_than_spans_are_all_in_the_table(
    store: MLflowStore, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.records.mlflow_decisions._MOST_SPANS", 3)
    run_id = store.start_run("train")
    records = [make_record(step, decision=SetBatchSize(64 + step)) for step in range(1, 11)]
    trace_id = store.log_decisions(run_id, records)

    trace = store.client.get_trace(trace_id, display=False)
    root = next(span for span in trace.data.spans if span.parent_id is None)
    assert len(trace.data.spans) == 4
    assert root.attributes["decisions_left_out"] == "7"
    table = json.loads(store.artifact_path(run_id, "decisions.json").read_text())
    assert len(table["data"]) == 10


def test_two_runs_that_seed_their_random_numbers_alike_have_two_traces(
    store: MLflowStore, growth: list[Record]
) -> None:
    traces = set()
    for _ in range(2):
        random.seed(0)
        traces.add(store.log_decisions(store.start_run("train"), growth))

    assert len(traces) == 2


def test_spans_that_were_not_kept_are_an_error_not_a_silence(
    store: MLflowStore, growth: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.records.mlflow_decisions._span", lambda *_: None)
    run_id = store.start_run("train")

    with pytest.raises(InfrastructureError, match="1 of 2 decision spans were kept"):
        store.log_decisions(run_id, growth)
    assert store.artifact_names(run_id) == ["decisions.json"]


def test_a_run_without_records_has_an_empty_table_and_no_trace(store: MLflowStore) -> None:
    run_id = store.start_run("train")

    assert store.log_decisions(run_id, []) == ""
    table = json.loads(store.artifact_path(run_id, "decisions.json").read_text())
    assert table["data"] == []
