"""What a source has seen of one step on one rank, and the two norms of the step from all ranks.

The wrappers average with ``1 / n`` whatever the sizes of the ``n`` small batches: ``g`` is the plain
mean of the ``g_i``. With ``H = n / sum(1 / b_i)``, the harmonic mean of the sizes:

``E[sum(|g_i|^2) / n] = |G|^2 + S / H`` and ``E[|g|^2] = |G|^2 + S / (n H)``,

as if there were ``n`` even batches of ``H`` samples (McCandlish et al. 2018, appendix A.1, with
weights ``1 / n``). Hence ``S_hat = n H (small - big) / (n - 1)`` and ``|G|^2_hat = big - S_hat / (n H)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from workbench.errors import ConfigurationError
from workbench.facts import TwoNorms

OWN, SHARE, COUNT, ROWS, INVERSE_ROWS, RANKS, RANKS_OWN, RANKS_SHARE = range(8)

UNEVEN = 0.05
"""How much smaller ``n H`` may be than the number of samples. The rule looks at sizes only, never at
the gradient: leaving out steps by what was measured would bias the estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one rank has seen of one step; tensors stay on their device.

    Attributes:
        own: ``|g_i|^2`` of each small batch of this rank, 1-d, double, in the units of the averaged
            gradient; ``None`` when not measured.
        share: This rank's part of ``|g|^2``, 0-d, double: the sum over ranks is ``|g|^2`` before
            clipping; ``None`` when not measured.
        reason: Why ``own`` is not there, or empty.
    """

    own: torch.Tensor | None = None
    share: torch.Tensor | None = None
    reason: str = ""


def totals(seen: Seen, rows: int | Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the eight numbers of this rank; their sum over ranks goes to :func:`two_norms`.

    Nothing waits for the device.

    Args:
        seen: Of this rank.
        rows: Samples of this rank in the step; or of each small batch, when there are several.
        device: Where the numbers are needed.

    Raises:
        ConfigurationError: ``rows`` has another length than there are small batches.

    Example:
        >>> seen = Seen(own=torch.tensor([3.0], dtype=torch.float64),
        ...                   share=torch.tensor(1.0, dtype=torch.float64))
        >>> totals(seen, 32, torch.device("cpu")).tolist()
        [3.0, 1.0, 1.0, 32.0, 0.03125, 1.0, 1.0, 1.0]
    """
    vector = torch.tensor(host_totals(seen, rows), dtype=torch.float64)
    vector = vector.to(device, non_blocking=True)
    fill(vector, seen)
    return vector


def host_totals(seen: Seen, rows: int | Sequence[int]) -> list[float]:
    """Return the numbers of :func:`totals` with 0 where a tensor belongs.

    Example:
        >>> host_totals(Seen(), 32)
        [0.0, 0.0, 1.0, 32.0, 0.03125, 1.0, 0.0, 0.0]
    """
    sizes = _sizes(seen, rows)
    inverse = sum(1.0 / size if size > 0 else float("inf") for size in sizes)
    own, share = float(seen.own is not None), float(seen.share is not None)
    return [0.0, 0.0, float(len(sizes)), float(sum(sizes)), inverse, 1.0, own, share]


def fill(numbers: torch.Tensor, seen: Seen) -> None:
    """Write what was measured into the eight numbers of :func:`host_totals`.

    Example:
        >>> numbers = torch.zeros(8, dtype=torch.float64)
        >>> fill(numbers, Seen(share=torch.tensor(2.0)))
        >>> numbers[:2].tolist()
        [0.0, 2.0]
    """
    if seen.own is not None:
        numbers[OWN] = seen.own.sum()
    if seen.share is not None:
        numbers[SHARE] = seen.share


def added(numbers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of 0-d doubles on one device.

    Example:
        >>> added([torch.tensor(1.0), torch.tensor(2.0)])
        tensor(3.)
    """
    for number in numbers:
        if number.is_cuda:  # made on a stream of the communication, freed after use on this one
            number.record_stream(torch.cuda.current_stream(number.device))
    return torch.stack(list(numbers)).sum()


def _sizes(seen: Seen, rows: int | Sequence[int]) -> list[float]:
    count = 1 if seen.own is None else seen.own.numel()
    if isinstance(rows, int):
        return [rows / count] * count
    if seen.own is not None and len(rows) != count:
        raise ConfigurationError(
            f"rows has {len(rows)} numbers; allowed: one, or {count}, as many as backward passes; "
            "tell the samples of each micro-batch"
        )
    return [float(size) for size in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNorms:
    """The norms of one step over all ranks, as ``StepFacts`` takes them.

    Attributes:
        batch: Samples over all ranks.
        big: ``|g|^2`` of the averaged gradient; ``None`` when a rank did not measure it.
        norms: The two norms *as if the mean had been weighted by samples*: for even batches they are
            what was measured; for uneven ones they have the same ``S_hat`` and ``|G|^2_hat``, so that
            :func:`workbench.monitors.parts.parts_of` is unbiased. ``None`` when there are not two.
    """

    batch: int
    big: float | None
    norms: TwoNorms | None


def two_norms(sums: Sequence[float]) -> StepNorms:
    """Return the norms of a step from the sum of :func:`totals` over ranks.

    Example:
        >>> two_norms([6.0, 2.0, 2.0, 64.0, 0.0625, 2.0, 2.0, 2.0])
        StepNorms(batch=64, big=2.0, norms=TwoNorms(small=3.0, big=2.0, small_batches=2))
    """
    ranks, count, batch = sums[RANKS], round(sums[COUNT]), round(sums[ROWS])
    if sums[RANKS_SHARE] < ranks:
        return StepNorms(batch=batch, big=None, norms=None)
    big = sums[SHARE]
    if sums[RANKS_OWN] < ranks or count < 2:
        return StepNorms(batch=batch, big=big, norms=None)
    even = count * count / sums[INVERSE_ROWS]  # n H
    if even < (1.0 - UNEVEN) * batch:
        return StepNorms(batch=batch, big=big, norms=None)
    small = sums[OWN] / count
    return StepNorms(batch=batch, big=big, norms=_weighted(small, big, count, even, batch))


def _weighted(small: float, big: float, count: int, even: float, batch: int) -> TwoNorms:
    if abs(even - batch) < 1e-9 * batch:
        return TwoNorms(small=small, big=big, small_batches=count)
    noise = even * (small - big) / (count - 1)
    signal = big - noise / even
    return TwoNorms(
        small=signal + noise * count / batch, big=signal + noise / batch, small_batches=count
    )
