"""`wb serve`: a registered model over REST, by MLflow's own server."""

from __future__ import annotations

import json
import shlex
import struct
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.errors import InfrastructureError, UsageError

from .options import Debug, TrackingUri, Workspace
from .servers import HOST, START_SECONDS, Server, check_port
from .stopping import StopSwitch
from .workspace import child_environment, open_store, place_from

if TYPE_CHECKING:
    from workbench.records.mlflow_store import MLflowStore
    from workbench.records.stored import StoredVersion

PORT = 5001
_EXAMPLE = "serving_input_example.json"
_SCORE_SECONDS = 60.0


def serve(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL[@alias]", help="Or MODEL/VERSION; MODEL alone: its newest."),
    ],
    port: Annotated[int, typer.Option(metavar="N", help="Port on loopback.")] = PORT,
    workspace: Workspace = None,
    tracking_uri: TrackingUri = None,
    debug: Debug = False,
) -> int:
    """Serve a registered model over REST with MLflow's server.

    It listens on loopback only, and ends with Ctrl-C.
    """
    del debug
    place = place_from(workspace, tracking_uri)
    store = open_store(place, to_read=True)
    version = find_version(store, model)
    check_port(port)
    address = f"http://{HOST}:{port}"
    server = Server(
        command(version, port),
        child_environment(place),
        place.workspace / "logs" / f"serve-{version.name}-{port}.log",
        f"{address}/ping",
    )
    print("starting MLflow's scoring server ...", file=sys.stderr, flush=True)
    with StopSwitch(lambda _: None) as switch, server:
        server.wait_until_up(START_SECONDS, switch.thrown)
        if not switch.thrown():
            _say_how(store, version, address)
        server.wait_until_it_ends(switch.thrown)
    return 0


def find_version(store: MLflowStore, wanted: str) -> StoredVersion:
    """Return the version that ``MODEL``, ``MODEL@alias`` or ``MODEL/VERSION`` names.

    Raises:
        UsageError: There is no such model, version or alias; the message names those there are.
    """
    if not wanted or wanted[-1] in "@/":  # an empty variable in a script must not serve the newest
        raise UsageError(
            f"{wanted!r} names no version; allowed: MODEL@alias, MODEL/VERSION, or MODEL for its "
            "newest; 'wb models' lists"
        )
    name, _, alias = wanted.partition("@")
    name, _, number = name.partition("/")
    there = store.models()
    if name not in there:
        known = ", ".join(there) or "none yet; run a pipeline that registers one"
        raise UsageError(f"there is no registered model {name!r}; registered: {known}")
    versions = store.versions(name)
    for version in versions:
        if alias and alias in version.aliases:
            return version
        if number and number == str(version.version):
            return version
    if not alias and not number and versions:
        return versions[0]
    known = ", ".join(map(_told, versions)) or "none"
    raise UsageError(
        f"model {name} has no {_what(alias, number)}; there: {known}; 'wb models' lists"
    )


def command(version: StoredVersion, port: int) -> list[str]:
    """Return the command line of MLflow's scoring server.

    Example:
        >>> from workbench.records.stored import StoredVersion
        >>> version = StoredVersion(name="m", version=2, source="", created_unix=0.0)
        >>> command(version, 5001)[3:7]
        ['models', 'serve', '--model-uri', 'models:/m/2']
    """
    return [
        sys.executable,
        *("-m", "mlflow", "models", "serve"),
        *("--model-uri", version.uri),
        *("--env-manager", "local"),
        *("--host", HOST),
        *("--port", str(port)),
    ]


def first_row(example: dict[str, Any]) -> dict[str, Any]:
    """Return MLflow's serving example with its first row only.

    Example:
        >>> first_row({"inputs": [[1, 2], [3, 4]]})
        {'inputs': [[1, 2]]}
        >>> first_row({"inputs": {"a": [1, 2]}}), first_row({"dataframe_split": {"data": [[1], [2]]}})
        ({'inputs': {'a': [1]}}, {'dataframe_split': {'data': [[1]]}})
    """
    shorter: dict[str, Any] = {}
    for key, value in example.items():
        if isinstance(value, list):
            shorter[key] = value[:1]
        elif key == "dataframe_split":
            shorter[key] = {
                name: part if name == "columns" else part[:1] for name, part in value.items()
            }
        elif isinstance(value, dict):
            shorter[key] = {
                name: part[:1] if isinstance(part, list) else part for name, part in value.items()
            }
        else:
            shorter[key] = value
    return shorter


def shortest(value: Any) -> Any:
    """Return a number that float32 can hold as the shortest one that it reads as the same.

    Example:
        >>> shortest({"inputs": [[0.30000001192092896, 0.1, 7, "a"]]})
        {'inputs': [[0.3, 0.1, 7, 'a']]}
    """
    if isinstance(value, dict):
        return {key: shortest(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shortest(item) for item in value]
    if not isinstance(value, float):
        return value
    texts = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next((text for text in texts if _as_float32(text) == value), value)


def _as_float32(value: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return value


def score(address: str, body: str) -> str:
    """Return what the server answers to one request.

    Raises:
        InfrastructureError: It does not answer, or refuses.
    """
    request = urllib.request.Request(
        address, data=body.encode(), headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_SCORE_SECONDS) as reply:
            answer: str = reply.read().decode()
    except (OSError, urllib.error.URLError) as error:
        raise InfrastructureError(f"{address} refused the model's own example: {error}") from error
    return answer


def _say_how(store: MLflowStore, version: StoredVersion, address: str) -> None:
    aliases = "".join(f" @{alias}" for alias in version.aliases)
    scoring = f"{address}/invocations"
    print(f"serving {version.name} version {version.version}{aliases} at {scoring}", flush=True)
    example = _example(store, version)
    if example is None:
        print('the model was logged without an example; POST JSON such as {"inputs": [[...]]}')
    else:
        body = json.dumps(shortest(first_row(example)))
        header = "Content-Type: application/json"
        words = ["curl", "-s", scoring, "-H", header, "-d", body]
        print(f"try it:\n  {shlex.join(words)}\nits answer:\n  {score(scoring, body).strip()}")
    print("Ctrl-C ends it", flush=True)


def _example(store: MLflowStore, version: StoredVersion) -> dict[str, Any] | None:
    path = Path(store.model_folder(version.uri)) / _EXAMPLE
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _told(version: StoredVersion) -> str:
    aliases = " ".join(f"@{alias}" for alias in version.aliases)
    return f"version {version.version}" + (f" ({aliases})" if aliases else "")


def _what(alias: str, number: str) -> str:
    return f"alias @{alias}" if alias else f"version {number}" if number else "version"
