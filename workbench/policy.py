"""What a policy sees and what it is: a view of the job in, a decision out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from workbench.decision import Decision, Outcome
from workbench.signal import Signal, Signals, undetermined


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that a policy may know at a step boundary.

    Attributes:
        step: Optimizer steps taken.
        epoch: Epoch of the last step, from 0.
        samples: Samples shown over all ranks.
        workers: World size.
        batch_size_global: The global batch size in force.
        learning_rate_scale: Factor on the user's own schedule set by decisions (not by the rule).
        dataset_size: Samples in one epoch; 0 when unknown.
        signals: The signals after this step.
        last_outcome: What became of the last decision that was not ``Keep``; ``None`` before one.
        steps_since_change: Steps since a decision was last applied.

    Example:
        >>> view = View(step=3, epoch=0, samples=96, workers=1, batch_size_global=32)
        >>> view.signal("noise_scale").determined
        False
    """

    step: int
    epoch: int
    samples: int
    workers: int
    batch_size_global: int
    learning_rate_scale: float = 1.0
    dataset_size: int = 0
    signals: Signals = field(default_factory=Signals)
    last_outcome: Outcome | None = None
    steps_since_change: int = 0

    def signal(self, name: str) -> Signal:
        """Return the signal, undetermined when nothing computes it."""
        if name in self.signals:
            return self.signals[name]
        return undetermined(name, reason="no monitor computes it", step=self.step)


@runtime_checkable
class Policy(Protocol):
    """A rule without memory: the view in, a decision out; no I/O, no clock, no randomness."""

    def decide(self, view: View) -> Decision:
        """Return what to do at this step boundary."""
        ...


@runtime_checkable
class StatefulPolicy(Protocol):
    """A rule with memory: its state is a frozen dataclass that the engine keeps and saves."""

    def init(self) -> Any:
        """Return the state before the first step."""
        ...

    def decide(self, view: View, state: Any) -> tuple[Decision, Any]:
        """Return what to do and the next state."""
        ...


AnyPolicy = Policy | StatefulPolicy
LearningRateRule = Callable[[float], float]


def policy_name(policy: AnyPolicy) -> str:
    """Return the policy's ``name``, or its class name.

    Example:
        >>> class Mine:
        ...     def decide(self, view): ...
        >>> policy_name(Mine())
        'Mine'
    """
    return str(getattr(policy, "name", type(policy).__name__))
