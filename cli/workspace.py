"""Where runs are kept: the one place that reads the environment."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import InfrastructureError, UsageError

if TYPE_CHECKING:
    from workbench.records.mlflow_store import MLflowStore

DEFAULT = ".workbench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The workspace and its tracking server.

    Attributes:
        workspace: Absolute folder of the workspace.
        tracking_uri: As given, or the workspace's own ``sqlite:///`` file.
        own: Whether the records are in the workspace itself.

    Example:
        >>> place_from(Path("/data/w"), None, {}).tracking_uri
        'sqlite:////data/w/mlflow.db'
    """

    workspace: Path
    tracking_uri: str
    own: bool

    @property
    def database(self) -> Path:
        """The workspace's own sqlite file."""
        return self.workspace / "mlflow.db"


def place_from(
    workspace: Path | None, tracking_uri: str | None, environ: Mapping[str, str] = os.environ
) -> Place:
    """Return the place: the option, else the environment, else ``./.workbench``.

    Example:
        >>> place_from(None, None, {"WB_WORKSPACE": "/data/wb"}).workspace.as_posix()
        '/data/wb'
    """
    folder = workspace or Path(environ.get("WB_WORKSPACE") or DEFAULT)
    folder = folder.expanduser().absolute()
    uri = tracking_uri or environ.get("MLFLOW_TRACKING_URI") or ""
    own = f"sqlite:///{folder / 'mlflow.db'}"
    return Place(workspace=folder, tracking_uri=uri or own, own=uri in ("", own))


def prepare(place: Place) -> None:
    """Create the workspace if need be and see that it can be written.

    Raises:
        InfrastructureError: It cannot be created or written.
    """
    try:
        place.workspace.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place.workspace):
            pass
    except OSError as error:
        raise InfrastructureError(
            f"workspace {place.workspace} cannot be written ({error.strerror or error}); "
            f"allowed: a folder that this user may write; give --workspace DIR or set WB_WORKSPACE"
        ) from error


def could_be_made(folder: Path) -> bool:
    """Return whether an absent ``folder`` could be made, without making it.

    Example:
        >>> could_be_made(Path(sys.executable) / "below")
        False
    """
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def open_store(place: Place, *, to_read: bool = False) -> MLflowStore:
    """Return the store of the place, after a check that it can be reached.

    Args:
        place: Where the records are.
        to_read: Do not create an empty workspace only to read from it.

    Raises:
        UsageError: Nothing has been recorded there yet.
        InfrastructureError: The workspace or the server cannot be used.
    """
    if to_read and place.own and not place.database.exists():
        raise UsageError(
            f"nothing is recorded in workspace {place.workspace} yet; start with 'wb run', "
            f"or give --workspace DIR or --tracking-uri URI"
        )
    prepare(place)
    from workbench.records.mlflow_store import MLflowStore

    return MLflowStore(place.workspace, tracking_uri=None if place.own else place.tracking_uri)


def child_environment(place: Place, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of an MLflow process of this place, with telemetry off."""
    from workbench.records.mlflow_client import serving_environment

    # MLflow starts its web server by name: that of this Python, also where it is not activated.
    own = str(Path(sys.executable).parent)
    return {
        **environ,
        **serving_environment(place.tracking_uri),
        "PATH": os.pathsep.join([own, environ.get("PATH", os.defpath)]),
        "DO_NOT_TRACK": "true",
        "PYTHONUNBUFFERED": "1",
    }
