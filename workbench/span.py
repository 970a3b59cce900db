"""A span: what one rank did from when to when, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One stretch of time on one rank.

    Attributes:
        name: What was done, such as ``data`` or ``compute``.
        start: When it began, in seconds of the rank's monotonic clock.
        seconds: How long it took, 0 or more.
        step: The optimizer step it belongs to, from 1.
        rank: Who did it.

    Example:
        >>> Span(name="data", start=10.0, seconds=0.25, step=1, rank=0).stop
        10.25
    """

    name: str
    start: float
    seconds: float
    step: int
    rank: int = 0

    @property
    def stop(self) -> float:
        """When it ended."""
        return self.start + self.seconds


class SpanSink(Protocol):
    """Where spans go; ``add`` costs nanoseconds and never waits."""

    def add(self, name: str, start: float, stop: float, step: int) -> None:
        """Take one span."""
        ...
