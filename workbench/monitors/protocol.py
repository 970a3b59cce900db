"""What a monitor is: state and facts in, state and one signal out."""

from __future__ import annotations

from typing import Any, Protocol

from workbench.facts import StepFacts
from workbench.signal import Signal


class Monitor(Protocol):
    """A pure estimator. Its state is a frozen dataclass of numbers, strings and tuples."""

    @property
    def name(self) -> str:
        """The name of its signal."""
        ...

    def init(self) -> Any:
        """Return the state before the first step."""
        ...

    def update(self, state: Any, facts: StepFacts) -> tuple[Any, Signal]:
        """Return the next state and the signal after ``facts``."""
        ...
