"""The processes of a job as one group: join it, share a start, add numbers over it, leave it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from workbench.errors import InfrastructureError

from .contract import Contract

COLLECTIVE_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Who takes part: rank and world size; with one worker nothing is ever exchanged.

    Example:
        >>> Group().workers
        1
    """

    rank: int = 0
    workers: int = 1

    def sum(self, values: torch.Tensor) -> Any:
        """Add ``values`` over all workers, in place; return the work to wait for, or ``None``."""
        if self.workers == 1:
            return None
        return dist.all_reduce(values, op=dist.ReduceOp.SUM, async_op=True)

    def share_start(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every worker rank 0's values."""
        if self.workers > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather(self, value: Any) -> list[Any]:
        """Return every worker's ``value`` in order of rank, on every worker."""
        if self.workers == 1:
            return [value]
        values: list[Any] = [None] * self.workers
        dist.all_gather_object(values, value)
        return values


def join(contract: Contract, device: torch.device) -> Group:
    """Join the group the contract names, or the one that exists already.

    NCCL carries models on GPUs, gloo all others.

    Raises:
        InfrastructureError: The other processes could not be met.
    """
    if dist.is_available() and dist.is_initialized():
        return Group(rank=dist.get_rank(), workers=dist.get_world_size())
    if contract.workers == 1:
        return Group()
    where = f"file://{contract.rendezvous}" if contract.rendezvous else "env://"
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=where,
            rank=contract.rank,
            world_size=contract.workers,
            timeout=COLLECTIVE_TIMEOUT,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise InfrastructureError(
            f"rank {contract.rank} of {contract.workers} could not meet the others: {error}; "
            "start all of them with `wb run train.py --workers N` or torchrun"
        ) from error
    return Group(rank=contract.rank, workers=contract.workers)


def leave() -> None:
    """Leave the group if this process is in one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
