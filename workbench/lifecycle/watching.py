"""Tell a watcher of every record while a job writes its spool."""

from __future__ import annotations

import threading
from pathlib import Path

from .ports import Watcher

_POLL_SECONDS = 0.2


class Follower:
    """One thread that reads a spool and hands each new record to the watcher.

    A spool that exists is followed from its end: what a resumed job wrote before was shown before.

    Args:
        spool: The file; it may not exist yet.
        watcher: Who hears of the records.
        samples_total: Samples that the whole job will show.
        epochs: Its epochs.
    """

    def __init__(self, spool: Path, watcher: Watcher, *, samples_total: int, epochs: int) -> None:
        from workbench.records import SpoolReader

        self._reader = SpoolReader(spool)
        while self._reader.poll(100_000):  # to the end of its last whole line
            pass
        self._watcher = watcher
        self._samples_total = samples_total
        self._epochs = epochs
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wb-follower", daemon=True)

    def start(self) -> Follower:
        """Begin; returns the follower."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Hand over what is left, then stop."""
        self._closing.set()
        self._thread.join(timeout=30.0)

    def _run(self) -> None:
        try:
            while True:
                last = self._closing.is_set()  # asked first: what came before it is read below
                while records := self._reader.poll():
                    for record in records:
                        self._watcher.training(record, self._samples_total, self._epochs)
                if last:
                    return
                self._closing.wait(_POLL_SECONDS)
        except Exception as error:  # a view that fails must not stop training, but be heard of
            self._watcher.note(f"the live view stopped: {type(error).__name__}: {error}")
