"""Ctrl-C and SIGTERM: once to stop in good order, twice to kill."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from .errors import INTERRUPTED


class StopSwitch:
    """A flag that SIGINT and SIGTERM set inside the block; a second signal kills everything.

    Args:
        say: Told, once, that the job is stopping.

    Example:
        >>> with StopSwitch(lambda line: None) as switch:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     switch.thrown()
        True
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._thrown = False
        self._before: dict[int, Any] = {}

    def thrown(self) -> bool:
        """Whether the user asked to stop."""
        return self._thrown

    def __enter__(self) -> StopSwitch:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._thrown:
            kill_family()
            os._exit(INTERRUPTED)
        self._thrown = True
        # Not from here: a handler may interrupt the very write that it would repeat.
        message = "stopping in good order; Ctrl-C again kills"
        threading.Thread(target=self._say, args=(message,), daemon=True).start()


def kill_family() -> None:
    """Kill every process that this one started, and theirs."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
