"""Start the processes of a job, watch them, end them in good order, and tell whose fault it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import errors
from workbench.errors import InfrastructureError, Interrupted, StageError, WorkbenchError

POLL_SECONDS = 0.05
GRACE_SECONDS = 30.0
SETTLE_SECONDS = 5.0
ERROR_FILE = "rank-{rank}.error.json"
LOG_FILE = "rank-{rank}.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How one worker ended badly.

    Attributes:
        rank: The worker.
        kind: The exception's class name, or the signal's name.
        message: The exception's own words, or empty.
        traceback: Its traceback as text, or empty.
        unix_time: When it was written down.
        signal: Signal that killed the process, or 0.
        step: Step of a :class:`workbench.errors.NonFiniteError`, else 0.
    """

    rank: int
    kind: str
    message: str = ""
    traceback: str = ""
    unix_time: float = 0.0
    signal: int = 0
    step: int = 0


def launch(
    arguments: Sequence[str],
    *,
    workers: int,
    folder: Path,
    policies: Sequence[Mapping[str, Any]] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run ``python ARGUMENTS`` in ``workers`` processes that form one job, and wait for all.

    Each worker's output goes to ``rank-N.log`` in ``folder``. When one fails the others are ended.
    The processes die when this one does: they see at their next step that their parent is gone.

    Args:
        arguments: What follows ``python``.
        workers: How many processes, 1 or more.
        folder: The job's own folder; made if it does not exist.
        policies: ``[{"name": "module:Class", "options": {...}}]`` in place of the script's own.
        should_stop: Asked all the time; once true, the workers get SIGTERM and some time to end.
        on_line: Called with each line that rank 0 prints.

    Raises:
        WorkbenchError: A worker's own error, told once with its rank.
        Interrupted: ``should_stop`` turned true.
        InfrastructureError: The processes cannot be started.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for rank in range(workers):
            (folder / ERROR_FILE.format(rank=rank)).unlink(missing_ok=True)
    except OSError as error:
        raise InfrastructureError(f"folder {folder} cannot be written: {error}") from error
    with tempfile.TemporaryDirectory(prefix="wb-") as meeting:
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(workers):
                environment = _environment(rank, workers, folder, Path(meeting), policies)
                started.append(_start(arguments, environment, folder, rank))
            _watch(started, folder, Path(meeting), should_stop, on_line)
        finally:
            _end(started, signal.SIGKILL)


def run_script(
    path: Path,
    arguments: Sequence[str] = (),
    *,
    workers: int,
    folder: Path,
    policies: Sequence[Mapping[str, Any]] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a training script in ``workers`` processes; see :func:`launch` for the rest."""
    launch(
        ["-m", "workbench.adaptors.torch.worker", "script", str(path), *arguments],
        workers=workers,
        folder=folder,
        policies=policies,
        should_stop=should_stop,
        on_line=on_line,
    )


def _start(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, rank: int
) -> subprocess.Popen[bytes]:
    with (folder / LOG_FILE.format(rank=rank)).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _environment(
    rank: int,
    workers: int,
    folder: Path,
    meeting: Path,
    policies: Sequence[Mapping[str, Any]] | None,
) -> dict[str, str]:
    """Return the parent's environment with the launch contract added (see ``contract.py``)."""
    environment = dict(os.environ)
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    # Waiting threads that spin stop everything when the machine is busy: a step of 3 ms took 176 ms
    # with two threads on two loaded cores, and 5 ms with threads that sleep.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    environment.update(
        RANK=str(rank),
        WORLD_SIZE=str(workers),
        LOCAL_RANK=str(rank),
        WB_RENDEZVOUS=str(meeting / "meeting"),
        WB_FOLDER=str(folder.absolute()),
        WB_PARENT=str(os.getpid()),
        PYTHONUNBUFFERED="1",
    )
    environment.pop("WB_POLICIES", None)
    if policies is not None:
        environment["WB_POLICIES"] = json.dumps([dict(policy) for policy in policies])
    return environment


def _watch(
    started: Sequence[subprocess.Popen[bytes]],
    folder: Path,
    meeting: Path,
    should_stop: Callable[[], bool],
    on_line: Callable[[str], None] | None,
) -> None:
    lines = _Lines(folder / LOG_FILE.format(rank=0), on_line)
    deadline: float | None = None
    stopping = False
    while any(process.poll() is None for process in started):
        lines.pass_on()
        failed = any(process.returncode not in (None, 0) for process in started)
        if not stopping and should_stop():
            stopping, deadline = True, time.monotonic() + GRACE_SECONDS
            _end(started, signal.SIGTERM)
        elif failed and deadline is None:
            deadline = time.monotonic() + SETTLE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    left = [rank for rank, process in enumerate(started) if process.poll() is None]
    _end(started, signal.SIGKILL)
    lines.pass_on(rest=True)
    failures = [
        _failure(rank, process, folder, meeting)
        for rank, process in enumerate(started)
        if process.returncode != 0 and rank not in left
    ]
    if stopping:
        raise Interrupted("training was interrupted; a pipeline goes on with wb run --resume")
    if failures:
        raise _as_error(_culprit(failures), folder)


def _end(started: Sequence[subprocess.Popen[bytes]], how: signal.Signals) -> None:
    for process in started:
        if process.poll() is None:
            process.send_signal(how)
    if how is signal.SIGKILL:
        for process in started:
            process.wait()


def _failure(rank: int, process: subprocess.Popen[bytes], folder: Path, meeting: Path) -> Failure:
    for place in (folder, meeting):  # a worker whose disk is full tells it at the meeting place
        try:
            told = json.loads((place / ERROR_FILE.format(rank=rank)).read_text())
            return Failure(rank=rank, **told)
        except (OSError, ValueError, TypeError):
            continue
    code = process.returncode
    if code < 0:
        return Failure(rank=rank, kind=signal.Signals(-code).name, signal=-code)
    last = _last_line(folder / LOG_FILE.format(rank=rank))
    return Failure(rank=rank, kind=f"exit code {code}", message=last, unix_time=float("inf"))


def _culprit(failures: Sequence[Failure]) -> Failure:
    """Return the failure that caused the others: a killed worker, else the first to raise.

    When a worker dies, the collectives of the others raise too, soon after: those are consequences.
    """

    def order(failure: Failure) -> tuple[bool, bool, float]:
        consequence = failure.kind in ("DistBackendError", "DistNetworkError", "DistError") or (
            failure.kind == "RuntimeError" and "onnection" in failure.message
        )
        return (not failure.signal, consequence, failure.unix_time)

    return min(failures, key=order)


def _as_error(failure: Failure, folder: Path) -> WorkbenchError:
    log = folder / LOG_FILE.format(rank=failure.rank)
    if failure.signal:
        return StageError(
            f"rank {failure.rank} was killed by {failure.kind}; what was recorded is kept; a "
            f"pipeline goes on with wb run --resume; see {log}",
            stage="train",
        )
    if failure.kind == "NonFiniteError":
        return errors.NonFiniteError(failure.message, step=failure.step)
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, WorkbenchError):
        return kind(failure.message)
    said = f": {failure.message}" if failure.message else ""
    return StageError(f"rank {failure.rank} failed: {failure.kind}{said}; see {log}", stage="train")


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


class _Lines:
    """What rank 0 has printed since the last look, whole lines at a time."""

    def __init__(self, path: Path, on_line: Callable[[str], None] | None) -> None:
        self._path, self._on_line = path, on_line
        self._offset, self._rest = 0, b""

    def pass_on(self, *, rest: bool = False) -> None:
        if self._on_line is None:
            return
        with self._path.open("rb") as log:
            log.seek(self._offset)
            new = log.read()
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        if rest and self._rest:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._on_line(line.decode(errors="replace"))
