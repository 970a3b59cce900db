"""Where the time of a step goes on this rank: one mark after each phase, nothing waited for."""

from __future__ import annotations

import resource
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

Clock = Callable[[], float]

DATA, FORWARD, BACKWARD, COMMUNICATION, OPTIMIZER = PHASES = (
    "data",
    "forward",
    "backward",
    "communication",
    "optimizer",
)
_MONITOR = "monitor"


class Stopwatch:
    """Adds up, phase by phase, the time between marks.

    On the CPU by the clock. On a GPU by events in its stream, read once the device has passed them: the
    phases told after a step are then those of the last step that is through.

    Args:
        clock: Monotonic seconds.
        device: Where the model lives.
        phases: Whether phases are wanted; without, only the time of monitoring is kept.

    Attributes:
        monitor_seconds: What monitoring took on the host since the last :meth:`take`.

    Example:
        >>> from workbench.testing import FixedClock
        >>> watch = Stopwatch(FixedClock(tick=1.0), torch.device("cpu"), phases=True)
        >>> watch.start(); watch.mark("data"); watch.mark("forward")
        >>> watch.take()["data"], watch.take()["data"]
        (1.0, 0.0)
    """

    def __init__(self, clock: Clock, device: torch.device, *, phases: bool) -> None:
        self.clock, self._phases = clock, phases
        self._on_gpu = device.type == "cuda"
        self.monitor_seconds = 0.0
        self._since: Any = None
        self._stretches: list[tuple[str, Any, Any]] = []
        self._waiting: deque[list[tuple[str, Any, Any]]] = deque()
        self._told = dict.fromkeys((*PHASES, _MONITOR), 0.0)

    def start(self) -> None:
        """Begin a stretch of time here."""
        if self._phases:
            self._since = self._now()

    def mark(self, phase: str) -> None:
        """Give the time since the last mark to ``phase``."""
        if not self._phases or self._since is None:
            return
        now = self._now()
        self._stretches.append((phase, self._since, now))
        self._since = now

    def began_measuring(self) -> tuple[float, Any]:
        """Return a token for :meth:`ended_measuring`."""
        return self.clock(), self._now() if self._on_gpu else None

    def ended_measuring(self, token: tuple[float, Any]) -> None:
        """Count the time since as time of monitoring; no phase contains it."""
        began, event = token
        self.monitor_seconds += self.clock() - began
        if event is not None:
            self._stretches.append((_MONITOR, event, self._now()))
        self.start()

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase, and ``monitor``; start anew."""
        self._waiting.append(self._stretches)
        self._stretches, self._since = [], None
        while self._waiting and self._over(self._waiting[0]):
            self._told = self._sums(self._waiting.popleft())
        told = dict(self._told)
        told[_MONITOR] = max(told[_MONITOR], self.monitor_seconds)
        self.monitor_seconds = 0.0
        return told

    def _now(self) -> Any:
        if not self._on_gpu:
            return self.clock()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _over(self, stretches: list[tuple[str, Any, Any]]) -> bool:
        return not self._on_gpu or not stretches or bool(stretches[-1][2].query())

    def _sums(self, stretches: list[tuple[str, Any, Any]]) -> dict[str, float]:
        sums = dict.fromkeys((*PHASES, _MONITOR), 0.0)
        for name, start, stop in stretches:
            seconds = 1e-3 * start.elapsed_time(stop) if self._on_gpu else stop - start
            sums[name] += max(seconds, 0.0)
        return sums


def memory_bytes(device: torch.device) -> int:
    """Return the most memory held so far: on a GPU by tensors there, else by this process.

    Example:
        >>> memory_bytes(torch.device("cpu")) > 2**20
        True
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
