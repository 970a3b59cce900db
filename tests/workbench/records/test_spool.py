"""The spool loses nothing, repairs what a crash cut, and never stops training."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import Record, Signals, StepFacts
from workbench.codec import from_json, to_json
from workbench.decision import Deferred, Keep, Refused, Resize, SetBatchSize, SetLearningRate, Stop
from workbench.errors import InfrastructureError, UsageError
from workbench.record import Fault, Proposal
from workbench.records import SpoolReader, SpoolTracker, read_spool, surviving
from workbench.records.spool import encode
from workbench.signal import Signal, undetermined

MakeRecord = Callable[..., Record]

_numbers = st.floats(allow_nan=False)
_texts = st.text(max_size=20)
_signals = st.builds(
    Signal,
    name=_texts,
    value=_numbers,
    low=_numbers,
    high=_numbers,
    unit=_texts,
    step=st.integers(0, 10**9),
    reason=_texts,
)
_causes = st.lists(_signals, max_size=2).map(tuple)
_decisions = st.one_of(
    st.just(Keep()),
    st.builds(SetBatchSize, st.integers(1, 10**6), because=_causes, reason=_texts),
    st.builds(SetLearningRate, _numbers, because=_causes, reason=_texts),
    st.builds(Resize, st.integers(1, 64), because=_causes),
    st.builds(Stop, reason=_texts),
)
_records = st.builds(
    Record,
    facts=st.builds(
        StepFacts,
        step=st.integers(1, 10**9),
        epoch=st.integers(0, 1000),
        samples=st.integers(0, 10**12),
        seconds=_numbers,
        workers=st.integers(1, 64),
        batch_size_global=st.integers(1, 10**6),
        batch_size_target=st.integers(1, 10**6),
        grad_sqnorm_small=st.none() | _numbers,
        loss=st.none() | _numbers,
        skipped=st.booleans(),
        origin=_texts,
    ),
    signals=st.lists(_signals, max_size=3).map(Signals.of),
    decision=_decisions,
    outcome=st.none() | st.builds(Refused, _texts) | st.builds(Deferred, _texts),
    policy=_texts,
    proposals=st.lists(
        st.builds(Proposal, policy=_texts, decision=_decisions, overruled=_texts), max_size=2
    ).map(tuple),
    faults=st.lists(
        st.builds(Fault, part=_texts, step=st.integers(1, 9), error=_texts), max_size=1
    ).map(tuple),
    unix_time=st.floats(0, 2e9),
)


def _steps(path: Path) -> list[int]:
    return [record.facts.step for record, _ in read_spool(path)]


@settings(deadline=None, max_examples=60)
@given(record=_records)
def test_a_line_equals_the_codec_and_reads_back_as_the_same_record(record: Record) -> None:
    line = encode(record).decode()

    assert line == to_json(record) + "\n"
    assert from_json(Record, line) == record


def test_nan_and_infinity_survive_the_spool(tmp_path: Path, make_record: MakeRecord) -> None:
    tracker = SpoolTracker(tmp_path / "spool")
    for step, loss in enumerate([nan, inf, -inf], start=1):
        tracker.write(make_record(step, loss=loss))
    tracker.close()

    losses = [record.facts.loss for record, _ in read_spool(tmp_path / "spool")]
    assert losses[0] != losses[0]
    assert losses[1:] == [inf, -inf]


def test_an_undetermined_signal_is_written_and_stays_undetermined(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    unknown = Signals.of([undetermined("noise_scale", reason="too few steps")])
    tracker = SpoolTracker(tmp_path / "spool")
    tracker.write(Record(facts=make_record(1).facts, signals=unknown))
    tracker.close()

    [(record, _)] = read_spool(tmp_path / "spool")
    assert not record.signals["noise_scale"].determined
    assert record.signals["noise_scale"].reason == "too few steps"


def test_records_reach_the_file_within_the_interval(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    tracker = SpoolTracker(tmp_path / "spool", interval_seconds=0.05)
    tracker.write(make_record(1))
    deadline = time.monotonic() + 5
    while not _steps(tmp_path / "spool") and time.monotonic() < deadline:
        time.sleep(0.02)

    assert _steps(tmp_path / "spool") == [1]
    tracker.close()


def test_a_full_queue_loses_nothing_and_keeps_the_order(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    tracker = SpoolTracker(tmp_path / "spool", max_pending=10, interval_seconds=60)
    for step in range(1, 501):
        tracker.write(make_record(step))
    tracker.close()

    assert _steps(tmp_path / "spool") == list(range(1, 501))
    assert tracker.dropped == 0


def test_a_resumed_job_appends_to_the_same_file(tmp_path: Path, make_record: MakeRecord) -> None:
    for steps in ([1, 2, 3], [3, 4]):
        tracker = SpoolTracker(tmp_path / "spool")
        for step in steps:
            tracker.write(make_record(step))
        tracker.close()

    assert _steps(tmp_path / "spool") == [1, 2, 3, 3, 4]


@pytest.mark.parametrize("cut", [1, 2, 40, 400])
def test_a_torn_last_line_is_removed_before_the_next_record(
    tmp_path: Path, make_record: MakeRecord, cut: int
) -> None:
    path = tmp_path / "spool"
    path.write_bytes((encode(make_record(1)) + encode(make_record(2)))[:-cut])
    reader = SpoolReader(path)
    before = [record.facts.step for record in reader.poll()]
    tracker = SpoolTracker(path)
    tracker.write(make_record(3))
    tracker.close()

    # A line that lacks its newline alone is whole: it is kept.
    assert before == [1]
    assert _steps(path) == ([1, 2, 3] if cut == 1 else [1, 3])
    assert [record.facts.step for record in reader.poll()] == _steps(path)[1:]


def test_closing_twice_is_harmless_and_writing_afterwards_is_an_error(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    tracker = SpoolTracker(tmp_path / "spool")
    tracker.close()
    tracker.close()

    with pytest.raises(UsageError, match=r"record of step 7 came after .* was closed"):
        tracker.write(make_record(7))


def test_a_second_process_cannot_write_the_same_spool(tmp_path: Path) -> None:
    tracker = SpoolTracker(tmp_path / "spool")
    code = "import sys; from workbench.records import SpoolTracker; SpoolTracker(sys.argv[1])"
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spool")], capture_output=True, text=True
    )
    tracker.close()

    assert other.returncode == 1
    assert "is being written by another process" in other.stderr


def test_a_read_only_folder_warns_once_and_training_goes_on(make_record: MakeRecord) -> None:
    lines: list[str] = []
    tracker = SpoolTracker("/proc/no-such-folder/spool", max_pending=3, warn=lines.append)
    for step in range(1, 11):
        tracker.write(make_record(step))

    assert len(lines) == 1
    assert "records cannot be written to /proc/no-such-folder/spool" in lines[0]
    assert isinstance(tracker.error, OSError)
    assert tracker.dropped == 7
    tracker.close()
    assert "10 records could not be written" in lines[-1]


def test_a_full_disk_warns_once_and_keeps_the_error(make_record: MakeRecord) -> None:
    lines: list[str] = []
    tracker = SpoolTracker("/dev/full", warn=lines.append, interval_seconds=0.02)
    tracker.write(make_record(1))
    deadline = time.monotonic() + 5
    while tracker.error is None and time.monotonic() < deadline:
        time.sleep(0.01)
    for step in range(2, 6):
        tracker.write(make_record(step))

    assert tracker.error is not None
    assert tracker.error.strerror == "No space left on device"
    assert len(lines) == 1
    tracker.close()


def test_what_waited_for_space_is_written_when_there_is_space(tmp_path: Path) -> None:
    code = """
import resource, sys, time
from workbench import Record, Signals, StepFacts
from workbench.records import SpoolTracker
lines = []
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
tracker = SpoolTracker(sys.argv[1], warn=lines.append, interval_seconds=0.02)
for step in range(1, 101):
    facts = StepFacts(step=step, epoch=0, samples=8, seconds=0.1, workers=1,
                      batch_size_global=8, batch_size_target=8)
    tracker.write(Record(facts=facts, signals=Signals()))
while tracker.error is None:
    time.sleep(0.01)
assert tracker.error.strerror == "File too large", tracker.error
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
tracker.close()
assert tracker.error is None and len(lines) == 2, lines
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spool")], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert _steps(tmp_path / "spool") == list(range(1, 101))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_killed_process_leaves_all_it_had_flushed_and_the_next_goes_on(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    path = tmp_path / "spool"
    code = """
import itertools, sys, time
from workbench import Record, Signals, StepFacts
from workbench.records import SpoolTracker
tracker = SpoolTracker(sys.argv[1], interval_seconds=0.02)
for step in itertools.count(1):
    facts = StepFacts(step=step, epoch=0, samples=8, seconds=0.1, workers=1,
                      batch_size_global=8, batch_size_target=8)
    tracker.write(Record(facts=facts, signals=Signals()))
    time.sleep(0.0005)
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 30
    while (not path.exists() or path.stat().st_size < 50_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    flushed = path.stat().st_size
    os.kill(child.pid, signal.SIGKILL)
    child.wait()

    steps = _steps(path)
    assert path.stat().st_size >= flushed > 0
    assert steps == list(range(1, len(steps) + 1))
    tracker = SpoolTracker(path)
    tracker.write(make_record(len(steps) + 1))
    tracker.close()
    assert _steps(path) == [*steps, len(steps) + 1]


def test_an_uncaught_error_in_training_leaves_every_record(tmp_path: Path) -> None:
    code = """
import sys
from workbench import Record, Signals, StepFacts
from workbench.records import SpoolTracker
tracker = SpoolTracker(sys.argv[1], interval_seconds=60)
facts = StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
                  batch_size_global=8, batch_size_target=8)
tracker.write(Record(facts=facts, signals=Signals()))
raise RuntimeError("out of memory")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spool")], capture_output=True, text=True
    )

    assert "out of memory" in done.stderr
    assert _steps(tmp_path / "spool") == [1]


def test_a_forked_worker_writes_nothing_twice(tmp_path: Path, make_record: MakeRecord) -> None:
    tracker = SpoolTracker(tmp_path / "spool", interval_seconds=60)
    tracker.write(make_record(1))
    child = os.fork()
    if child == 0:
        tracker.close()
        os._exit(0)
    os.waitpid(child, 0)
    tracker.close()

    assert _steps(tmp_path / "spool") == [1]


def test_a_record_that_json_cannot_hold_is_counted_and_the_others_arrive(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    lines: list[str] = []
    tracker = SpoolTracker(tmp_path / "spool", warn=lines.append)
    odd = dataclasses.replace(make_record(2), policy=object())  # type: ignore[arg-type]
    for record in (make_record(1), odd, make_record(3)):
        tracker.write(record)
    tracker.close()

    assert _steps(tmp_path / "spool") == [1, 3]
    assert tracker.dropped == 1
    assert "the record of step 2 cannot be written" in lines[0]


def test_numbers_of_numpy_are_written_as_numbers(tmp_path: Path, make_record: MakeRecord) -> None:
    import numpy as np

    tracker = SpoolTracker(tmp_path / "spool")
    tracker.write(make_record(1, loss=np.float32(0.5), batch_size=np.int64(96)))
    tracker.close()

    [(record, _)] = read_spool(tmp_path / "spool")
    assert (record.facts.loss, record.facts.batch_size_global) == (0.5, 96)


def test_the_training_thread_pays_microseconds(tmp_path: Path, make_record: MakeRecord) -> None:
    tracker = SpoolTracker(tmp_path / "spool")
    record, costs = make_record(1), []
    for _ in range(2000):
        before = time.perf_counter_ns()
        tracker.write(record)
        costs.append(time.perf_counter_ns() - before)
    tracker.close()

    assert (
        statistics.median(costs) < 50_000
    )  # measured: under 1,000; the bound is for busy machines


def test_a_missing_spool_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="there is no spool"):
        list(read_spool(tmp_path / "none"))


def test_a_reader_sees_each_record_once_while_it_is_written(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    reader = SpoolReader(tmp_path / "spool")
    assert reader.poll() == []
    tracker, seen = SpoolTracker(tmp_path / "spool", interval_seconds=0.001), []
    for step in range(1, 301):
        tracker.write(make_record(step))
        seen += reader.poll(max_records=7)
    tracker.close()
    while records := reader.poll(max_records=7):
        seen += records

    assert [record.facts.step for record in seen] == list(range(1, 301))
    assert reader.offset == (tmp_path / "spool").stat().st_size


def test_a_later_reader_goes_on_at_the_offset(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"".join(encode(make_record(step)) for step in (1, 2, 3)))
    first = SpoolReader(path)
    first.poll(max_records=2)

    assert [record.facts.step for record in SpoolReader(path, first.offset).poll()] == [3]
    assert [record.facts.step for record, _ in read_spool(path, first.offset)] == [3]


def test_a_damaged_line_is_counted_and_the_others_are_read(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    path = tmp_path / "spool"
    lines = [encode(make_record(1)), b"\0\0\0\n", b'{"facts":1}\n', encode(make_record(2))]
    path.write_bytes(b"".join(lines))
    reader = SpoolReader(path)

    assert [record.facts.step for record in reader.poll()] == [1, 2]
    assert reader.damaged == 2


def test_a_spool_that_shrank_is_an_error(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "spool"
    path.write_bytes(encode(make_record(1)))

    with pytest.raises(InfrastructureError, match="it was replaced"):
        SpoolReader(path, offset=10_000).poll()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 30), max_size=40))
def test_the_surviving_history_goes_up_and_ends_with_the_last_record(steps: list[int]) -> None:
    history = surviving([_record_at(step) for step in steps])
    kept = [record.facts.step for record in history]

    assert kept == sorted(set(kept))
    assert kept[-1:] == steps[-1:]
    assert set(kept) <= set(steps)


def test_steps_of_an_attempt_that_was_given_up_do_not_survive() -> None:
    records = [_record_at(step) for step in (1, 2, 3, 4, 5, 3, 4)]

    assert [id(record) for record in surviving(records)] == [
        id(records[index]) for index in (0, 1, 5, 6)
    ]


def _record_at(step: int) -> Record:
    facts = StepFacts(
        step=step,
        epoch=0,
        samples=step,
        seconds=0.0,
        workers=1,
        batch_size_global=1,
        batch_size_target=1,
    )
    return Record(facts=facts, signals=Signals())
