"""Where the two norms of a step come from when the model is wrapped: one source per wrapper.

A source sits where the wrapper lets one look, through its public interface, and measures on the
steps that it is asked to. What it has seen it hands over as a :class:`.seen.Seen`: tensors on
their device, read by nobody yet.

========================  ==================================================================
:mod:`.ddp`               ``DistributedDataParallel``: its communication hook
:mod:`.fsdp`              FSDP2, ``fully_shard``: its custom reduce-scatter
========================  ==================================================================
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist

from .seen import Seen


class Source(Protocol):
    """Measures the two norms of one optimizer step, on this rank."""

    @property
    def group(self) -> dist.ProcessGroup:
        """The ranks that gradients are averaged over."""
        ...

    @property
    def workers(self) -> int:
        """How many they are."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the gradients live."""
        ...

    @property
    def seconds(self) -> float:
        """Host time that measuring has taken since :meth:`begin`."""
        ...

    def begin(self, *, measure: bool) -> None:
        """Get ready for the next step, ``measure`` being the same on every rank."""
        ...

    def collect(self) -> Seen:
        """Return what was seen of the step."""
        ...

    def close(self) -> None:
        """Measure nothing any more."""
        ...
