"""Set the batch size by a fixed schedule over steps, epochs or samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from typing import ClassVar

from workbench.decision import Decision, Keep, SetBatchSize
from workbench.errors import ConfigurationError
from workbench.policy import View

CLOCKS = ("step", "epoch", "sample")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Use the batch size of the last milestone passed (Smith et al. 2018 grow it this way).

    Args:
        at: Global batch size by milestone, such as ``{100: 128, 200: 256}``, or the same as text,
            ``"100:128;200:256"``. Before the first milestone nothing is asked for. A milestone at
            ``n`` holds from the first step boundary with ``n`` steps (epochs, samples) done.
        by: What milestones count: ``step``, ``epoch`` or ``sample``.

    Raises:
        ConfigurationError: A milestone is negative, a batch size below 1, or ``by`` unknown.

    Example:
        >>> policy = Schedule(at={100: 128, 200: 256})
        >>> policy.decide(View(step=150, epoch=0, samples=9600, workers=1,
        ...                    batch_size_global=64)).batch_size_global
        128
    """

    name: ClassVar[str] = "schedule"

    at: Mapping[int, int] | str
    by: str = "step"

    def __post_init__(self) -> None:
        if self.by not in CLOCKS:
            raise ConfigurationError(
                f"schedule: by is {self.by!r}; allowed: {', '.join(CLOCKS)}; use by=step"
            )
        milestones = _parsed(self.at)
        for milestone, batch_size in milestones.items():
            if milestone < 0 or batch_size < 1:
                raise ConfigurationError(
                    f"schedule: at has {milestone}: {batch_size}; allowed: a milestone from 0 on "
                    "and a batch size of 1 or more; use for example {100: 128}"
                )
        object.__setattr__(self, "at", milestones)

    def decide(self, view: View) -> Decision:
        """Return the scheduled batch size when it differs from the one in force."""
        done = {"step": view.step, "epoch": _epochs_done(view), "sample": view.samples}[self.by]
        milestones = _parsed(self.at)
        passed = [milestone for milestone in milestones if milestone <= done]
        if not passed:
            return Keep()
        wanted = milestones[max(passed)]
        if view.dataset_size:
            wanted = min(wanted, view.dataset_size)
        if wanted == view.batch_size_global:
            return Keep()
        return SetBatchSize(
            wanted, reason=f"schedule: {wanted} from {self.by} {max(passed)} on (now {done})"
        )


def _epochs_done(view: View) -> int:
    """Return the epochs done: at an epoch's last step, and when loops break out of epochs."""
    full = view.samples // view.dataset_size if view.dataset_size else 0
    return max(view.epoch, full)


def _whole(value: int | str) -> int:
    return int(value) if isinstance(value, str) else index(value)


def _parsed(at: Mapping[int, int] | str) -> dict[int, int]:
    try:
        if isinstance(at, str):
            pairs = [pair.split(":") for pair in at.replace(" ", ";").split(";") if pair]
            milestones = {int(milestone): int(batch_size) for milestone, batch_size in pairs}
        else:
            milestones = {_whole(milestone): _whole(size) for milestone, size in at.items()}
    except (AttributeError, TypeError, ValueError):
        milestones = {}
    if not milestones:
        raise ConfigurationError(
            f"schedule: at is {at!r}; allowed: milestones with batch sizes; "
            "use for example at={100: 128} or at='100:128;200:256'"
        )
    return milestones
