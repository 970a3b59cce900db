"""Start a server on loopback, wait until it answers, and end it with everything it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from workbench.errors import InfrastructureError, UsageError

HOST = "127.0.0.1"
START_SECONDS = 180.0  # a busy machine takes a minute to import MLflow
END_SECONDS = 10.0
_POLL_SECONDS = 0.1
_LOG_LINES = 3


def check_port(port: int, option: str = "--port") -> None:
    """Raise unless this process may listen on ``port``.

    Raises:
        UsageError: It is not a port.
        InfrastructureError: Another process has it.
    """
    if not 1 <= port <= 65535:
        raise UsageError(f"port {port} does not exist; allowed: 1 to 65535; give {option}")
    if not port_is_free(port):
        raise InfrastructureError(
            f"port {port} on {HOST} is in use by another process; give {option} with another "
            f"number, such as {option} {free_port()}"
        )


def port_is_free(port: int) -> bool:
    """Return whether ``port`` can be listened on.

    Example:
        >>> with socket.create_server((HOST, 0)) as server:
        ...     port_is_free(server.getsockname()[1])
        False
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that nothing listens on now.

    Example:
        >>> port_is_free(free_port())
        True
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


class Server:
    """A child process that serves HTTP on loopback, in a process group of its own.

    Args:
        command: Its command line.
        environment: Its environment.
        log: File that takes its output.
        health: Address that answers 200 once it is up.

    Example:
        >>> import sys, tempfile
        >>> port = free_port()
        >>> with Server([sys.executable, "-m", "http.server", str(port), "--bind", HOST],
        ...             dict(os.environ), Path(tempfile.mkdtemp()) / "log",
        ...             f"http://{HOST}:{port}/") as server:
        ...     server.wait_until_up()
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, health: str
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._log = log
        self._health = health
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait_until_up(
        self,
        seconds: float = START_SECONDS,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Return once it answers, or once ``should_stop``.

        Raises:
            InfrastructureError: It ended, or did not answer in time.
        """
        deadline = time.monotonic() + seconds
        while not should_stop():
            if self.exit_code() is not None:
                raise InfrastructureError(
                    f"{self.name} ended with exit code {self.exit_code()}: {self.last_words()}; "
                    f"its log: {self._log}"
                )
            if answers(self._health):
                return
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"{self.name} did not answer at {self._health} within {seconds:.0f} s; "
                    f"its log: {self._log}"
                )
            time.sleep(_POLL_SECONDS)

    def wait_until_it_ends(self, should_stop: Callable[[], bool]) -> None:
        """Return once ``should_stop``.

        Raises:
            InfrastructureError: It ended by itself.
        """
        while not should_stop():
            if self.exit_code() is not None:
                raise InfrastructureError(
                    f"{self.name} ended by itself with exit code {self.exit_code()}: "
                    f"{self.last_words()}; its log: {self._log}"
                )
            time.sleep(_POLL_SECONDS)

    def end(self) -> None:
        """Ask the process group to end, and kill what is left after a while."""
        process = self._process
        if process is None:
            return
        for number, patience in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, END_SECONDS)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    @property
    def name(self) -> str:
        """The command in short."""
        words = self._command[1:4] if self._command[1:2] == ["-m"] else self._command[:2]
        return " ".join(word for word in words if word != "-m")

    def exit_code(self) -> int | None:
        """Return how it ended; ``None`` while it runs."""
        return self._process.poll() if self._process else None

    def last_words(self) -> str:
        """Return the last lines of its log."""
        lines = [
            line for line in self._log.read_text(errors="replace").splitlines() if line.strip()
        ]
        return " / ".join(lines[-_LOG_LINES:]) or "it said nothing"


def answers(address: str, *, seconds: float = 2.0) -> bool:
    """Return whether ``address`` answers 200.

    Example:
        >>> answers(f"http://{HOST}:{free_port()}/")
        False
    """
    # An opener of its own: loopback is never asked for through a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=seconds) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False
