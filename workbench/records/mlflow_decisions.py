"""Decisions as rows of a table and as the spans of one MLflow trace."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from workbench.decision import Applied, Decision, Deferred, Outcome, Refused
from workbench.errors import InfrastructureError
from workbench.record import Record

from .mlflow_client import mlflow_module, without_warnings
from .spool_reader import surviving

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MOST_SPANS = 500


def decision_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return one row for each record that decided something, in plain JSON types.

    Columns, what a reader wants first: ``step``, ``decision``, ``value`` (the number or name asked
    for), ``reason``, ``outcome``, ``detail``, ``policy``, ``signals`` (those that led to it, as
    text), ``batch_size_before``, ``batch_size_after`` (in force at the next recorded step),
    ``epoch``, ``seconds``, ``unix_time``.

    Args:
        records: A run's history in the order of writing; attempts given up are left out.

    Example:
        >>> import workbench
        >>> facts = workbench.StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                             batch_size_global=8, batch_size_target=8)
        >>> record = Record(facts=facts, signals=workbench.Signals(), policy="schedule",
        ...                 decision=workbench.SetBatchSize(16), outcome=workbench.Refused("no"))
        >>> [(row["decision"], row["value"], row["outcome"]) for row in decision_rows([record])]
        [('set_batch_size', 16, 'refused')]
    """
    history = surviving(records)
    return [
        _row(record, following)
        for record, following in zip_longest(history, history[1:])
        if record.decision.kind != "keep"
    ]


def log_decision_spans(
    client: MlflowClient, experiment_id: str, run_id: str, records: Iterable[Record]
) -> str:
    """Write one trace, linked to the run, with a span for each decision; return its identifier.

    The root span lasts from the first record to the last, a decision's span for the step after
    which it was taken. At most 500 spans; the root says how many decisions were left out.

    Args:
        client: Of the server that holds the run.
        experiment_id: The run's experiment.
        run_id: The run.
        records: A run's history in the order of writing.

    Raises:
        InfrastructureError: The trace was written but cannot be read back.
    """
    history = surviving(records)
    rows = decision_rows(history)
    if not rows:
        return ""
    mlflow = mlflow_module()
    with _traces_go_to(client.tracking_uri), without_warnings():
        root = client.start_trace(
            "decisions",
            span_type="CHAIN",
            experiment_id=experiment_id,
            run_id=run_id,
            inputs={"steps": history[-1].facts.step, "samples": history[-1].facts.samples},
            start_time_ns=_nanoseconds(history[0].unix_time - history[0].facts.seconds),
            attributes={
                "decisions": str(len(rows)),
                "decisions_left_out": str(max(0, len(rows) - _MOST_SPANS)),
            },
        )
        trace_id = str(root.trace_id)
        for row in rows[:_MOST_SPANS]:
            _span(client, trace_id, root.span_id, row)
        client.end_trace(
            trace_id,
            outputs={"decisions": [_sentence(row) for row in rows[:_MOST_SPANS]]},
            end_time_ns=_nanoseconds(history[-1].unix_time),
        )
        mlflow.flush_trace_async_logging()
        _check(client, trace_id, min(len(rows), _MOST_SPANS) + 1)
    return trace_id


def _row(record: Record, following: Record | None) -> dict[str, Any]:
    facts, decision = record.facts, record.decision
    return {
        "step": facts.step,
        "decision": decision.kind,
        "value": _value(decision),
        "reason": decision.reason,
        "outcome": record.outcome.kind if record.outcome is not None else "",
        "detail": _detail(record.outcome),
        "policy": record.policy,
        "signals": "; ".join(map(str, decision.because)),
        "batch_size_before": facts.batch_size_target,
        "batch_size_after": (following or record).facts.batch_size_target,
        "epoch": facts.epoch,
        "seconds": facts.seconds,
        "unix_time": record.unix_time,
    }


def _asked(row: dict[str, Any]) -> str:
    return row["decision"] if row["value"] is None else f"{row['decision']} {row['value']}"


def _sentence(row: dict[str, Any]) -> str:
    why = row["reason"] or row["signals"]
    return f"step {row['step']}: {_asked(row)} ({row['policy']}: {why}), {row['outcome']}"


def _value(decision: Decision) -> int | float | str | None:
    for name in ("batch_size_global", "scale", "workers", "strategy"):
        value: int | float | str | None = getattr(decision, name, None)
        if value is not None:
            return value
    return None


def _detail(outcome: Outcome | None) -> str:
    if isinstance(outcome, Applied):
        return outcome.detail
    if isinstance(outcome, (Refused, Deferred)):
        return outcome.reason
    return ""


def _span(client: MlflowClient, trace_id: str, parent_id: str, row: dict[str, Any]) -> None:
    ended = row["unix_time"]
    span = client.start_span(
        f"step {row['step']}: {_asked(row)}",
        trace_id=trace_id,
        parent_id=parent_id,
        span_type="TOOL",
        inputs={"signals": row["signals"], "batch_size": row["batch_size_before"]},
        attributes=row,
        start_time_ns=_nanoseconds(ended - row["seconds"]),
    )
    client.end_span(
        trace_id,
        span.span_id,
        outputs={key: row[key] for key in ("value", "reason", "outcome", "detail")},
        end_time_ns=_nanoseconds(ended),
    )


def _check(client: MlflowClient, trace_id: str, spans: int) -> None:
    from mlflow.exceptions import MlflowException

    try:
        found = len(client.get_trace(trace_id, display=False).data.spans)
    except MlflowException:  # MLflow only logs why a trace could not be begun
        found = 0
    if found != spans:
        raise InfrastructureError(
            f"{found} of {spans} decision spans were kept as trace {trace_id} on "
            f"{client.tracking_uri}; decisions.json has them all; see the log of mlflow for why"
        )


def _nanoseconds(seconds: float) -> int:
    return max(1, round(seconds * 1e9))


@contextmanager
def _traces_go_to(tracking_uri: str) -> Iterator[None]:
    """Point MLflow's tracer, which knows only the process-wide address, at this server."""
    mlflow = mlflow_module()
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    in_environment = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        if in_environment is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = in_environment
