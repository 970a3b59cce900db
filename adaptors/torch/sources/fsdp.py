"""The two norms of a step of FSDP2, from its public custom reduce-scatter."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from workbench.adaptors.torch.norms import sqnorm
from workbench.errors import ConfigurationError

from .scale import loss_scale, unscaled
from .seen import Seen, added


class ReduceScatter(Protocol):
    """What ``FSDPModule.set_custom_reduce_scatter`` takes."""

    def allocate(
        self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """Return an empty buffer."""
        ...

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> Any:
        """Reduce ``input_tensor`` over the group and leave this rank's part in ``output_tensor``."""
        ...


class PlainReduceScatter:
    """FSDP's own: a fresh buffer each time, ``torch.distributed``'s reduce-scatter."""

    def allocate(
        self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """Return an empty buffer."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> Any:
        """Reduce and scatter."""
        run = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        return run(output_tensor, input_tensor, op=op, group=group, async_op=async_op)


class FSDPSource:
    """Measures ``|g_i|^2`` of this rank and its shard of ``|g|^2``, on the steps it is asked to.

    Each FSDP module hands the unsharded gradients of this rank, one flat buffer, to a reduce-scatter
    that may be replaced. Ours takes the dot product of the buffer with itself, has it reduced as
    before, and takes the dot product of the shard that comes out. The padding in the buffer is zero.
    The norms are those of the plain mean over ranks, in the type that is reduced: with
    ``reduce_dtype=torch.bfloat16`` those of the rounded gradient. They are taken before any clipping,
    and whatever divide factor is set.

    While ``set_requires_gradient_sync(False)`` nothing is reduced; the sum of the rank's
    micro-batches then comes at once, and there are as many small batches as ranks.

    Args:
        model: After ``fully_shard``; all its FSDP modules on one mesh of one dimension.
        grad_scaler: The loop's scaler, so that norms are those of the unscaled gradient.
        reduce_scatter: What to reduce with, where another than FSDP's own is in use.
        gradient_divide_factor: As given to ``set_gradient_divide_factor``, if it was.
        clock: Monotonic seconds.

    Attributes:
        group: The ranks that FSDP reduces over.
        workers: How many they are.
        device: Where the gradients are reduced.
        seconds: Host time that measuring has taken since :meth:`begin`.

    Raises:
        ConfigurationError: The model is not sharded, or in a way that cannot be measured.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        grad_scaler: torch.amp.GradScaler | None = None,
        reduce_scatter: ReduceScatter | None = None,
        gradient_divide_factor: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
        parameters = _sharded(model, modules)
        mesh = parameters[0].device_mesh
        self.group, self.workers = mesh.get_group(), mesh.size()
        self.device = torch.device(mesh.device_type)
        self._scaler, self._divide_factor, self._clock = grad_scaler, gradient_divide_factor, clock
        self._factor: torch.Tensor | None = None
        self._measuring = False
        self._reset()
        for place, module in enumerate(modules):
            inner = reduce_scatter or PlainReduceScatter()
            _install(module, _Measured(self, place, inner))

    def begin(self, *, measure: bool) -> None:
        """Get ready for the next step; what was seen so far is forgotten."""
        self._reset()
        self._measuring = measure

    def collect(self) -> Seen:
        """Return what was seen of the step's last backward pass; its tensors are read by nobody yet."""
        if not self._shards or self._refusal:
            return Seen(reason=self._refusal or "no backward pass was measured")
        passes = max(self._passes.values())
        if passes > 1:
            reason = (
                f"gradients were reduced {passes} times in one step: a skipped step, or accumulation "
                "without set_requires_gradient_sync(False)"
            )
            return Seen(reason=reason)
        return Seen(
            own=unscaled(added(self._own), self._factor).reshape(1),
            share=unscaled(added(self._shards), self._factor),
        )

    def close(self) -> None:
        """Measure nothing any more; FSDP goes on reducing as before."""
        self.begin(measure=False)

    def reduce(
        self,
        place: int,
        inner: ReduceScatter,
        output: torch.Tensor,
        given: torch.Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool,
    ) -> Any:
        """Have a module's gradients reduced, and look at them before and after."""
        if not self._measuring:
            return inner(output, given, group, op, async_op)
        began = self._clock()
        factor = self._mean_factor(given.dtype, op, async_op)
        self._passes[place] = self._passes.get(place, 0) + 1
        if not self._own:
            self._factor = loss_scale(self._scaler, given.device)
        self._own.append(sqnorm([given]))
        self.seconds += self._clock() - began
        work = inner(output, given, group, op, async_op)
        began = self._clock()
        self._shards.append(factor * factor * sqnorm([output]))
        self.seconds += self._clock() - began
        return work

    def _reset(self) -> None:
        self._passes: dict[int, int] = {}
        self._own: list[torch.Tensor] = []
        self._shards: list[torch.Tensor] = []
        self._factor = None
        self._refusal, self.seconds = "", 0.0

    def _mean_factor(self, dtype: torch.dtype, op: Any, async_op: bool) -> float:
        """Return by how much the reduced gradient is to be multiplied to be the mean over ranks."""
        if async_op:
            self._refusal = "the reduction was not over when its call returned"
        elif dtype not in (torch.float32, torch.bfloat16):
            self._refusal = f"FSDP divides {dtype} before and after the reduction"
        elif op == dist.ReduceOp.AVG:
            return 1.0
        elif op == dist.ReduceOp.SUM:
            return 1.0 / self.workers
        elif self._divide_factor is not None:
            return self._divide_factor / self.workers
        else:
            self._refusal = "a gradient divide factor is set that the source was not told"
        return 1.0


class _Measured:
    """One module's reduce-scatter, which lets the source look."""

    def __init__(self, source: FSDPSource, place: int, inner: ReduceScatter) -> None:
        self._source, self._place, self._inner = source, place, inner
        self.allocate = inner.allocate

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> Any:
        return self._source.reduce(
            self._place, self._inner, output_tensor, input_tensor, group, op, async_op
        )


def _sharded(model: torch.nn.Module, modules: Sequence[FSDPModule]) -> list[DTensor]:
    """Return the sharded parameters, if all are on one mesh of one dimension."""
    if not modules:
        raise ConfigurationError(
            f"model is a {type(model).__name__} without an FSDP module; allowed: a model after "
            "fully_shard(); shard it first (FullyShardedDataParallel is not measured)"
        )
    found: list[DTensor] = [
        p for p in model.parameters() if isinstance(p, DTensor) and p.requires_grad
    ]
    if not found:
        raise ConfigurationError(
            "model has no sharded parameter that needs a gradient; allowed: one or more; unfreeze a layer"
        )
    for parameter in found:
        mesh = parameter.device_mesh
        if mesh.ndim != 1 or not isinstance(parameter.placements[0], Shard):
            raise ConfigurationError(
                f"a parameter lies on a mesh of {mesh.ndim} dimensions as {parameter.placements}; "
                "allowed: sharded over one dimension (no replicas, no tensor parallelism); call "
                "fully_shard() with a mesh of one dimension"
            )
    if len({parameter.device_mesh.size() for parameter in found}) > 1 or mesh.size() < 2:
        raise ConfigurationError(
            f"the mesh has {mesh.size()} ranks; allowed: one mesh of 2 or more for the whole model; "
            "with one rank use attach()"
        )
    return found


def _install(module: FSDPModule, measured: Any) -> None:
    try:
        module.set_custom_reduce_scatter(measured)
    except ValueError as error:
        raise ConfigurationError(
            f"an FSDP module cannot be measured: {error} allowed: one mesh for all its parameters"
        ) from error
