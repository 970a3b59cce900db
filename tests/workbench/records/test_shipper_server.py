"""A real tracking server stops and comes back while a job trains."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workbench import Record
from workbench.errors import InfrastructureError
from workbench.records import MLflowSink, MLflowStore, Shipper, SpoolReader, SpoolTracker
from workbench.records.mlflow_client import environment

MakeRecord = Callable[..., Record]


class Server:
    """An MLflow server on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment()},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, (self._folder / "server.log").read_text()
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


def _wait(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.timeout(150)
def test_a_server_that_stops_and_comes_back_misses_nothing(
    tmp_path: Path, server: Server, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    lines: list[str] = []
    store = MLflowStore(tmp_path, tracking_uri=server.uri)
    run_id = store.start_run("train")
    tracker = SpoolTracker(tmp_path / "spool", interval_seconds=0.02)
    shipper = Shipper(
        SpoolReader(tmp_path / "spool"),
        MLflowSink(store, run_id),
        tmp_path / "state",
        max_batch=100,
        interval_seconds=0.05,
        report=lines.append,
        max_backoff_seconds=1.0,
    ).start()
    for step in range(1, 41):
        tracker.write(make_record(step))
    _wait(lambda: shipper.sent_records == 40)

    server.stop()
    for step in range(41, 141):
        tracker.write(make_record(step, loss=float("nan") if step == 100 else 0.5))
    _wait(lambda: shipper.error is not None)
    time.sleep(1.5)
    away = list(lines)
    with pytest.raises(InfrastructureError, match=r"connection refused; start the server"):
        store.ping()
    server.start()
    for step in range(141, 151):
        tracker.write(make_record(step))
    tracker.close()

    assert shipper.close(timeout=30), shipper.error
    assert len(away) == 1
    assert "the records are kept in" in away[0]
    assert [line for line in lines[1:] if "answers again" not in line] == []
    history = store.metric_history(run_id, "loss")
    assert [point.step for point in history] == list(range(1, 151))
    assert [point.step for point in history if point.value != point.value] == [100]
    # What the lifecycle does besides: files and models through the server, no shared folder.
    store.log_text(run_id, "hello", "notes.txt")
    assert store.artifact_path(run_id, "notes.txt", tmp_path).read_text() == "hello"
    store.end_run(run_id)
    assert store.get_run(run_id).finished
