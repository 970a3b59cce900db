"""Spans as Trace Event JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workbench.span import Span


def trace_events(spans: Iterable[Span]) -> dict[str, Any]:
    """Return the spans as complete events (``ph: X``), one process a rank, microseconds.

    The form is that of the "Trace Event Format" document, section "Complete Events".

    Example:
        >>> event = trace_events([Span(name="data", start=1.0, seconds=0.5, step=3, rank=1)])
        >>> event["traceEvents"][0]["ts"], event["traceEvents"][0]["dur"]
        (1000000.0, 500000.0)
    """
    events = [
        {
            "name": span.name,
            "ph": "X",
            "ts": span.start * 1e6,
            "dur": span.seconds * 1e6,
            "pid": span.rank,
            "tid": 0,
            "args": {"step": span.step},
        }
        for span in spans
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_trace_events(spans: Iterable[Span], path: Path) -> None:
    """Write the spans to ``path``.

    Raises:
        OSError: It cannot be written.
    """
    path.write_text(json.dumps(trace_events(spans)))
