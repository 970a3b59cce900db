"""What a monitor is: state and facts in, state and one signal out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from workbench.facts import StepFacts
from workbench.signal import Signal

NORMS = "norms"
"""``grad_sqnorm_small`` and ``grad_sqnorm_big``: what every job measures."""

INNER_PRODUCTS = "inner_products"
"""``grad_dot_variance``."""

PRECONDITIONED = "preconditioned"
"""``preconditioned`` and ``preconditioner``."""

COVERED = "covered"
"""``covered``, and exact splits now and then to calibrate it."""

SUCCESSIVE = "successive"
"""``successive``."""

PHASES = "phases"
"""``phases``."""

RANKS = "ranks"
"""``ranks``."""

GROUP = "group:"
"""Followed by a name: ``grad`` and ``grad_sqnorm`` of that group."""

UPDATE = "update:"
"""Followed by a name, or nothing for the whole model: its ``weight_sqnorm`` and ``update_sqnorm``."""


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


def needs_of(monitors: Iterable[Monitor]) -> frozenset[str]:
    """Return which facts the monitors ask for, beyond step, samples, seconds and loss.

    A monitor says so by an attribute ``needs``, a set of the names above; one that has none is
    taken to need the norms. A job measures nothing that no monitor needs.

    Example:
        >>> from workbench.monitors import Loss, NoiseScale
        >>> needs_of([Loss(), NoiseScale()])
        frozenset({'norms'})
    """
    asked: set[str] = set()
    for monitor in monitors:
        asked.update(getattr(monitor, "needs", (NORMS,)))
    return frozenset(asked)
