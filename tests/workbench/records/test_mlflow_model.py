"""A logged model is loaded in a fresh process and served, whatever the number of rows."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from workbench.errors import StageError
from workbench.records import (
    LoggedTorchModel,
    MLflowStore,
    Rebuild,
    log_torch_model,
    serving_environment,
)

ROWS = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")


class Branching(nn.Module):
    """Depends on its values: no graph can hold it."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(8, width)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.sum() > 0:
            return torch.relu(self.head(rows))
        return torch.relu(self.head(rows)) * 1.0


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)
    )


@pytest.fixture(scope="module")
def logged(store: MLflowStore, model: nn.Module) -> LoggedTorchModel:
    return log_torch_model(store, store.start_run("train"), model, ROWS, "net", tags={"a": "b"})


def _scores(model: nn.Module, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    plain = copy.deepcopy(model).eval()
    with torch.no_grad():
        scores: npt.NDArray[Any] = plain(torch.from_numpy(rows)).numpy()
    return scores


def _in_a_fresh_process(
    store: MLflowStore, uri: str, folder: Path, rows: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    code = """
import sys, numpy as np, mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2])))
"""
    np.save(folder / "rows.npy", rows)
    arguments = [uri, str(folder / "rows.npy"), str(folder / "scores.npy")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **serving_environment(store.tracking_uri)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    scores: npt.NDArray[Any] = np.load(folder / "scores.npy")
    return scores


def test_a_model_is_logged_as_a_graph_and_linked_to_its_run(
    store: MLflowStore, logged: LoggedTorchModel
) -> None:
    kept = store.client.get_logged_model(logged.model_id)

    assert (logged.format, logged.why_not_pt2) == ("pt2", "")
    assert str(kept.status) == "READY"
    assert kept.source_run_id == logged.run_id
    assert kept.tags["a"] == "b"
    outputs = store.client.get_run(logged.run_id).outputs
    assert outputs is not None
    assert [item.model_id for item in outputs.model_outputs] == [logged.model_id]


def test_the_files_hold_signature_example_and_requirements_but_no_pickle(
    store: MLflowStore, logged: LoggedTorchModel, tmp_path: Path
) -> None:
    folder = store.model_folder(logged.uri, tmp_path)
    names = {item.name for item in folder.rglob("*") if item.is_file()}
    card = (folder / "MLmodel").read_text()

    assert {"MLmodel", "model.pt2", "input_example.json", "requirements.txt"} <= names
    assert not any(name.endswith((".pkl", ".pth", ".pickle", ".pt")) for name in names)
    assert "float32" in card
    assert "device: cpu" in card
    assert logged.model_id in card
    assert "cloudpickle" not in (folder / "requirements.txt").read_text()
    with zipfile.ZipFile(folder / "data" / "model.pt2") as archive:
        weights = [name for name in archive.namelist() if "/weights/weight_" in name]
        assert not any(archive.read(name).startswith(b"PK") for name in weights)


def test_a_fresh_process_scores_the_same(
    store: MLflowStore, logged: LoggedTorchModel, model: nn.Module, tmp_path: Path
) -> None:
    rows = np.random.default_rng(1).normal(size=(97, 8)).astype("float32")

    scores = _in_a_fresh_process(store, logged.uri, tmp_path, rows)
    np.testing.assert_allclose(scores, _scores(model, rows), rtol=1e-5, atol=1e-6)


def test_a_registered_version_is_served_over_http(
    store: MLflowStore, logged: LoggedTorchModel, model: nn.Module, tmp_path: Path
) -> None:
    version = store.register_model("net", logged.uri, run_id=logged.run_id)
    assert version.model_id == logged.model_id
    assert store.model_folder("models:/net/1") == store.model_folder(logged.uri)
    store.set_alias("net", "champion", version.version)
    assert (store.model_folder("models:/net@champion") / "MLmodel").is_file()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/net@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **serving_environment(store.tracking_uri)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while not _answers(f"{url}/ping"):
            running = process.poll() is None and time.monotonic() < deadline
            assert running, (tmp_path / "serve.log").read_text()
            time.sleep(0.2)
        for count in (1, 4):
            scores = _invoke(f"{url}/invocations", ROWS[:count])
            np.testing.assert_allclose(scores, _scores(model, ROWS[:count]), rtol=1e-4, atol=1e-5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _invoke(url: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    request = urllib.request.Request(
        url,
        data=json.dumps({"inputs": rows.tolist()}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return np.array(json.load(answer)["predictions"])


def test_a_model_that_no_graph_holds_is_rebuilt_from_its_recipe(
    store: MLflowStore, tmp_path: Path
) -> None:
    (tmp_path / "users_branching.py").write_text(
        "import torch\n"
        "class Branching(torch.nn.Module):\n"
        "    def __init__(self, width):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(8, width)\n"
        "    def forward(self, rows):\n"
        "        if rows.sum() > 0:\n"
        "            return torch.relu(self.head(rows))\n"
        "        return torch.relu(self.head(rows)) * 1.0\n"
        "def build(width):\n"
        "    return Branching(width)\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        recipe = Rebuild(
            call="users_branching:build",
            arguments={"width": 4},
            code_paths=(str(tmp_path / "users_branching.py"),),
        )
        branching = Branching(4)
        logged = log_torch_model(
            store, store.start_run("train"), branching, ROWS, "branching", rebuild=recipe
        )
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("users_branching", None)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    assert logged.format == "safetensors"
    assert logged.why_not_pt2
    scores = _in_a_fresh_process(store, logged.uri, elsewhere, ROWS)
    np.testing.assert_allclose(scores, _scores(branching, ROWS), rtol=1e-5, atol=1e-6)


def test_without_a_recipe_the_reason_is_said_and_the_model_is_marked_failed(
    store: MLflowStore,
) -> None:
    with pytest.raises(StageError, match=r"cannot be exported .* no recipe to build it again"):
        log_torch_model(store, store.start_run("train"), Branching(), ROWS, "unhappy")

    found = store.client.search_logged_models([store.experiment_id], "name = 'unhappy'")
    assert [str(item.status) for item in found] == ["FAILED"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (nn.Sequential(nn.Flatten(0)), r"returns \(40,\) for 5 rows"),
        (nn.LSTM(8, 2), "returns tuple for 5 rows"),
    ],
)
def test_a_model_that_does_not_return_a_row_for_each_sample_is_refused(
    store: MLflowStore, wrong: nn.Module, said: str
) -> None:
    with pytest.raises(StageError, match=said):
        log_torch_model(store, "unused", wrong, ROWS, "wrong")


def test_the_model_in_training_is_left_as_it_is(store: MLflowStore) -> None:
    net = nn.Linear(8, 2).train()
    weights = net.weight.detach().clone()
    one_row = log_torch_model(store, store.start_run("train"), net, ROWS[:1], "one-row")

    assert net.training
    assert torch.equal(net.weight, weights)
    assert one_row.format == "pt2"
