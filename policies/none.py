"""Watch only: never change anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from workbench.decision import Decision, Keep
from workbench.policy import View


@dataclass(frozen=True, kw_only=True)
class WatchOnly:
    """The policy that keeps everything as it is.

    Example:
        >>> view = View(step=1, epoch=0, samples=8, workers=1, batch_size_global=8)
        >>> WatchOnly().decide(view).kind
        'keep'
    """

    name: ClassVar[str] = "none"

    def decide(self, view: View) -> Decision:  # noqa: ARG002 - nothing to look at
        """Return ``Keep``."""
        return Keep()
