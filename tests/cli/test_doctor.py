"""`wb doctor`: findings, and advice for each problem."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from workbench.cli import doctor as rooms
from workbench.cli import main
from workbench.cli.servers import HOST
from workbench.cli.workspace import place_from


def test_a_healthy_machine_is_ready_and_nothing_is_made(
    outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    assert "Ready: wb run" in capsys.readouterr().out
    assert list(outside.iterdir()) == []


def test_json_has_every_finding(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outside.exists()
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = {finding["name"] for finding in told["findings"]}
    assert {"torch", "mlflow", "fairlearn", "GPUs", "horovod", "cores", "disk"} <= names
    assert told["healthy"] is True


def test_a_workspace_that_cannot_be_made_is_a_problem_with_advice(
    outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outside / "file").touch()
    assert main(["doctor", "--workspace", "file/w", "--json"]) == 4
    told = json.loads(capsys.readouterr().out)
    (problem,) = [finding for finding in told["findings"] if finding["state"] == "problem"]
    assert problem["name"] == "workspace"
    assert "--workspace DIR" in problem["advice"]


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    findings = {finding.name: finding for finding in rooms.examine(place_from(tmp_path, None, {}))}
    assert findings["disk"].state == "problem"
    assert "free space" in findings["disk"].advice


def test_a_port_in_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as server:
        monkeypatch.setattr(rooms, "PORT", server.getsockname()[1])
        found = list(rooms.examine(place_from(tmp_path, None, {})))[-1]
    assert (found.value, found.state) == ("in use", "note")
    assert "--port" in found.advice
