"""Send a spool's numbers to a tracking server in batches, whatever the server does."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from workbench.errors import InfrastructureError
from workbench.record import Record

from .metrics import MetricPoint, notable, record_points
from .sink import Sink
from .spool_reader import SpoolReader

_log = logging.getLogger(__name__)
_FIRST_RECORDS = 10
_MOST_RECORDS = 5000


class Shipper:
    """One thread that reads a spool and sends its numbers on.

    After each batch that arrived, the position in the spool is saved (written beside, then
    renamed), and a later shipper goes on from there. So no number is lost, and at most one batch
    is sent twice; a sink takes the same number twice without a trace of it. While the sink is
    away it is tried again after 0.5, 1, 2 ... ``max_backoff_seconds``; the numbers stay in the
    spool, and one line is reported when it goes and one when it is back.

    Any other error (the run was deleted, say) ends the shipping, is reported, and stays in
    ``error``; the spool and the position are kept.

    Args:
        reader: The spool's reader; its offset is set to the saved position.
        sink: Where to send.
        state_path: File that keeps the position; it belongs to one spool and one sink.
        max_batch: Numbers in a batch, about; 1 or more.
        interval_seconds: Rest between looks at the spool when there is little.
        metrics_every: Send one step in so many; steps with a decision, a fault or a NaN always.
        report: Called with one line when the sink goes away, is back, or refuses for good.
        max_backoff_seconds: Longest wait between two tries.

    Attributes:
        sent_records: Records read and done with by this shipper.
        sent_values: Numbers that arrived.
        error: Why the sink does not take numbers now, or ``None``.

    Example:
        >>> from workbench.records import MemorySink
        >>> sink = MemorySink()
        >>> shipper = Shipper(SpoolReader("no/such/file"), sink, "no/state").start()
        >>> shipper.close(timeout=5.0), sink.points
        (True, [])
    """

    def __init__(
        self,
        reader: SpoolReader,
        sink: Sink,
        state_path: str | Path,
        *,
        max_batch: int = 1000,
        interval_seconds: float = 0.5,
        metrics_every: int = 1,
        report: Callable[[str], None] | None = None,
        max_backoff_seconds: float = 30.0,
    ) -> None:
        self.sent_records = 0
        self.sent_values = 0
        self.error: Exception | None = None
        self._reader = reader
        self._sink = sink
        self._state_path = Path(state_path)
        self._max_batch = max_batch
        self._interval_seconds = interval_seconds
        self._metrics_every = metrics_every
        self._report = report or _log.warning
        self._max_backoff_seconds = max_backoff_seconds
        self._records_a_batch = min(_FIRST_RECORDS, max_batch)
        self._state_unsaved = False
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._all_sent = False
        self._thread = threading.Thread(target=self._run, name="wb-shipper", daemon=True)
        reader.offset = saved_offset(self._state_path, sink.name, reader.offset)

    def start(self) -> Shipper:
        """Begin; returns the shipper."""
        self._thread.start()
        return self

    @property
    def lag_bytes(self) -> int:
        """Bytes of the spool that were not read yet."""
        try:
            return max(0, self._reader.path.stat().st_size - self._reader.offset)
        except OSError:
            return 0

    def close(self, timeout: float = 30.0) -> bool:
        """Send what is in the spool, then stop; returns whether all of it arrived.

        Args:
            timeout: Seconds to go on trying.
        """
        self._closing.set()
        self._thread.join(timeout)
        self._abandoned.set()
        return self._all_sent

    def _run(self) -> None:
        try:
            self._all_sent = self._ship()
        except Exception as error:
            self.error = error
            self._report(
                f"numbers are no longer sent to {self._sink.name}: {error}; {self._kept()}"
            )

    def _ship(self) -> bool:
        while not self._abandoned.is_set():
            closing = self._closing.is_set()  # asked first: what came before it is read below
            before, asked = self._reader.offset, self._records_a_batch
            records = self._reader.poll(asked)
            points = [point for record in records for point in self._points(record)]
            if not self._deliver(points):
                return False
            if self._reader.offset != before:
                self._done_with(records, points)
            elif closing:
                return True
            if len(records) < asked:
                self._closing.wait(self._interval_seconds)
        return False

    def _points(self, record: Record) -> Iterable[MetricPoint]:
        if record.facts.step % self._metrics_every and not notable(record):
            return ()
        return record_points(record)

    def _deliver(self, points: list[MetricPoint]) -> bool:
        pause = min(0.5, self._max_backoff_seconds)
        while points and not self._abandoned.is_set():
            try:
                self._sink.send(points)
            except InfrastructureError as error:
                self._away(error)
                self._rest(pause)
                pause = min(2 * pause, self._max_backoff_seconds)
            else:
                self._back()
                return True
        return not points

    def _rest(self, seconds: float) -> None:
        if self._closing.is_set():
            self._abandoned.wait(min(seconds, 1.0))
        else:
            self._closing.wait(seconds)

    def _away(self, error: InfrastructureError) -> None:
        if self.error is None:
            self._report(f"{error}; {self._kept()} and sent when it answers")
        self.error = error

    def _back(self) -> None:
        if self.error is not None:
            self._report(f"{self._sink.name} answers again; what was kept is being sent")
            self.error = None

    def _kept(self) -> str:
        return f"the records are kept in {self._reader.path}"

    def _done_with(self, records: list[Record], points: list[MetricPoint]) -> None:
        self.sent_records += len(records)
        self.sent_values += len(points)
        fitting = self._max_batch * len(records) // max(1, len(points))
        self._records_a_batch = min(max(1, fitting), _MOST_RECORDS)
        try:
            _save_offset(self._state_path, self._sink.name, self._reader.offset)
        except OSError as error:
            if not self._state_unsaved:
                self._state_unsaved = True
                self._report(
                    f"{self._state_path} cannot be written: {error.strerror}; after a restart some "
                    "numbers will be sent twice"
                )


def saved_offset(state_path: str | Path, sink_name: str, default: int = 0) -> int:
    """Return the saved position of this sink, ``default`` when there is none.

    Example:
        >>> saved_offset("no/such/file", "memory")
        0
    """
    try:
        state = json.loads(Path(state_path).read_text())
    except (OSError, ValueError):
        return default
    if not isinstance(state, dict) or state.get("sink") != sink_name:
        return default
    return int(state.get("offset", default))


def _save_offset(state_path: Path, sink_name: str, offset: int) -> None:
    state_path.parent.mkdir(parents=True, exist_ok=True)
    beside = state_path.with_name(f".{state_path.name}.{os.getpid()}")
    beside.write_text(json.dumps({"sink": sink_name, "offset": offset}))
    beside.replace(state_path)
