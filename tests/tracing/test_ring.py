"""The ring keeps the newest spans, and a job fills it."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.adaptors.torch import attach
from workbench.span import Span
from workbench.testing import FixedClock
from workbench.tracing import SpanRing, phases, trace_events, write_trace_events


@given(st.integers(1, 50), st.integers(0, 200))
@settings(deadline=None, max_examples=50)
def test_the_newest_spans_are_kept_and_the_rest_counted(capacity: int, count: int) -> None:
    ring = SpanRing(capacity=capacity)
    for step in range(count):
        ring.add("data", float(step), step + 1.0, step)
    assert [span.step for span in ring.spans()] == list(range(count))[-capacity:]
    assert ring.dropped == max(0, count - capacity)


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        SpanRing(capacity=0)


def test_a_span_is_kept_when_its_block_raises() -> None:
    ring = SpanRing(clock=FixedClock(tick=2.0), rank=3)
    with pytest.raises(KeyError), ring.span("evaluate", step=4):
        raise KeyError
    assert ring.spans() == (Span(name="evaluate", start=0.0, seconds=2.0, step=4, rank=3),)


def test_reading_while_another_thread_writes_never_fails() -> None:
    ring = SpanRing(capacity=1000)
    stop = threading.Event()

    def write() -> None:
        step = 0
        while not stop.is_set():
            ring.add("data", 0.0, 1.0, step := step + 1)

    writer = threading.Thread(target=write)
    writer.start()
    sizes = [len(ring.spans()) for _ in range(200)]
    stop.set()
    writer.join()
    assert max(sizes) <= 1000


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 10.0)), max_size=30))
@settings(deadline=None, max_examples=50)
def test_shares_of_phases_add_up(given_spans: list[tuple[str, float]]) -> None:
    found = phases(Span(name=n, start=0.0, seconds=s, step=1) for n, s in given_spans)
    assert sum(phase.count for phase in found) == len(given_spans)
    if sum(seconds for _, seconds in given_spans) > 0:
        assert sum(phase.share for phase in found) == pytest.approx(1.0)
    assert [p.seconds for p in found] == sorted((p.seconds for p in found), reverse=True)


def test_a_job_tells_where_the_time_of_each_step_went(tmp_path: Path) -> None:
    ring = SpanRing()
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.TensorDataset(torch.randn(12, 2), torch.randn(12, 1))
    with attach(
        model, optimizer, data, batch_size=4, spans=ring, max_batch_size_per_worker=2
    ) as job:
        for epoch in job.epochs(1):
            for inputs, targets in epoch:
                torch.nn.functional.mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
    spans = ring.spans()
    assert {phase.name: phase.count for phase in phases(spans)} == {
        "data": 6,
        "compute": 6,
        "monitor": 3,
    }
    assert {span.step for span in spans if span.name == "monitor"} == {1, 2, 3}
    assert all(one.stop <= other.start + 1e-9 for one, other in itertools.pairwise(spans))
    write_trace_events(spans, tmp_path / "trace.json")
    assert json.loads((tmp_path / "trace.json").read_text()) == json.loads(
        json.dumps(trace_events(spans))
    )
