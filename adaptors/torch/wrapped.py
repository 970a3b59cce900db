"""Whether a model is sharded by FSDP, without loading FSDP to ask."""

from __future__ import annotations

import sys

import torch

_FSDP = ("FSDPModule", "FullyShardedDataParallel")


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether ``fully_shard`` or ``FullyShardedDataParallel`` was applied to a part of it.

    Who shards has loaded ``torch.distributed.fsdp``, which takes a second: nobody else waits for it.

    Example:
        >>> is_sharded(torch.nn.Linear(2, 1))
        False
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return False
    kinds = tuple(getattr(fsdp, name) for name in _FSDP)
    return any(isinstance(module, kinds) for module in model.modules())
