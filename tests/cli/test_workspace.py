"""Where runs are kept, and what is said when they cannot be."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from workbench.cli.workspace import child_environment, open_store, place_from, prepare
from workbench.errors import InfrastructureError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_the_option_comes_before_the_environment_and_that_before_the_default(
    outside: Path,
) -> None:
    environ = {"WB_WORKSPACE": "/from/environment", "MLFLOW_TRACKING_URI": "http://env:1"}
    given = place_from(Path("/given"), "http://given:2", environ)
    assert (str(given.workspace), given.tracking_uri) == ("/given", "http://given:2")
    told = place_from(None, None, environ)
    assert (str(told.workspace), told.tracking_uri) == ("/from/environment", "http://env:1")
    default = place_from(None, None, {})
    assert default.workspace == outside / ".workbench"
    assert default.own
    assert not told.own


def test_the_workspaces_own_database_may_be_named_by_its_address() -> None:
    assert place_from(Path("/w"), "sqlite:////w/mlflow.db", {}).own


def test_a_workspace_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match="--workspace DIR"):
        prepare(place_from(tmp_path / "file" / "w", None, {}))


def test_a_workspace_without_permission_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere, so the kernel's answer is played.
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(InfrastructureError, match=r"cannot be written \(Permission denied\)"):
        prepare(place_from(tmp_path, None, {}))


def test_reading_from_nothing_makes_nothing(tmp_path: Path) -> None:
    place = place_from(tmp_path / "w", None, {})
    with pytest.raises(UsageError, match="nothing is recorded"):
        open_store(place, to_read=True)
    assert not place.workspace.exists()


def test_mlflows_processes_send_no_telemetry_and_find_their_programs() -> None:
    place = place_from(Path("/w"), None, {})
    environment = child_environment(place, {"PATH": "/bin", "HOME": "/h"})
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["MLFLOW_TRACKING_URI"] == "sqlite:////w/mlflow.db"
    assert environment["PATH"] == os.pathsep.join([str(Path(sys.executable).parent), "/bin"])
    assert environment["HOME"] == "/h"
