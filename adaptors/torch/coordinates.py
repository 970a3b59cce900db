"""A fixed sample of a gradient's coordinates: two steps' gradients compared without a copy of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import gcd, prod, sqrt
from random import Random

import torch

FEWEST = 32
"""Coordinates that each parameter has in the sample at least, if it has so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """The coordinates of one parameter: every ``stride``-th of its elements in order.

    Attributes:
        elements: Of the parameter.
        stride: Distance between two coordinates, 1 for all.
        offset: The first one, below ``stride``.

    Example:
        >>> Stratum(elements=10, stride=4, offset=1).taken
        3
    """

    elements: int
    stride: int
    offset: int

    @property
    def taken(self) -> int:
        """How many coordinates there are."""
        return len(range(self.offset, self.elements, self.stride))

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the coordinates, without a copy where the tensor lies in order."""
        if tensor.is_contiguous():
            return tensor.view(-1)[self.offset :: self.stride]
        index = torch.arange(self.offset, self.elements, self.stride, device=tensor.device)
        return torch.take(tensor, index)


class CoordinateSample:
    r"""Estimates ``g . h``, ``|g|^2`` and ``|h|^2`` of two gradients from the same few coordinates.

    Each parameter ``p`` is a stratum, and every ``k_p``-th of its elements is taken, from an offset
    that is drawn once, uniformly from ``0 .. k_p - 1``. So each element is in the sample with
    probability ``1 / k_p`` exactly, and ``sum_p k_p sum_(j in p, taken) g_j h_j`` is unbiased over
    the offsets for ``g . h`` (Horvitz and Thompson 1952, section 3); likewise the squares. A
    parameter that is taken whole, ``k_p = 1``, adds no error. The offsets stay: what is estimated
    from two steps of one run shares its error. ``k_p`` has no divisor in common with the parameter's
    dimensions, so that a sample does not keep to a few columns of a matrix.

    Up to ``largest`` elements in all: everything is taken. Beyond: about ``largest`` in proportion to
    the sizes, but 32 or more of each parameter (as far as it has them).

    Args:
        parameters: Whose gradients they are; shapes must stay.
        largest: About how many coordinates, 1 or more.
        seed: Of the offsets; the same on every worker. torch's random numbers are left alone.

    Example:
        >>> sample = CoordinateSample([torch.zeros(3)])
        >>> now = sample.take([torch.tensor([1.0, 2.0, 2.0])])
        >>> before = sample.take([torch.tensor([0.0, 1.0, 0.0])])
        >>> sample.compare(now, before)
        tensor([2., 9., 1.], dtype=torch.float64)
    """

    def __init__(
        self, parameters: Sequence[torch.Tensor], *, largest: int = 65536, seed: int = 0
    ) -> None:
        self._parameters = list(parameters)
        random = Random(seed)
        total = sum(parameter.numel() for parameter in parameters)
        self.strata = tuple(
            _stratum(tuple(parameter.shape), total, largest, random) for parameter in parameters
        )
        self._devices = list(dict.fromkeys(parameter.device for parameter in parameters))
        self._scales: dict[torch.device, torch.Tensor] = {}

    def take(self, grads: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
        """Return copies of the coordinates of one gradient, for ``compare``.

        Args:
            grads: One for each parameter; ``None`` counts as zero.

        Returns:
            One vector for each device, each coordinate times ``sqrt(k_p)``.
        """
        return [self._taken(device, grads) for device in self._devices]

    def compare(self, now: Sequence[torch.Tensor], before: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return ``(g . h, |g|^2, |h|^2)`` for ``g`` now and ``h`` before, three doubles."""
        found = [
            torch.stack((torch.dot(g, h), torch.dot(g, g), torch.dot(h, h))).double()
            for g, h in zip(now, before, strict=True)
        ]
        total = found[0]
        for more in found[1:]:
            total = total + more.to(total.device)
        return total

    def _taken(self, device: torch.device, grads: Sequence[torch.Tensor | None]) -> torch.Tensor:
        pieces = []
        for parameter, stratum, grad in zip(self._parameters, self.strata, grads, strict=True):
            if parameter.device != device:
                continue
            if grad is None:
                pieces.append(torch.zeros(stratum.taken, dtype=parameter.dtype, device=device))
            else:
                pieces.append(stratum.of(grad.detach()))
        taken = torch.cat(pieces)
        if taken.dtype != torch.float64:
            taken = taken.float()
        scales = self._scales_on(device)
        return taken if scales is None else taken.mul_(scales)

    def _scales_on(self, device: torch.device) -> torch.Tensor | None:
        """Return ``sqrt(k_p)`` of each coordinate, or ``None`` when all are taken."""
        if all(stratum.stride == 1 for stratum in self.strata):
            return None
        if device not in self._scales:
            self._scales[device] = torch.cat(
                [
                    torch.full((stratum.taken,), sqrt(stratum.stride), device=device)
                    for parameter, stratum in zip(self._parameters, self.strata, strict=True)
                    if parameter.device == device
                ]
            )
        return self._scales[device]


def _stratum(shape: tuple[int, ...], total: int, largest: int, random: Random) -> Stratum:
    elements = prod(shape)
    if total <= largest:
        return Stratum(elements=elements, stride=1, offset=0)
    wanted = max(elements * largest // total, min(elements, FEWEST), 1)
    stride = _stride(max(1, elements // wanted), shape[1:], most=max(1, elements // FEWEST))
    return Stratum(elements=elements, stride=stride, offset=random.randrange(stride))


def _stride(wished: int, sizes: tuple[int, ...], *, most: int) -> int:
    """Return the next stride from ``wished`` on without a common divisor with any of ``sizes``.

    Beyond ``most`` it turns around: 1 always fits.
    """
    for stride in chain(range(wished, most + 1), range(wished, 0, -1)):
        if all(gcd(stride, size) == 1 for size in sizes):
            return stride
    return 1
