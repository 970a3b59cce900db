"""`wb ui`: MLflow's own UI on this workspace."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from .options import Debug, TrackingUri, Workspace
from .runs import address_of, find_run
from .servers import HOST, Server, check_port
from .stopping import StopSwitch
from .workspace import Place, child_environment, open_store, place_from

PORT = 5000
_FRONT = "#/experiments?workflowType=machine_learning"


def ui(
    port: Annotated[int, typer.Option(metavar="N", help="Port on loopback.")] = PORT,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Print the address of this run.")
    ] = None,
    workspace: Workspace = None,
    tracking_uri: TrackingUri = None,
    debug: Debug = False,
) -> int:
    """Open MLflow's own UI on this workspace.

    It listens on loopback only, sends nothing anywhere, and ends with Ctrl-C.
    """
    del debug
    place = place_from(workspace, tracking_uri)
    store = open_store(place, to_read=True)
    path = address_of(store, find_run(store, run)) if run else _FRONT
    if place.tracking_uri.startswith("http"):
        print(f"{place.tracking_uri.rstrip('/')}/{path}")
        return 0
    check_port(port)
    address = f"http://{HOST}:{port}"
    server = Server(
        command(place, port),
        child_environment(place),
        place.workspace / "logs" / f"ui-{port}.log",
        f"{address}/health",
    )
    print("starting MLflow's UI ...", file=sys.stderr, flush=True)
    with StopSwitch(lambda _: None) as switch, server:
        server.wait_until_up(should_stop=switch.thrown)
        if not switch.thrown():
            print(f"MLflow UI: {address}/{path}\nCtrl-C ends it", flush=True)
        server.wait_until_it_ends(switch.thrown)
    return 0


def command(place: Place, port: int) -> list[str]:
    """Return the command line of MLflow's server.

    Example:
        >>> from pathlib import Path
        >>> command(place_from(Path("/w"), None, {}), 5000)[3:6]
        ['server', '--backend-store-uri', 'sqlite:////w/mlflow.db']
    """
    # One worker: on sqlite more of them only wait for each other.
    return [
        sys.executable,
        *("-m", "mlflow", "server"),
        *("--backend-store-uri", place.tracking_uri),
        *("--default-artifact-root", (place.workspace / "artifacts").as_uri()),
        "--no-serve-artifacts",
        *("--host", HOST),
        *("--port", str(port)),
        *("--workers", "1"),
    ]


def how_to_see(place: Place, run_id: str) -> str:
    """Return the command that opens the UI at a run, as it must be typed here.

    Example:
        >>> from pathlib import Path
        >>> how_to_see(place_from(Path("/w"), None, {}), "abc")
        'wb ui --run abc --workspace /w'
    """
    if not run_id:
        return ""
    words = ["wb", "ui", "--run", run_id]
    if not place.own:
        words += ["--tracking-uri", place.tracking_uri]
    elif place != place_from(None, None):
        words += ["--workspace", str(place.workspace)]
    return shlex.join(words)
