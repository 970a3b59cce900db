"""Turn a record into named numbers over steps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from workbench.record import Record
from workbench.signal import Signal

_FORBIDDEN = re.compile(r"[^\w\-. :/]", re.ASCII)
_LONGEST_NAME = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPoint:
    """One number of one step.

    Attributes:
        name: Letters, digits and ``_-. :/``, at most 250.
        value: May be NaN or infinite.
        step: Optimizer step, from 1.
        unix_ms: Milliseconds since 1970.

    Example:
        >>> MetricPoint(name="loss", value=0.5, step=1, unix_ms=0).name
        'loss'
    """

    name: str
    value: float
    step: int
    unix_ms: int


def record_metrics(record: Record) -> dict[str, float]:
    """Return the record's numbers by name.

    ``loss`` (NaN and infinity included), ``learning_rate``, ``batch_size`` (in force),
    ``batch_size_actual`` (fewer samples at the end of an epoch), ``workers``, ``samples``, ``epoch``,
    ``throughput`` (samples per second), and each determined signal as ``name``, with
    ``name_low`` and ``name_high`` when it has an interval. Infinite ends are left out.

    Example:
        >>> import workbench
        >>> facts = workbench.StepFacts(step=1, epoch=0, samples=8, seconds=0.5, workers=1,
        ...                             batch_size_global=8, batch_size_target=8, loss=0.25)
        >>> numbers = record_metrics(Record(facts=facts, signals=workbench.Signals()))
        >>> numbers["loss"], numbers["throughput"], numbers["batch_size"]
        (0.25, 16.0, 8.0)
    """
    facts = record.facts
    numbers: dict[str, float] = {
        "batch_size": float(facts.batch_size_target),
        "batch_size_actual": float(facts.batch_size_global),
        "workers": float(facts.workers),
        "samples": float(facts.samples),
        "epoch": float(facts.epoch),
    }
    if facts.loss is not None:
        numbers["loss"] = float(facts.loss)
    if facts.learning_rate is not None:
        numbers["learning_rate"] = float(facts.learning_rate)
    if facts.seconds > 0:
        numbers["throughput"] = facts.batch_size_global / facts.seconds
    for signal in record.signals.values():
        numbers.update(_signal_numbers(signal))
    return numbers


def record_points(record: Record) -> Iterator[MetricPoint]:
    """Yield the record's numbers with their step and time.

    Example:
        >>> import workbench
        >>> facts = workbench.StepFacts(step=3, epoch=0, samples=8, seconds=0, workers=1,
        ...                             batch_size_global=8, batch_size_target=8)
        >>> record = Record(facts=facts, signals=workbench.Signals(), unix_time=1.5)
        >>> {(point.step, point.unix_ms) for point in record_points(record)}
        {(3, 1500)}
    """
    step, unix_ms = record.facts.step, round(record.unix_time * 1000)
    for name, value in record_metrics(record).items():
        yield MetricPoint(name=name, value=value, step=step, unix_ms=unix_ms)


def notable(record: Record) -> bool:
    """Whether a record is shown even where only some steps are: a decision, a fault, a NaN.

    Example:
        >>> import workbench
        >>> facts = workbench.StepFacts(step=3, epoch=0, samples=8, seconds=0, workers=1,
        ...                             batch_size_global=8, batch_size_target=8)
        >>> notable(Record(facts=facts, signals=workbench.Signals()))
        False
    """
    return record.decision.kind != "keep" or bool(record.faults) or not record.facts.finite


def _signal_numbers(signal: Signal) -> Iterator[tuple[str, float]]:
    if not isfinite(signal.value):
        return
    name = _FORBIDDEN.sub("_", signal.name)[: _LONGEST_NAME - 5]
    yield name, signal.value
    if signal.low == signal.value == signal.high:
        return
    if isfinite(signal.low):
        yield f"{name}_low", signal.low
    if isfinite(signal.high):
        yield f"{name}_high", signal.high
