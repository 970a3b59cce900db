"""Add gradients over all workers in buckets, while the backward pass still runs.

A few numbers ride along behind the last bucket: an exchange of their own at each step costs a fifth
of a step of 10 ms (two gloo workers), as riders they cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.errors import ConfigurationError

from .group import Group
from .norms import sqnorm

BUCKET_BYTES = 25 * 2**20


@dataclass(slots=True)
class _Bucket:
    """Parameters that travel together: a flat buffer, one flag each (1: had a gradient), riders."""

    places: list[int]
    flat: torch.Tensor
    flags: torch.Tensor
    riders: torch.Tensor
    views: list[torch.Tensor]
    body: torch.Tensor
    left: int = 0
    work: Any = None
    missing: list[int] = field(default_factory=list)


class Reducer:
    """Replaces each ``.grad`` by the weighted sum over all workers.

    Buckets are sent in one fixed order, each as soon as its parameters have their gradients. A
    parameter that has a gradient on no worker gets ``None``; one that has it on some gets the sum
    everywhere. A stand-in's gradient (weight 0) does not count as one.

    Args:
        parameters: Trainable parameters, the same on every worker.
        group: The workers, two or more.
        seats: How many numbers may ride along; they travel as float32 or better.

    Attributes:
        dot: After :meth:`finish`, the inner product of this worker's gradient with the mean, if it
            was asked for and could be taken.
        own: After :meth:`finish`, the squared norm of this worker's gradient, if it was asked for
            and the buckets hold it precisely enough.
    """

    def __init__(
        self, parameters: Sequence[torch.nn.Parameter], group: Group, *, seats: int = 0
    ) -> None:
        self._parameters = parameters
        self._group = group
        cut = _cut(parameters)
        self._buckets = [self._bucket(places) for places in cut[:-1]]
        self._buckets += self._last_buckets(cut[-1], seats)
        self.dot: torch.Tensor | None = None
        self._dot_wanted = False
        self.own: torch.Tensor | None = None
        self._own_parts: list[torch.Tensor] | None = None
        self._precise = all(p.dtype in (torch.float32, torch.float64) for p in parameters)
        self._home = {place: at for at, b in enumerate(self._buckets) for place in b.places}
        self._weight = 1.0
        self._stash: dict[int, torch.Tensor] = {}
        self._next = 0

    def begin(
        self,
        weight: float,
        stash: dict[int, torch.Tensor],
        *,
        riders: torch.Tensor | None = None,
        dot: bool = False,
        own: bool = False,
    ) -> None:
        """Expect the last micro-batch of a step.

        Args:
            weight: What this micro-batch's gradient counts, 0 to 1.
            stash: Weighted sums of the earlier micro-batches, by place.
            riders: Numbers to be added over all workers on the way, as many as there are seats.
            dot: Whether to take the inner product with the mean (without a stash only).
            own: Whether to take the squared norm of what is sent, while it is in the cache (without
                a stash only).
        """
        self._weight, self._stash, self._next = weight, stash, 0
        self.dot, self._dot_wanted = None, dot and not stash and weight > 0.0
        taken = own and not stash and weight > 0.0 and self._precise
        self.own, self._own_parts = None, [] if taken else None
        for bucket in self._buckets:
            bucket.left, bucket.work = len(bucket.places), None
        seats = self._buckets[-1].riders
        if riders is None:
            seats.zero_()
        else:
            seats.copy_(riders)

    def arrived(self, place: int) -> None:
        """Hear that a parameter's gradient is there; send what is ready."""
        self._buckets[self._home[place]].left -= 1
        while self._next < len(self._buckets) and self._buckets[self._next].left == 0:
            self._send(self._buckets[self._next])
            self._next += 1

    def finish(self, *, measure: bool) -> torch.Tensor | None:
        """Send the rest, wait for all, write the sums to ``.grad``.

        Returns:
            Their squared norm with ``measure``, else ``None``.
        """
        while self._next < len(self._buckets):
            self._send(self._buckets[self._next])
            self._next += 1
        for bucket in self._buckets:
            bucket.work.wait()
        if self._own_parts:
            self.own = torch.stack(self._own_parts).sum() / self._weight**2
        bodies = [bucket.body for bucket in self._buckets if bucket.places]
        total = sqnorm(bodies) if measure else None
        if self._dot_wanted:
            self.dot = self._inner_product()
        for bucket in self._buckets:
            self._unpack(bucket)
        return total

    @property
    def takes_own(self) -> bool:
        """Whether the norm of this worker's gradient is taken on the way."""
        return self._own_parts is not None

    @property
    def riders(self) -> torch.Tensor:
        """The riders' sums over all workers, after :meth:`finish`; double precision, a copy."""
        return self._buckets[-1].riders.double()

    def _inner_product(self) -> torch.Tensor | None:
        """``g_i . g``: the local gradient is still in ``.grad``, the mean in the buckets."""
        dots = []
        for bucket in self._buckets:
            for place, view in zip(bucket.places, bucket.views, strict=True):
                grad = self._parameters[place].grad
                if grad is not None:
                    dots.append(torch.dot(grad.reshape(-1), view.reshape(-1)).double())
        return torch.stack(dots).sum() if dots else None

    def _send(self, bucket: _Bucket) -> None:
        grads, views = [], []
        bucket.missing = []
        for place, view in zip(bucket.places, bucket.views, strict=True):
            grad = self._parameters[place].grad
            if grad is None or self._weight == 0.0:
                view.zero_()
                if place not in self._stash:
                    bucket.missing.append(place)
            else:
                _check_dense(grad)
                grads.append(grad)
                views.append(view)
        if grads:
            torch._foreach_copy_(views, grads)
            torch._foreach_mul_(views, self._weight)
        for place, view in zip(bucket.places, bucket.views, strict=True):
            if place in self._stash:
                view.add_(self._stash[place])
        if self._own_parts is not None and bucket.places:
            self._own_parts.append(sqnorm([bucket.body]))
        bucket.flags.fill_(1.0)
        for place in bucket.missing:
            bucket.flags[bucket.places.index(place)] = 0.0
        bucket.work = self._group.sum(bucket.flat)

    def _unpack(self, bucket: _Bucket) -> None:
        targets, views = [], []
        for at, (place, view) in enumerate(zip(bucket.places, bucket.views, strict=True)):
            parameter = self._parameters[place]
            if place in bucket.missing and not bucket.flags[at] > 0:
                parameter.grad = None
            elif parameter.grad is None:
                parameter.grad = view.clone()
            else:
                targets.append(parameter.grad)
                views.append(view)
        if targets:
            torch._foreach_copy_(targets, views)

    def _bucket(self, places: list[int], *, seats: int = 0) -> _Bucket:
        members = [self._parameters[place] for place in places]
        size = sum(member.numel() for member in members)
        flat = members[0].new_zeros(size + len(places) + seats)
        views, start = [], 0
        for member in members:
            views.append(flat[start : start + member.numel()].view_as(member))
            start += member.numel()
        return _Bucket(
            places=places,
            flat=flat,
            flags=flat[size : size + len(places)],
            riders=flat[size + len(places) :],
            views=views,
            body=flat[:size],
        )

    def _last_buckets(self, places: list[int], seats: int) -> list[_Bucket]:
        """Return the last bucket, the riders in it if its numbers are precise enough."""
        first = self._parameters[places[0]]
        if first.dtype in (torch.float32, torch.float64):
            return [self._bucket(places, seats=seats)]
        flat = first.new_zeros(seats, dtype=torch.float64)
        alone = _Bucket(places=[], flat=flat, flags=flat[:0], riders=flat, views=[], body=flat[:0])
        return [self._bucket(places), alone]


def _cut(parameters: Sequence[torch.nn.Parameter]) -> list[list[int]]:
    """Return places in buckets of one type and device, last parameters (first gradients) first."""
    buckets: list[list[int]] = []
    filled: dict[tuple[torch.dtype, torch.device], tuple[list[int], int]] = {}
    for place in reversed(range(len(parameters))):
        parameter = parameters[place]
        kind = (parameter.dtype, parameter.device)
        size = parameter.numel() * parameter.element_size()
        places, held = filled.get(kind, ([], 0))
        if not places or held + size > BUCKET_BYTES:
            places, held = [], 0
            buckets.append(places)
        places.append(place)
        filled[kind] = (places, held + size)
    return buckets


def _check_dense(grad: torch.Tensor) -> None:
    if grad.is_sparse:
        raise ConfigurationError(
            "a parameter has a sparse gradient; allowed with several workers: dense ones; "
            "build the embedding with sparse=False"
        )
