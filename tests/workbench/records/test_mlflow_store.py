"""What is kept in MLflow comes back the same."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from math import inf, isnan, nan
from pathlib import Path

import pandas
import pytest

from workbench.errors import InfrastructureError, UsageError
from workbench.records import MetricPoint, MLflowStore
from workbench.records.mlflow_client import environment


def test_a_run_holds_its_parent_params_tags_and_end(store: MLflowStore) -> None:
    parent = store.start_run("pipeline", tags={"wb.kind": "pipeline"})
    child = store.start_run("train", parent_id=parent, params={"seed": 1, "lr": 0.1})
    store.end_run(child)
    store.end_run(parent, "FAILED")

    run = store.get_run(child)
    assert (run.name, run.parent_id, run.params) == ("train", parent, {"seed": "1", "lr": "0.1"})
    assert run.finished
    assert run.ended_unix is not None
    assert run.ended_unix >= run.started_unix
    assert store.get_run(parent).status == "FAILED"
    assert store.get_run(parent).tags["wb.kind"] == "pipeline"


def test_children_come_in_the_order_of_their_start(store: MLflowStore) -> None:
    parent = store.start_run("pipeline")
    children = [store.start_run(name, parent_id=parent) for name in ("prepare", "train", "audit")]

    assert {run.run_id for run in store.children(parent)} == set(children)
    started = [run.started_unix for run in store.children(parent)]
    assert started == sorted(started)


def test_runs_are_found_by_name_and_tag(store: MLflowStore) -> None:
    wanted = store.start_run("it's found", tags={"wb.digest": "abc"})
    store.start_run("it's found", tags={"wb.digest": "other"})

    found = store.find_runs(name="it's found", tags={"wb.digest": "abc"})
    assert [run.run_id for run in found] == [wanted]
    assert store.find_runs(name="no such name") == []


def test_an_ended_run_can_be_resumed(store: MLflowStore) -> None:
    run_id = store.start_run("train")
    store.end_run(run_id, "KILLED")
    store.resume_run(run_id)

    assert store.get_run(run_id).status == "RUNNING"


def test_a_param_may_be_noted_again_but_not_changed(store: MLflowStore) -> None:
    run_id = store.start_run("train", params={f"p{index}": index for index in range(250)})
    store.log_params(run_id, {"p0": 0})

    assert len(store.get_run(run_id).params) == 250
    with pytest.raises(UsageError, match="MLflow refuses"):
        store.log_params(run_id, {"p0": 1})


def test_nan_is_kept_and_infinity_becomes_the_largest_float(store: MLflowStore) -> None:
    run_id = store.start_run("train")
    for step, value in enumerate([nan, inf, -inf], start=1):
        store.log_metrics(run_id, {"loss": value}, step=step)

    values = [point.value for point in store.metric_history(run_id, "loss")]
    assert isnan(values[0])
    assert values[1:] == [sys.float_info.max, -sys.float_info.max]


def test_the_same_points_twice_are_kept_once(store: MLflowStore) -> None:
    run_id = store.start_run("train")
    points = [
        MetricPoint(name=name, value=nan if step == 5 else step / 7, step=step, unix_ms=step)
        for step in range(1, 701)
        for name in ("loss", "noise_scale")
    ]
    store.log_metric_batch(run_id, points)
    store.log_metric_batch(run_id, points)
    store.log_metric_batch(run_id, points[:30])

    assert len(store.metric_history(run_id, "loss")) == 700
    assert store.get_run(run_id).metrics["loss"] == 100.0


def test_metrics_arrive_after_the_run_has_ended(store: MLflowStore) -> None:
    run_id = store.start_run("train")
    store.end_run(run_id)
    store.log_metrics(run_id, {"loss": 1.0}, step=3)

    assert store.get_run(run_id).metrics == {"loss": 1.0}
    assert store.get_run(run_id).finished


def test_a_deleted_run_refuses_for_good(store: MLflowStore) -> None:
    run_id = store.start_run("train")
    store.client.delete_run(run_id)

    with pytest.raises(UsageError):
        store.log_metrics(run_id, {"loss": 1.0})


def test_files_texts_and_json_come_back(store: MLflowStore, tmp_path: Path) -> None:
    run_id = store.start_run("train")
    (tmp_path / "one.txt").write_text("one")
    store.log_artifact(run_id, tmp_path / "one.txt", "files")
    store.log_artifacts(run_id, tmp_path, "folder")
    store.log_text(run_id, "text", "notes/text.txt")
    store.log_json(run_id, {"loss": nan}, "result.json")

    assert sorted(store.artifact_names(run_id)) == [
        "files/one.txt",
        "folder/one.txt",
        "notes/text.txt",
        "result.json",
    ]
    assert store.artifact_path(run_id, "files/one.txt").read_text() == "one"
    assert isnan(json.loads(store.artifact_path(run_id, "result.json").read_text())["loss"])
    assert store.workspace / "artifacts" in store.artifact_path(run_id, "result.json").parents


def test_a_table_is_replaced_and_marked_as_one_that_mlflow_shows(store: MLflowStore) -> None:
    run_id = store.start_run("train")
    store.log_table(run_id, [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], "table.json")
    store.log_table(run_id, [{"a": 3, "b": "z"}], "table.json")

    # So MLflow's own load_table reads it, and so its UI knows that it is a table.
    table = pandas.read_json(store.artifact_path(run_id, "table.json"), orient="split")
    assert table.to_dict("records") == [{"a": 3, "b": "z"}]
    shown = json.loads(store.get_run(run_id).tags["mlflow.loggedArtifacts"])
    assert shown == [{"path": "table.json", "type": "table"}]


def test_a_data_set_is_linked_by_digest(store: MLflowStore) -> None:
    run_id = store.start_run("train")
    digest = "sha256:" + "ab" * 32
    store.log_input(
        run_id,
        name="income/train",
        digest=digest,
        source="data/income.parquet",
        context="training",
        schema={"AGEP": "int64"},
        profile={"rows": 10},
    )

    inputs = store.client.get_run(run_id).inputs
    assert inputs is not None
    [found] = inputs.dataset_inputs
    assert found.dataset.digest == "ab" * 18
    assert json.loads(found.dataset.profile or "") == {"digest": digest, "rows": 10}
    assert found.tags[0].value == "training"


def test_versions_count_up_and_an_alias_moves_and_moves_back(store: MLflowStore) -> None:
    first = store.register_model("income", "file:///a", tags={"verdict": "passed"})
    second = store.register_model("income", "file:///b")
    for version in (first, second, first):
        store.set_alias("income", "champion", version.version)
        champion = store.get_alias("income", "champion")
        assert champion is not None
        assert champion.version == version.version

    assert [version.version for version in store.versions("income")] == [2, 1]
    assert store.versions("income")[1].aliases == ("champion",)
    assert store.get_version("income", 1).tags == {"verdict": "passed"}
    assert "income" in store.models()
    store.delete_alias("income", "champion")
    assert store.get_alias("income", "champion") is None


def test_what_does_not_exist_is_said_in_one_line(store: MLflowStore) -> None:
    with pytest.raises(UsageError) as no_run:
        store.get_run("0" * 32)
    with pytest.raises(UsageError) as no_version:
        store.get_version("nothing", 1)

    assert "reading run 000" in str(no_run.value)
    assert "\n" not in str(no_run.value) + str(no_version.value)
    assert store.get_alias("nothing", "champion") is None


def test_a_second_store_on_the_same_workspace_sees_the_same_runs(store: MLflowStore) -> None:
    run_id = store.start_run("train")

    assert MLflowStore(store.workspace).get_run(run_id).name == "train"


def test_a_workspace_that_cannot_be_written_is_an_infrastructure_error() -> None:
    with pytest.raises(InfrastructureError, match=r"cannot be written: .*--workspace"):
        MLflowStore("/proc/no-such-workspace")


@pytest.mark.parametrize("uri", ["nowhere://x", "file:///no/such/files"])
def test_an_address_mlflow_does_not_take_is_a_usage_error(tmp_path: Path, uri: str) -> None:
    with pytest.raises(UsageError, match="connecting to"):
        MLflowStore(tmp_path, tracking_uri=uri)


def test_telemetry_is_off_whatever_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")

    assert environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment()["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"


def test_mlflow_is_quiet_opens_no_connection_and_keeps_no_active_run(tmp_path: Path) -> None:
    code = """
import socket, sys
asked = []
connect, lookup = socket.socket.connect, socket.getaddrinfo
def watched(self, address):
    asked.append(address)
    return connect(self, address)
def looked_up(host, *rest, **named):
    asked.append(host)
    return lookup(host, *rest, **named)
socket.socket.connect, socket.getaddrinfo = watched, looked_up
from workbench.records import MLflowStore
store = MLflowStore(sys.argv[1])
run_id = store.start_run("train", params={"seed": 1})
store.log_metrics(run_id, {"loss": 0.5})
store.log_text(run_id, "text", "text.txt")
store.register_model("model", "file:///a")
store.end_run(run_id)
import mlflow, time
from mlflow.telemetry import get_telemetry_client
time.sleep(1)
assert asked == [], asked
assert get_telemetry_client() is None
assert mlflow.active_run() is None and not mlflow.is_tracking_uri_set()
"""
    # No variable of a CI service: MLflow would be silent for their sake.
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=kept
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    assert logging.getLogger("mlflow").level in (logging.NOTSET, logging.WARNING)


def test_the_room_imports_without_torch_numpy_or_mlflow() -> None:
    code = (
        "import sys, workbench.records as r; "
        "print([m for m in ('torch', 'numpy', 'mlflow', 'pandas', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.strip() == "[]", done.stderr
