"""Servers as real processes: up, ended with all they started, and honest when they fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from workbench.cli.serve import find_version, first_row
from workbench.cli.servers import HOST, Server, check_port, free_port
from workbench.errors import InfrastructureError, UsageError
from workbench.records import MLflowStore

from_third_parties = pytest.mark.filterwarnings("ignore")
CHILDREN = """
import subprocess, sys, http.server
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def _server(folder: Path, *command: str, port: int) -> Server:
    return Server(
        [sys.executable, *command], dict(os.environ), folder / "log", f"http://{HOST}:{port}/"
    )


def test_a_server_ends_with_every_process_it_started(tmp_path: Path) -> None:
    port = free_port()
    with _server(tmp_path, "-c", CHILDREN, str(port), port=port) as server:
        server.wait_until_up(30)
        family = psutil.Process().children(recursive=True)
        assert len(family) >= 2
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_a_server_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = "print('no such database'); raise SystemExit(7)"
    with (
        _server(tmp_path, "-c", command, port=free_port()) as server,
        pytest.raises(InfrastructureError, match="exit code 7: no such database"),
    ):
        server.wait_until_up(30)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with (
        _server(tmp_path, "-c", "import time; time.sleep(60)", port=free_port()) as server,
        pytest.raises(InfrastructureError, match="did not answer"),
    ):
        server.wait_until_up(0.3)


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match="1 to 65535"):
        check_port(port)


def test_the_example_is_cut_to_one_row_in_every_form_of_mlflow() -> None:
    rows = [[1.0, 2.0], [3.0, 4.0]]
    assert first_row({"inputs": rows}) == {"inputs": rows[:1]}
    assert first_row({"instances": rows}) == {"instances": rows[:1]}
    split = {"columns": ["a", "b"], "index": [0, 1], "data": rows}
    cut = {"columns": ["a", "b"], "index": [0], "data": rows[:1]}
    assert first_row({"dataframe_split": split}) == {"dataframe_split": cut}


@from_third_parties
def test_a_registered_model_is_served_and_its_curl_example_works(store: MLflowStore) -> None:
    import torch

    from workbench.records import log_torch_model

    run_id = store.start_run("train")
    example = np.asarray([[1.0, 2.0], [3.0, 4.0]], dtype="float32")
    logged = log_torch_model(store, run_id, torch.nn.Linear(2, 1), example, "tiny")
    version = store.register_model("served", logged.uri, run_id=run_id, model_id=logged.model_id)
    store.set_alias("served", "champion", version.version)
    port = free_port()
    told = _started("serve", "served@champion", "--workspace", str(store.workspace), port=port)
    try:
        text = _read_until(told, "Ctrl-C ends it")
        assert "serving served version 1 @champion" in text
        body = re.search(r"-d '(.*)'", text)
        assert body is not None
        request = urllib.request.Request(
            f"http://{HOST}:{port}/invocations",
            data=body[1].encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            scored = json.loads(reply.read())
        assert np.shape(scored["predictions"]) == (1, 1)
        assert json.dumps(scored["predictions"][0][0])[:6] in text
    finally:
        _ended_by_ctrl_c(told)


@from_third_parties
def test_the_ui_opens_at_a_run_and_ends_with_ctrl_c(
    store: MLflowStore, browser: Callable[..., str]
) -> None:
    run_id = store.start_run("tiny-ui", tags={"wb.kind": "pipeline", "wb.pipeline": "tiny"})
    store.log_metrics(run_id, {"noise_scale": 812.5}, step=3)
    store.end_run(run_id)
    port = free_port()
    told = _started("ui", "--run", "tiny-ui", "--workspace", str(store.workspace), port=port)
    try:
        text = _read_until(told, "Ctrl-C ends it")
        address = f"http://{HOST}:{port}/#/experiments/{store.experiment_id}/runs/{run_id}?workflowType=machine_learning"
        assert f"MLflow UI: {address}" in text
        with urllib.request.urlopen(f"http://{HOST}:{port}/", timeout=30) as reply:
            assert b"MLflow" in reply.read()
        document = browser(address, wait_ms=20_000)
        assert "tiny-ui" in document
        assert "812.5" in document
    finally:
        _ended_by_ctrl_c(told)


def _started(*args: str, port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *args, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            return text
    raise AssertionError(f"it ended with {process.wait()}: {text}")


def _ended_by_ctrl_c(process: subprocess.Popen[str]) -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert process.stdout is not None
    process.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


@pytest.mark.parametrize("wanted", ["", "digits@", "digits/"])
def test_a_name_cut_short_serves_nothing(store: MLflowStore, wanted: str) -> None:
    with pytest.raises(UsageError, match="names no version; allowed: MODEL@alias"):
        find_version(store, wanted)
