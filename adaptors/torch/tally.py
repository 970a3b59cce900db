"""The few numbers of a step: packed on the device, added over workers, made into facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.cursor import StepPlan
from workbench.errors import ConfigurationError
from workbench.facts import GroupFacts, PhaseSeconds, RankFacts, StepFacts, Successive, TwoNorms

from .group import Group
from .stopwatch import PHASES
from .wanted import Wanted

_ALWAYS_SEATS = 9  # of the host, and the four of every gradient
_HOST = ("loss", "loss_weight", "seconds", "monitor", "stop")
_PER_RANK = ("busy", "data", "memory")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each number lies in a step's vector; a number from the device has a seat for "seen".

    Example:
        >>> layout(Wanted(norms=True), group_count=0, update_count=0, workers=2).length
        13
    """

    seats: Mapping[str, slice]
    seen: Mapping[str, int]
    length: int


def layout(wanted: Wanted, *, group_count: int, update_count: int, workers: int) -> Layout:
    """Return the layout for what is wanted."""
    device: dict[str, int] = {}
    if wanted.gradients:
        device |= {"small": 1, "big": 1, "doubt": 1, "beside": 1}
    if wanted.inner_products:
        device["dot_variance"] = 1
    if wanted.preconditioned:
        device |= {"small_preconditioned": 1, "big_preconditioned": 1}
    if wanted.covered:
        device |= {"covered_small": 1, "covered_big": 1}
    if wanted.successive:
        device["successive"] = 3
    if group_count:
        device |= {"small_groups": group_count, "big_groups": group_count}
    if update_count:
        device |= {"weights": update_count, "updates": update_count}
    host = dict.fromkeys(_HOST, 1)
    if wanted.phases:
        host |= dict.fromkeys(PHASES, 1)
    if wanted.ranks:
        host |= dict.fromkeys(_PER_RANK, workers)
    seats: dict[str, slice] = {}
    at = 0
    for name, count in (*host.items(), *device.items()):
        seats[name] = slice(at, at + count)
        at += count
    seen = {name: at + place for place, name in enumerate(device)}
    return Layout(seats, seen, at + len(seen))


_OWN = frozenset({"small", "small_preconditioned", "small_groups", "covered_small", "dot_variance"})
"""Numbers to which each worker adds its own; the others are the same on every worker."""


class Tally:
    """Packs a step's numbers into one vector, to be added over the workers, and reads it.

    Args:
        device: Where gradients live, and so the vector.
        group: The workers.
        wanted: What is measured.
        groups: Names of the groups whose gradients are measured.
        updates: Names of the groups whose update is measured.

    Attributes:
        doubts: What steps that check their way of measuring say of it (``doubt``, ``beside``), by
            the number of the step; whoever reacts to the step takes them out. Steps may be read
            long before, to be saved.
    """

    def __init__(
        self,
        device: torch.device,
        group: Group,
        *,
        wanted: Wanted,
        groups: Sequence[str] = (),
        updates: Sequence[str] = (),
    ) -> None:
        self._device, self._group, self._wanted = device, group, wanted
        self._groups, self._updates = tuple(groups), tuple(updates)
        self._layout = layout(
            wanted,
            group_count=len(self._groups),
            update_count=len(self._updates),
            workers=group.workers,
        )
        self._weight = 1.0
        self._loss: torch.Tensor | None = None
        self._loss_weight = 0.0
        self._batch_before = 0
        self.doubts: dict[int, dict[str, float]] = {}

    @property
    def length(self) -> int:
        """Numbers in a step's vector."""
        return self._layout.length

    def expect(self, weight: float) -> None:
        """Hear the weight of the micro-batch that comes next."""
        self._weight = weight

    def observe(self, loss: torch.Tensor) -> None:
        """Take the mean loss of the current micro-batch."""
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise ConfigurationError(
                f"loss is {shape}; allowed: a tensor with one number, the mean over the batch; "
                "call job.observe(loss=loss)"
            )
        if self._weight > 0.0:
            weighted = loss.detach().reshape(()).double() * self._weight
            self._loss = weighted if self._loss is None else self._loss + weighted
            self._loss_weight += self._weight

    def forget(self) -> None:
        """Drop the losses of a step that the loop broke off."""
        self._loss, self._loss_weight = None, 0.0

    def pack(
        self,
        numbers: Mapping[str, torch.Tensor],
        *,
        seconds: float,
        stop: bool,
        phases: Mapping[str, float],
        memory: float = 0.0,
    ) -> torch.Tensor:
        """Return this worker's vector of the step; its sum over workers holds the facts.

        Args:
            numbers: From the device, by name.
            seconds: Of the step, on this worker.
            stop: Whether this worker was asked to end.
            phases: Seconds of each phase, and of ``monitor``.
            memory: Bytes held, if ranks are wanted.
        """
        share = 1.0 / self._group.workers
        row = [0.0] * self._layout.length
        seats = self._layout.seats
        row[seats["seconds"].start], row[seats["stop"].start] = seconds * share, float(stop)
        row[seats["loss_weight"].start] = self._loss_weight
        row[seats["monitor"].start] = phases["monitor"] * share
        for name in PHASES if self._wanted.phases else ():
            row[seats[name].start] = phases[name] * share
        if self._wanted.ranks:
            busy = max(seconds - phases["communication"], 0.0)
            for name, value in zip(_PER_RANK, (busy, phases["data"], memory), strict=True):
                row[seats[name].start + self._group.rank] = value
        for name in self._there(numbers):
            row[self._layout.seen[name]] = share
        vector = torch.tensor(row, dtype=torch.float64)
        if self._device.type != "cpu":
            vector = vector.to(self._device, non_blocking=True)
        for name in self._there(numbers):
            vector[seats[name]] = numbers[name] * (1.0 if name in _OWN else share)
        if self._loss is not None:
            vector[seats["loss"]] = self._loss
        self._loss, self._loss_weight = None, 0.0
        return vector

    def read(self, known: Mapping[str, Any], values: Sequence[float]) -> tuple[StepFacts, bool]:
        """Return the facts of a step and whether any worker wants to stop; in order of steps.

        Args:
            known: The fields of the facts that the host knows.
            values: The step's vector, summed over the workers.
        """
        numbers = _Values(self._layout, values)
        weight = numbers.one("loss_weight")
        count, batch = known["small_batches"], known["batch_size_global"]
        small, big = numbers.maybe("small"), numbers.maybe("big")
        fields = dict(known)
        fields["seconds"], fields["monitor_seconds"] = (
            numbers.one("seconds"),
            numbers.one("monitor"),
        )
        fields["grad_sqnorm_small"], fields["grad_sqnorm_big"] = small, big
        if small is None:
            fields["small_batches"], fields["origin"] = 0, "none"
        if weight > 0.0:
            fields["loss"] = numbers.one("loss") / weight
        for name in ("doubt", "beside") if self._wanted.gradients else ():
            doubt = numbers.maybe(name)
            if doubt is not None:
                self.doubts.setdefault(known["step"], {})[name] = doubt
        if len(self._layout.seats) > _ALWAYS_SEATS:
            fields.update(self._further(numbers, count, batch))
        self._batch_before = batch
        return StepFacts(**fields), numbers.one("stop") > 0.0

    def _further(self, numbers: _Values, count: int, batch: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        variance = numbers.maybe("dot_variance")
        if variance is not None and count > 1:
            found["grad_dot_variance"] = variance / (count - 1)
        found["preconditioned"] = _two(numbers, "small_preconditioned", "big_preconditioned", count)
        found["covered"] = _two(numbers, "covered_small", "covered_big", batch)
        there = numbers.vector("successive")
        if there is not None:
            found["successive"] = Successive(
                dot=there[0],
                sqnorm=there[1],
                sqnorm_before=there[2],
                batch_size_before=self._batch_before or batch,
            )
        if self._wanted.phases:
            found["phases"] = PhaseSeconds(**{name: numbers.one(name) for name in PHASES})
        if self._wanted.ranks:
            found["ranks"] = tuple(
                RankFacts(busy_seconds=busy, data_seconds=data, memory_bytes=memory)
                for busy, data, memory in zip(*map(numbers.all, _PER_RANK), strict=True)
            )
        found["groups"] = tuple(self._group_facts(numbers, count))
        return found

    def _group_facts(self, numbers: _Values, count: int) -> Iterator[GroupFacts]:
        small, big = numbers.vector("small_groups"), numbers.vector("big_groups")
        weights, updates = numbers.vector("weights"), numbers.vector("updates")
        for name in dict.fromkeys((*self._groups, *self._updates)):
            grad = sqnorm = weight = update = None
            if big is not None and name in self._groups:
                at = self._groups.index(name)
                sqnorm = big[at]
                if small is not None and count > 1:
                    grad = TwoNorms(small=small[at], big=big[at], small_batches=count)
            if weights is not None and updates is not None and name in self._updates:
                at = self._updates.index(name)
                weight, update = weights[at], updates[at]
            if sqnorm is not None or weight is not None:
                yield GroupFacts(
                    name=name,
                    grad=grad,
                    grad_sqnorm=sqnorm,
                    weight_sqnorm=weight,
                    update_sqnorm=update,
                )

    def _there(self, numbers: Iterable[str]) -> list[str]:
        return [name for name in numbers if name in self._layout.seen]


class _Values:
    """A step's summed vector, by name."""

    def __init__(self, layout: Layout, values: Sequence[float]) -> None:
        self._layout, self._values = layout, values

    def one(self, name: str) -> float:
        value: float = self._values[self._layout.seats[name].start]
        return value

    def all(self, name: str) -> Sequence[float]:
        return self._values[self._layout.seats[name]]

    def vector(self, name: str) -> Sequence[float] | None:
        """Return a number's values if any worker saw it."""
        seat = self._layout.seen.get(name)
        if seat is None or not self._values[seat] > 0.0:
            return None
        return self._values[self._layout.seats[name]]

    def maybe(self, name: str) -> float | None:
        found = self.vector(name)
        return None if found is None else found[0]


def _two(numbers: _Values, small: str, big: str, count: int) -> TwoNorms | None:
    low, high = numbers.maybe(small), numbers.maybe(big)
    if low is None or high is None or count < 2:
        return None
    return TwoNorms(small=low, big=high, small_batches=count)


def origin_of(plan: StepPlan, workers: int, *, apart: str = "") -> str:
    """Return where the small batches of a step came from, as ``StepFacts.origin`` names it.

    Args:
        plan: The step's.
        workers: World size.
        apart: How one worker's only micro-batch was taken apart, or empty.

    Example:
        >>> origin_of(StepPlan(size=4, parts=((0, 2), (2, 4)), idle=False, small_batches=2), 1)
        'micro-batches'
    """
    if apart:
        return apart
    if plan.small_batches < 2:
        return "none"
    if workers == 1:
        return "micro-batches"
    return "ranks" if plan.small_batches <= workers else "ranks+micro-batches"
