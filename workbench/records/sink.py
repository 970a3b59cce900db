"""Where numbers are sent, and a sink in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from workbench.errors import InfrastructureError

from .metrics import MetricPoint


class Sink(Protocol):
    """A place that takes numbers and may be away for a while."""

    @property
    def name(self) -> str:
        """What it is and where, the same at each start."""
        ...

    def send(self, points: Sequence[MetricPoint]) -> None:
        """Take the points, all or as many as it can; taking one twice changes nothing.

        Raises:
            InfrastructureError: It is away: the same points will be sent again later.
        """
        ...


@dataclass
class MemorySink:
    """A sink that keeps points in a list, and is away while ``away`` is true.

    Example:
        >>> sink = MemorySink()
        >>> sink.send([MetricPoint(name="loss", value=0.5, step=1, unix_ms=0)])
        >>> [point.value for point in sink.points]
        [0.5]
    """

    name: str = "memory"
    away: bool = False
    points: list[MetricPoint] = field(default_factory=list)
    refused: int = 0

    def send(self, points: Sequence[MetricPoint]) -> None:
        """Keep the points, or raise while away."""
        if self.away:
            self.refused += 1
            raise InfrastructureError("the memory sink is away; set away to False")
        self.points.extend(points)
