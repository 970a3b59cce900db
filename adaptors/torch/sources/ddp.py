"""The two norms of a step of DistributedDataParallel, from its public communication hook."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from workbench.errors import ConfigurationError

from .hook import Buckets, average
from .micro_batches import MicroBatches
from .scale import loss_scale, unscaled
from .seen import Seen, added


class DDPSource:
    """Measures ``|g_i|^2`` of this rank and ``|g|^2`` of the average, on the steps it is asked to.

    DDP hands each bucket of gradients to a hook as soon as it is full. Ours takes the dot product of
    the flat buffer with itself, averages it as DDP does, to the bit, and takes the dot product of
    the average when it is there: two reads of memory, no copy. The user's clipping comes later.

    Under ``no_sync()`` DDP does not call the hook; the hook then sees the sum of the rank's
    micro-batches, and there are as many small batches as ranks. With ``micro_batches`` each
    backward pass of the step counts as a small batch: a hook on each parameter (``Tensor.
    register_hook``) sees its own gradient, at the price of a call for each of them.

    DDP averages with ``1 / W`` whatever the sizes of the batches: :func:`.seen.two_norms`. Of
    ``Join(divide_by_initial_world_size=False)`` a hook hears nothing: leave that at its default.
    The hook stays when the source is closed (DDP has no way to take one back) and measures nothing.

    Args:
        model: The wrapped model, before its first backward pass.
        grad_scaler: The loop's scaler, so that norms are those of the unscaled gradient.
        micro_batches: Whether each backward pass of a step is measured apart.
        clock: Monotonic seconds.

    Raises:
        ConfigurationError: The model is not wrapped in DDP, or has a communication hook already.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        grad_scaler: torch.amp.GradScaler | None = None,
        micro_batches: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        wrapped = _checked(model)
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._buckets = Buckets(wrapped.process_group, scale=self._scale, clock=clock)
        self._scaler, self._device = grad_scaler, parameters[0].device
        self._micro = MicroBatches(parameters, clock=clock) if micro_batches else None
        self._handles: list[Any] = []
        _register(wrapped, self._buckets)
        self._follow_addresses(wrapped, parameters)

    @property
    def group(self) -> dist.ProcessGroup:
        """The ranks that DDP averages over."""
        return self._buckets.process_group

    @property
    def device(self) -> torch.device:
        """Where the gradients live."""
        return self._device

    @property
    def workers(self) -> int:
        """How many they are."""
        return self._buckets.workers

    @property
    def seconds(self) -> float:
        """Host time that measuring has taken since :meth:`begin`."""
        return self._buckets.seconds + (self._micro.seconds if self._micro else 0.0)

    def begin(self, *, measure: bool) -> None:
        """Get ready for the next step; what was seen so far is forgotten."""
        self._buckets.reset()
        self._buckets.measuring = measure
        if self._micro is not None:
            self._micro.arm(measure)

    def collect(self) -> Seen:
        """Return what was seen of the step's last backward pass; its tensors are read by nobody yet."""
        buckets = self._buckets
        if not buckets.mean or buckets.refusal:
            return Seen(reason=buckets.refusal or "no backward pass was measured")
        big = self._unscaled(added(buckets.mean))
        own, reason = self._own()
        return Seen(own=own, share=big / self.workers, reason=reason)

    def close(self) -> None:
        """Measure nothing any more; the hook goes on averaging as DDP does."""
        self.begin(measure=False)

    def _own(self) -> tuple[torch.Tensor | None, str]:
        buckets = self._buckets
        if buckets.backwards > 1:
            return None, (
                f"gradients were averaged {buckets.backwards} times in one step: a skipped step, or "
                "accumulation without no_sync()"
            )
        if self._micro is None:
            return self._unscaled(added(buckets.own)).reshape(1), ""
        squares = self._micro.squares()
        if squares is None:
            return None, self._micro.refusal
        return self._unscaled(squares), ""

    def _scale(self) -> torch.Tensor | None:
        return loss_scale(self._scaler, self._device)

    def _unscaled(self, squared: torch.Tensor) -> torch.Tensor:
        return unscaled(squared, self._buckets.factor)

    def _follow_addresses(
        self, model: DistributedDataParallel, parameters: list[torch.nn.Parameter]
    ) -> None:
        """See where gradients are before DDP takes them up, where that decides how it divides."""
        power_of_two = self.workers & (self.workers - 1) == 0
        if power_of_two or not model.gradient_as_bucket_view:
            return
        addresses = self._buckets.addresses

        def follow(parameter: torch.Tensor) -> None:
            if parameter.grad is not None and not parameter.grad.is_sparse:
                addresses[id(parameter)] = parameter.grad.data_ptr()

        self._handles = [
            parameter.register_post_accumulate_grad_hook(follow)  # type: ignore[no-untyped-call]
            for parameter in parameters
        ]


def _checked(model: Any) -> DistributedDataParallel:
    if not isinstance(model, DistributedDataParallel):
        raise ConfigurationError(
            f"model is a {type(model).__name__}; allowed: a DistributedDataParallel; wrap it first"
        )
    return model


def _register(model: DistributedDataParallel, buckets: Buckets) -> None:
    try:
        model.register_comm_hook(buckets, average)
    except RuntimeError as error:
        raise ConfigurationError(
            "the model has a communication hook already (mixed_precision= of DistributedDataParallel "
            "is one, an earlier watch another); allowed: one; wrap the model anew without it, and use "
            "torch.autocast for mixed precision"
        ) from error
