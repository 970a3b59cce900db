"""Write a job's records to a file, one JSON line each, from a thread of its own."""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path

from workbench.codec import to_json
from workbench.errors import InfrastructureError, UsageError
from workbench.record import Record

# Few records between two system calls: the writing thread gives the interpreter lock back often,
# so that it never makes a training thread wait for long.
_RECORDS_PER_WRITE = 16
_SECONDS_BETWEEN_RETRIES = 1.0


class SpoolTracker:
    """A tracker that queues records and appends them to a file from its own thread.

    ``write`` costs an append to a deque. What has reached the file survives the process (also
    ``kill -9``): at most ``interval_seconds`` of records are in memory only. When more than
    ``max_pending`` records wait, ``write`` helps to empty the queue, so that nothing is lost and
    memory stays bounded. While the disk refuses (full, read-only), training goes on: one warning
    is given, ``error`` holds the reason, writing is tried again each second, and the records past
    ``max_pending`` are counted in ``dropped``.

    A file that exists is continued. A last line that was cut off by a crash is removed first.

    Args:
        path: The file; its folder is made when missing.
        max_pending: Records that may wait in memory, 1 or more.
        interval_seconds: Longest time a record waits before it is written.
        warn: Called with one line when the disk refuses, and when it accepts again.

    Attributes:
        path: The file.
        error: Why the disk refuses, or ``None``.
        dropped: Records lost because the disk refused for too long.

    Raises:
        InfrastructureError: Another process is writing this file.

    Example:
        >>> import tempfile, workbench
        >>> from workbench.records import read_spool
        >>> facts = workbench.StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                             batch_size_global=8, batch_size_target=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tracker = SpoolTracker(f"{folder}/spool.jsonl")
        ...     tracker.write(Record(facts=facts, signals=workbench.Signals()))
        ...     tracker.close()
        ...     [record.facts.step for record, _ in read_spool(tracker.path)]
        [1]
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_pending: int = 20_000,
        interval_seconds: float = 0.1,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.error: OSError | None = None
        self.dropped = 0
        self._max_pending = max_pending
        self._interval_seconds = interval_seconds
        self._warn = warn or _warn
        self._pending: deque[Record] = deque()
        self._unwritten = b""  # encoded, and not yet accepted by the disk
        self._one_drains = threading.Lock()
        self._closing = threading.Event()
        self._closed = False
        self._pid = os.getpid()
        self._file = -1
        try:
            self._file = _open_spool(self.path)
        except OSError as error:
            self._refused(error)
        self._thread = threading.Thread(target=self._run, name="wb-spool", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, record: Record) -> None:
        """Take one record; returns at once."""
        if self._closed:
            raise UsageError(
                f"the record of step {record.facts.step} came after {self.path} was closed; "
                "close the tracker after the last step"
            )
        self._pending.append(record)
        if len(self._pending) > self._max_pending:
            self._relieve()

    def close(self, timeout: float = 30.0) -> None:
        """Write what waits, and bring the file to the disk.

        Args:
            timeout: Seconds to wait for a disk that does not answer.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        self._closing.set()
        atexit.unregister(self.close)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._warn(f"{self.path} did not answer for {timeout:g} s; records may be missing")
            return
        self._drain()
        lost = self.dropped + len(self._pending) + self._unwritten.count(b"\n")
        if lost:
            self._warn(f"{self.path}: {lost} records could not be written ({self.error})")
        if self._file >= 0:
            _close_spool(self._file)

    def _run(self) -> None:
        while not self._closing.wait(
            self._interval_seconds if self.error is None else _SECONDS_BETWEEN_RETRIES
        ):
            self._drain()

    def _relieve(self) -> None:
        if self.error is None:
            self._drain()
        else:
            self._pending.pop()
            self.dropped += 1

    def _drain(self) -> None:
        if os.getpid() != self._pid:  # a forked copy: the parent writes these
            self._pending.clear()
            return
        with self._one_drains:
            while self._pending or self._unwritten:
                self._unwritten = self._unwritten or self._encode_some()
                try:
                    self._append()
                except OSError as error:
                    self._refused(error)
                    return
                if self.error is not None:
                    self.error = None
                    self._warn(f"{self.path} can be written again; {self.dropped} records lost")

    def _encode_some(self) -> bytes:
        lines = []
        for _ in range(min(len(self._pending), _RECORDS_PER_WRITE)):
            record = self._pending.popleft()
            try:
                lines.append(encode(record))
            except (TypeError, ValueError) as error:
                self.dropped += 1
                self._warn(f"the record of step {record.facts.step} cannot be written: {error}")
        return b"".join(lines)

    def _append(self) -> None:
        if self._file < 0:
            self._file = _open_spool(self.path)
        while self._unwritten:
            written = os.write(self._file, self._unwritten)
            self._unwritten = self._unwritten[written:]

    def _refused(self, error: OSError) -> None:
        if self.error is None:
            self._warn(
                f"records cannot be written to {self.path}: {error.strerror or error}; training "
                f"goes on, up to {self._max_pending} records wait in memory; free space or "
                "make the folder writable"
            )
        self.error = error


def encode(record: Record) -> bytes:
    """Return the record's line in the spool.

    Example:
        >>> import workbench
        >>> facts = workbench.StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                             batch_size_global=8, batch_size_target=8)
        >>> encode(Record(facts=facts, signals=workbench.Signals())).count(b"\\n")
        1
    """
    return (to_json(record) + "\n").encode()


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def _open_spool(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _lock(file, path)
        _mend(file)
    except BaseException:
        os.close(file)
        raise
    return file


def _lock(file: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this system: nothing else depends on them
        return
    deadline = time.monotonic() + 1.0
    while True:
        try:
            # Held by the process, not by its forks: an orphaned data loader must not keep it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"{path} is being written by another process; one job may write a spool: "
                    "end the other job or give this run its own folder"
                ) from None
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return
        else:
            return


def _mend(file: int) -> None:
    """End the file with a whole line: finish a whole one that lacks its newline, cut a torn one."""
    size = os.fstat(file).st_size
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        start = max(0, start - 65536)
        tail = os.pread(file, size - start, start)
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return
    try:
        json.loads(last)
    except ValueError:
        os.ftruncate(file, size - len(last))
    else:
        os.write(file, b"\n")


def _close_spool(file: int) -> None:
    try:
        os.fsync(file)
    except OSError:  # a pipe or device: nothing to bring to the disk
        pass
    finally:
        os.close(file)
