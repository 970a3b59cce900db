"""Reach MLflow quietly: nothing leaves for its makers, and its errors become one clear line."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InfrastructureError, UsageError, WorkbenchError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow takes these from the environment alone. Telemetry is off whatever was set before.
_FORCED = {"MLFLOW_DISABLE_TELEMETRY": "true"}
_DEFAULTS = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Else it prints two lines for each run that ends on a server, into results and live views.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A dead server is noticed in seconds, not in the four minutes of MLflow's own defaults.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # With an OTLP endpoint set, MLflow would otherwise keep no span itself.
    "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT": "true",
    # Trace identifiers are else drawn from `random`: after `random.seed(0)`, as training scripts
    # do, two runs would write into one trace.
    "MLFLOW_TRACE_USE_ISOLATED_RANDOM_ID_GENERATOR": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_MISSING = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"}
_WRONG = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
}
_SHORTER = {
    "Connection refused": "connection refused",
    "Name or service not known": "the host name is not known",
    "Temporary failure in name resolution": "the host name cannot be resolved",
    "timed out": "no answer in time",
    "Remote end closed connection": "the server closed the connection",
    "Connection reset": "the connection was reset",
    "database is locked": "the database is locked by another process",
    "database or disk is full": "the disk is full",
    "readonly database": "the database is read-only",
    "unable to open database": "the database cannot be opened",
}


def environment() -> dict[str, str]:
    """Return what MLflow's own processes (server, UI, scoring) should find in the environment.

    Values that are set already are kept, but for telemetry, which is always off.

    Example:
        >>> environment()["MLFLOW_DISABLE_TELEMETRY"]
        'true'
    """
    kept = {name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}
    return kept | _FORCED


def serving_environment(tracking_uri: str) -> dict[str, str]:
    """Return what a process that loads or serves a model of this server finds in its environment.

    ``PATH`` begins with this Python's programs: ``mlflow models serve`` calls ``uvicorn`` by name,
    which fails when the virtual environment was not activated.

    Example:
        >>> serving_environment("http://127.0.0.1:5000")["MLFLOW_REGISTRY_URI"]
        'http://127.0.0.1:5000'
    """
    addresses = {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_REGISTRY_URI": tracking_uri}
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join(filter(None, [programs, os.environ.get("PATH", "")]))
    return environment() | addresses | {"PATH": path}


def mlflow_module() -> Any:
    """Return MLflow, imported after its settings were made.

    Example:
        >>> mlflow_module().__name__
        'mlflow'
    """
    os.environ.update(environment())
    with without_warnings():
        import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs with a traceback of hundreds of lines, at each retry, what it also raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow


@contextmanager
def without_warnings() -> Iterator[None]:
    """Hide the warnings of MLflow and torch about their own parts: their users cannot help it.

    Example:
        >>> with without_warnings():
        ...     warnings.warn("old", DeprecationWarning)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def connect(tracking_uri: str) -> MlflowClient:
    """Return a client for this address, for runs and for the registry.

    Raises:
        UsageError: MLflow knows no such address.
        InfrastructureError: It cannot be opened.

    Example:
        >>> connect("nowhere://x")
        Traceback (most recent call last):
        workbench.errors.UsageError: connecting to nowhere://x: MLflow refuses: ...
    """
    mlflow = mlflow_module()
    with talking(tracking_uri, f"connecting to {tracking_uri}"), without_warnings():
        client: MlflowClient = mlflow.MlflowClient(
            tracking_uri=tracking_uri, registry_uri=tracking_uri
        )
    return client


@contextmanager
def talking(tracking_uri: str, doing: str) -> Iterator[None]:
    """Turn MLflow's errors into the workbench's.

    Args:
        tracking_uri: The address, for the message.
        doing: What was asked, such as ``reading run abc``.

    Raises:
        InfrastructureError: The server or the disk failed; the same may work later.
        UsageError: What was asked for does not exist, or is not allowed.

    Example:
        >>> with talking("sqlite:///x.db", "writing"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        workbench.errors.InfrastructureError: the tracking server sqlite:///x.db failed ...
    """
    try:
        yield
    except WorkbenchError:
        raise
    except Exception as error:
        translated = _translated(error, tracking_uri, doing)
        if translated is None:
            raise
        raise translated from error


def _translated(error: Exception, tracking_uri: str, doing: str) -> WorkbenchError | None:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    code = str(getattr(error, "error_code", "")) if isinstance(error, MlflowException) else ""
    if code in _MISSING:
        return UsageError(f"{doing}: {_line(error)} (tracking server {tracking_uri})")
    if code in _WRONG:
        return UsageError(f"{doing}: MLflow refuses: {_line(error)}")
    if isinstance(error, ImportError):
        return InfrastructureError(
            f"{tracking_uri} needs a package that is not installed: {error}; install its driver, "
            "such as pip install 'adaptive-workbench[postgres]'"
        )
    if isinstance(error, (MlflowException, SQLAlchemyError, OSError)):
        advice = _advice(tracking_uri)
        return InfrastructureError(
            f"the tracking server {tracking_uri} failed while {doing}: {_line(error)}; {advice}"
        )
    return None


def _line(error: Exception) -> str:
    text = str(error)
    for part, shorter in _SHORTER.items():
        if part in text:
            return shorter
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")


def _advice(tracking_uri: str) -> str:
    if tracking_uri.startswith("http"):
        return "start the server, or give another --tracking-uri"
    if tracking_uri.startswith("sqlite:"):
        folder = Path(tracking_uri.removeprefix("sqlite:///")).parent
        return f"free space in {folder} or make it writable, or give another --workspace"
    return "give --tracking-uri http://..., sqlite:///... or postgresql://..."
