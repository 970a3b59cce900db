"""Read a spool of records, whole or while it is being written."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from workbench.codec import from_plain
from workbench.errors import InfrastructureError
from workbench.record import Record

_log = logging.getLogger(__name__)
_BYTES_PER_READ = 1 << 18


class SpoolReader:
    """A reader that returns what was appended since it last looked, and never waits.

    A line is taken once its newline is there: a line cut off by a crash is left for the writer to
    remove. A whole line that is no record (a damaged disk) is skipped, counted, and logged.

    Args:
        path: The file; it may not exist yet.
        offset: Byte at which to begin: 0, or an ``offset`` read from a reader before.

    Attributes:
        path: The file.
        offset: Bytes taken so far; where a later reader can go on.
        damaged: Whole lines that were no records.

    Example:
        >>> SpoolReader("no/such/file.jsonl").poll()
        []
    """

    def __init__(self, path: str | Path, offset: int = 0) -> None:
        self.path = Path(path)
        self.offset = offset
        self.damaged = 0

    def poll(self, max_records: int = 1000) -> list[Record]:
        """Return the next records, none when there is nothing new.

        Args:
            max_records: Most records to return, 1 or more.

        Raises:
            InfrastructureError: The file cannot be read, or is shorter than what was taken.
        """
        records = []
        for record, offset in self._rows(max_records):
            self.offset = offset
            if record is not None:
                records.append(record)
        return records

    def _rows(self, most: int) -> Iterator[tuple[Record | None, int]]:
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < self.offset:
                    raise InfrastructureError(
                        f"{self.path} has {size} bytes but {self.offset} were read from it "
                        "before: it was replaced; remove the shipper's state file to read it anew"
                    )
                file.seek(self.offset)
                yield from self._lines(file.readlines, most)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InfrastructureError(
                f"{self.path} cannot be read: {error.strerror}; check the folder's permissions"
            ) from error

    def _lines(
        self, read_lines: Callable[[int], list[bytes]], most: int
    ) -> Iterator[tuple[Record | None, int]]:
        offset, taken = self.offset, 0
        while taken < most and (lines := read_lines(_BYTES_PER_READ)):
            for line in lines[: most - taken]:
                if not line.endswith(b"\n"):
                    return
                taken += 1
                start, offset = offset, offset + len(line)
                yield self._decode(line, start), offset

    def _decode(self, line: bytes, start: int) -> Record | None:
        try:
            record: Record = from_plain(Record, json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.damaged += 1
            _log.warning("%s: the line at byte %d is no record (%s)", self.path, start, error)
            return None
        return record


def read_spool(path: str | Path, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """Yield each record with the offset after it; a torn last line is left out.

    Args:
        path: The file.
        offset: Byte at which to begin.

    Raises:
        InfrastructureError: The file is missing or cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"facts": {"step": 1')
        ...     file.flush()
        ...     list(read_spool(file.name))
        []
    """
    if not Path(path).is_file():
        raise InfrastructureError(f"there is no spool {path}; give the folder of a run")
    for record, after in SpoolReader(path, offset)._rows(1 << 62):
        if record is not None:
            yield record, after


def surviving(records: Iterable[Record]) -> list[Record]:
    """Return the history that led to the last record: each step once, in order.

    A job that resumes from a checkpoint goes back some steps and shows them again. Whatever was
    recorded at or after the step it went back to belongs to the attempt that was given up.

    Args:
        records: In the order in which they were written.

    Example:
        >>> import workbench
        >>> def at(step):
        ...     facts = workbench.StepFacts(step=step, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                                 batch_size_global=8, batch_size_target=8)
        ...     return Record(facts=facts, signals=workbench.Signals())
        >>> [record.facts.step for record in surviving(map(at, [1, 2, 3, 4, 3]))]
        [1, 2, 3]
    """
    history: list[Record] = []
    for record in records:
        while history and history[-1].facts.step >= record.facts.step:
            history.pop()
        history.append(record)
    return history
