"""Tracing: where the time of a step went, in spans that cost nanoseconds."""

from .phases import Phase, phases
from .ring import SpanRing
from .trace_events import trace_events, write_trace_events

__all__ = ["Phase", "SpanRing", "phases", "trace_events", "write_trace_events"]
