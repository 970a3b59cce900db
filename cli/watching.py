"""Choose how to watch: the live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .board import STAGES
from .plain import PlainLines

if TYPE_CHECKING:
    from .live import LiveView


def watcher(stages: Sequence[str] = STAGES, *, transient: bool = True) -> LiveView | PlainLines:
    """Return a watcher that writes on stderr.

    Example:
        >>> watcher().__class__.__name__ in ("PlainLines", "LiveView")
        True
    """
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return PlainLines(sys.stderr, stages=stages)
    from rich.console import Console

    from .live import LiveView

    return LiveView(Console(stderr=True), stages=stages, transient=transient)
