"""The shipper loses nothing, says it once, and goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench import Record, SetBatchSize
from workbench.errors import InfrastructureError, UsageError
from workbench.records import MemorySink, MetricPoint, Shipper, SpoolReader, record_points
from workbench.records.shipper import saved_offset
from workbench.records.spool import encode

MakeRecord = Callable[..., Record]


@pytest.fixture
def spool(tmp_path: Path, make_record: MakeRecord) -> Path:
    path = tmp_path / "spool"
    path.write_bytes(b"".join(encode(make_record(step)) for step in range(1, 301)))
    return path


def _shipper(spool: Path, sink: MemorySink, **settings: object) -> Shipper:
    quick: dict[str, object] = {"interval_seconds": 0.01, "max_backoff_seconds": 0.05, **settings}
    return Shipper(SpoolReader(spool), sink, spool.parent / "state", **quick)  # type: ignore[arg-type]


def _steps(sink: MemorySink) -> list[int]:
    return [point.step for point in sink.points if point.name == "loss"]


def _wait(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_every_number_arrives_once_and_in_order(spool: Path, make_record: MakeRecord) -> None:
    sink = MemorySink()
    shipper = _shipper(spool, sink).start()

    assert shipper.close(timeout=10)
    assert sink.points == [
        point for step in range(1, 301) for point in record_points(make_record(step))
    ]
    assert (shipper.sent_records, shipper.sent_values) == (300, len(sink.points))
    assert shipper.lag_bytes == 0


def test_batches_are_about_as_large_as_asked(spool: Path) -> None:
    sizes: list[int] = []

    class Sizes(MemorySink):
        def send(self, points: Sequence[MetricPoint]) -> None:
            sizes.append(len(points))

    assert _shipper(spool, Sizes(), max_batch=200).start().close(timeout=10)
    assert max(sizes) <= 220
    assert 180 <= sorted(sizes)[len(sizes) // 2] <= 200


def test_a_sink_that_is_away_is_reported_once_and_gets_everything_later(spool: Path) -> None:
    lines: list[str] = []
    sink = MemorySink(away=True)
    shipper = _shipper(spool, sink, report=lines.append).start()
    _wait(lambda: sink.refused >= 3)
    while_away = list(lines)
    sink.away = False

    assert shipper.close(timeout=10)
    assert _steps(sink) == list(range(1, 301))
    assert len(while_away) == 1
    assert "the records are kept in" in while_away[0]
    assert lines[1:] == ["memory answers again; what was kept is being sent"]
    assert shipper.error is None


def test_closing_while_the_sink_is_away_keeps_everything_for_the_next_shipper(spool: Path) -> None:
    away = MemorySink(away=True)
    shipper = _shipper(spool, away).start()
    began = time.monotonic()

    assert not shipper.close(timeout=0.3)
    assert time.monotonic() - began < 2
    assert isinstance(shipper.error, InfrastructureError)
    back = MemorySink()
    assert _shipper(spool, back).start().close(timeout=10)
    assert _steps(back) == list(range(1, 301))


class Unsteady(MemorySink):
    """Fails at the calls given by number."""

    fails: frozenset[int] = frozenset()
    calls = 0

    def send(self, points: Sequence[MetricPoint]) -> None:
        self.calls += 1
        if self.calls in self.fails:
            raise InfrastructureError("away for a moment")
        super().send(points)


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    fails=st.frozensets(st.integers(1, 12), max_size=2),
    max_batch=st.integers(1, 400),
    stops=st.lists(st.integers(1, 40), max_size=3),
)
def test_nothing_is_lost_whenever_sends_fail_and_shippers_stop(
    tmp_path_factory: pytest.TempPathFactory,
    make_record: MakeRecord,
    fails: frozenset[int],
    max_batch: int,
    stops: list[int],
) -> None:
    spool = tmp_path_factory.mktemp("spool") / "spool"
    sink = Unsteady()
    sink.fails = fails
    written = 0
    for stop in [*sorted(stops), 40]:  # at each stop a shipper ends and another begins
        with spool.open("ab") as file:
            for step in range(written + 1, stop + 1):
                file.write(encode(make_record(step)))
        written = max(written, stop)
        shipper = Shipper(
            SpoolReader(spool),
            sink,
            spool.parent / "state",
            max_batch=max_batch,
            interval_seconds=0.001,
            max_backoff_seconds=0.01,
        )
        assert shipper.start().close(timeout=20)

    assert _steps(sink) == list(range(1, 41))


def test_a_restarted_shipper_sends_only_what_is_new(spool: Path, make_record: MakeRecord) -> None:
    first = MemorySink()
    _shipper(spool, first).start().close(timeout=10)
    with spool.open("ab") as file:
        file.write(encode(make_record(301)))
    second = MemorySink()

    assert _shipper(spool, second).start().close(timeout=10)
    assert _steps(second) == [301]


def test_another_sink_gets_everything_from_the_start(spool: Path) -> None:
    _shipper(spool, MemorySink(name="here")).start().close(timeout=10)
    there = MemorySink(name="there")

    assert _shipper(spool, there).start().close(timeout=10)
    assert _steps(there) == list(range(1, 301))


def test_a_batch_that_half_arrived_is_sent_again_whole(spool: Path) -> None:
    class Half(MemorySink):
        def send(self, points: Sequence[MetricPoint]) -> None:
            if not self.refused:
                self.refused = 1
                self.points += points[: len(points) // 2]
                raise InfrastructureError("the line broke")
            super().send(points)

    sink = Half()
    assert _shipper(spool, sink, max_batch=100).start().close(timeout=10)
    assert sorted(set(_steps(sink))) == list(range(1, 301))
    assert len(sink.points) - len(set(sink.points)) <= 500


def test_a_refusal_for_good_is_reported_and_ends_the_shipping(spool: Path) -> None:
    lines: list[str] = []

    class Deleted(MemorySink):
        def send(self, points: Sequence[MetricPoint]) -> None:
            raise UsageError(f"the run was deleted, {len(points)} numbers refused")

    shipper = _shipper(spool, Deleted(), report=lines.append).start()

    assert not shipper.close(timeout=10)
    assert len(lines) == 1
    assert "numbers are no longer sent to memory: the run was deleted" in lines[0]
    assert isinstance(shipper.error, UsageError)
    assert not (spool.parent / "state").exists()


def test_some_steps_only_but_every_decision(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "spool"
    decided = {33: SetBatchSize(128), 71: SetBatchSize(256)}
    path.write_bytes(
        b"".join(encode(make_record(step, decision=decided.get(step))) for step in range(1, 101))
    )
    sink = MemorySink()

    assert _shipper(path, sink, metrics_every=10).start().close(timeout=10)
    assert _steps(sink) == sorted([*range(10, 101, 10), 33, 71])


def test_damaged_lines_do_not_hold_up_what_follows(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"garbage\n" * 200 + encode(make_record(1)))
    sink = MemorySink()

    assert _shipper(path, sink).start().close(timeout=10)
    assert _steps(sink) == [1]


def test_records_that_come_while_it_runs_are_sent(tmp_path: Path, make_record: MakeRecord) -> None:
    path, sink = tmp_path / "spool", MemorySink()
    shipper = _shipper(path, sink).start()
    with path.open("ab") as file:
        for step in range(1, 51):
            file.write(encode(make_record(step)))
            file.flush()
    _wait(lambda: _steps(sink) == list(range(1, 51)))

    assert shipper.close(timeout=10)


def test_a_state_that_cannot_be_saved_is_reported_once_and_shipping_goes_on(spool: Path) -> None:
    lines: list[str] = []
    sink = MemorySink()
    shipper = Shipper(
        SpoolReader(spool), sink, "/proc/none/state", max_batch=100, report=lines.append
    ).start()

    assert shipper.close(timeout=10)
    assert _steps(sink) == list(range(1, 301))
    assert len(lines) == 1
    assert "/proc/none/state cannot be written" in lines[0]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"sink": "other", "offset": 5}'])
def test_a_state_that_is_not_ours_means_from_the_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "state").write_text(content)

    assert saved_offset(tmp_path / "state", "memory") == 0


def test_the_state_names_its_sink_and_the_bytes_done(spool: Path) -> None:
    _shipper(spool, MemorySink()).start().close(timeout=10)

    state = json.loads((spool.parent / "state").read_text())
    assert state == {"sink": "memory", "offset": spool.stat().st_size}
