"""What a policy may ask for, and what the job answered: a decision and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import index
from typing import TYPE_CHECKING

from workbench.signal import Signal

Because = tuple[Signal, ...]


def _causes(because: Signal | Because) -> Because:
    causes = (because,) if isinstance(because, Signal) else tuple(because)
    for cause in causes:
        if not isinstance(cause, Signal):
            raise TypeError(
                f"because holds {cause!r}; allowed: signals, as view.signal() gives them"
            )
    return causes


def _whole(name: str, value: int) -> int:
    """Return ``value`` as an int (NumPy's and torch's integers too), never a rounded float."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; allowed: a whole number; use int(...)") from None


@dataclass(frozen=True, slots=True)
class Keep:
    """Change nothing.

    Example:
        >>> Keep().kind
        'keep'
    """

    because: Because = ()
    reason: str = ""
    kind: str = field(default="keep", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "because", _causes(self.because))


@dataclass(frozen=True, slots=True)
class SetBatchSize:
    """Draw ``batch_size_global`` samples a step, over all workers, from the next step on.

    Example:
        >>> SetBatchSize(512, reason="schedule: step 100").batch_size_global
        512
    """

    batch_size_global: int
    because: Because = ()
    reason: str = ""
    kind: str = field(default="set_batch_size", init=False)

    if TYPE_CHECKING:  # one signal may stand for a tuple of one

        def __init__(
            self, batch_size_global: int, because: Signal | Because = (), reason: str = ""
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "because", _causes(self.because))
        whole = _whole("batch_size_global", self.batch_size_global)
        object.__setattr__(self, "batch_size_global", whole)


@dataclass(frozen=True, slots=True)
class SetLearningRate:
    """Multiply the user's own learning-rate schedule by ``scale`` (not by the previous scale).

    Example:
        >>> SetLearningRate(0.5).scale
        0.5
    """

    scale: float
    because: Because = ()
    reason: str = ""
    kind: str = field(default="set_learning_rate", init=False)

    if TYPE_CHECKING:  # one signal may stand for a tuple of one

        def __init__(
            self, scale: float, because: Signal | Because = (), reason: str = ""
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "because", _causes(self.because))
        object.__setattr__(self, "scale", float(self.scale))


@dataclass(frozen=True, slots=True)
class Resize:
    """Train with ``workers`` processes.

    Example:
        >>> Resize(4).workers
        4
    """

    workers: int
    because: Because = ()
    reason: str = ""
    kind: str = field(default="resize", init=False)

    if TYPE_CHECKING:  # one signal may stand for a tuple of one

        def __init__(
            self, workers: int, because: Signal | Because = (), reason: str = ""
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "because", _causes(self.because))
        object.__setattr__(self, "workers", _whole("workers", self.workers))


@dataclass(frozen=True, slots=True)
class SetSync:
    """Exchange updates by the named strategy (``every_step`` is synchronous SGD).

    Example:
        >>> SetSync("every_step").strategy
        'every_step'
    """

    strategy: str
    because: Because = ()
    reason: str = ""
    kind: str = field(default="set_sync", init=False)

    if TYPE_CHECKING:  # one signal may stand for a tuple of one

        def __init__(
            self, strategy: str, because: Signal | Because = (), reason: str = ""
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "because", _causes(self.because))


@dataclass(frozen=True, slots=True)
class Stop:
    """End training after this step, in good order.

    Example:
        >>> Stop(reason="loss reached 0.1").kind
        'stop'
    """

    because: Because = ()
    reason: str = ""
    kind: str = field(default="stop", init=False)

    if TYPE_CHECKING:  # one signal may stand for a tuple of one

        def __init__(self, because: Signal | Because = (), reason: str = "") -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "because", _causes(self.because))


Decision = Keep | SetBatchSize | SetLearningRate | Resize | SetSync | Stop


def wish(decision: Decision) -> str:
    """Return what is asked for, without its causes: the same text for the same wish.

    Example:
        >>> wish(Resize(4, reason="one")) == wish(Resize(4, reason="another"))
        True
    """
    values = [
        f"{item.name}={getattr(decision, item.name)!r}"
        for item in fields(decision)
        if item.name not in ("because", "reason", "kind")
    ]
    return " ".join([decision.kind, *values])


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The decision is in force from the step after ``step``; ``detail`` says what was changed.

    Example:
        >>> Applied(step=12, detail="batch size 64 -> 128, learning rate x1.41").kind
        'applied'
    """

    step: int
    detail: str = ""
    kind: str = field(default="applied", init=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The decision will not be carried out, and why.

    Example:
        >>> Refused("fixed number of workers").reason
        'fixed number of workers'
    """

    reason: str
    kind: str = field(default="refused", init=False)


@dataclass(frozen=True, slots=True)
class Deferred:
    """The decision waits for a safe boundary.

    Example:
        >>> Deferred("newcomers are starting").kind
        'deferred'
    """

    reason: str
    kind: str = field(default="deferred", init=False)


Outcome = Applied | Refused | Deferred
