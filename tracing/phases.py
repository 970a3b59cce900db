"""Where the time went: seconds by the name of the span."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from workbench.span import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """All spans of one name.

    Attributes:
        name: The name.
        count: How many there were.
        seconds: Their sum.
        share: Their part of the seconds of all spans, 0 to 1.
    """

    name: str
    count: int
    seconds: float
    share: float


def phases(spans: Iterable[Span]) -> tuple[Phase, ...]:
    """Return the phases, the longest first. Nested spans count in each of their names.

    Example:
        >>> spans = [Span(name="data", start=0.0, seconds=1.0, step=1),
        ...          Span(name="compute", start=1.0, seconds=3.0, step=1)]
        >>> [(phase.name, phase.share) for phase in phases(spans)]
        [('compute', 0.75), ('data', 0.25)]
    """
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    for span in spans:
        seconds[span.name] = seconds.get(span.name, 0.0) + span.seconds
        counts[span.name] = counts.get(span.name, 0) + 1
    whole = sum(seconds.values())
    found = [
        Phase(name=name, count=counts[name], seconds=took, share=took / whole if whole else 0.0)
        for name, took in seconds.items()
    ]
    return tuple(sorted(found, key=lambda phase: -phase.seconds))
