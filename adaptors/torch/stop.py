"""A wish to stop, as SIGTERM brings it: noticed at the next step boundary, on all workers at once."""

from __future__ import annotations

import signal
import threading
from typing import Any

_wish = threading.Event()


def stop_requested() -> bool:
    """Return whether this process was asked to end its job in good order."""
    return _wish.is_set()


def stop_on_sigterm() -> None:
    """Turn SIGTERM into a wish to stop (a worker's entry point calls it once)."""
    signal.signal(signal.SIGTERM, _ask)


def _ask(number: int, frame: Any) -> None:  # noqa: ARG001
    _wish.set()
