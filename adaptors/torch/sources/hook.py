"""The communication hook: DDP's own average, and a look at each bucket before and after it."""

# No `from __future__ import annotations` here: register_comm_hook() compares the hook's annotations
# with the classes themselves, and refuses their names.

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from workbench.adaptors.torch.norms import sqnorm


class Buckets:
    """The hook's state: how to average, whether to measure, and what was seen.

    Args:
        process_group: Over which DDP averages.
        scale: Returns the factor of the loss, on the device, or ``None`` when there is none.
        clock: Monotonic seconds.

    Attributes:
        measuring: Whether the buckets of the coming backward passes are measured.
        addresses: Where each parameter's gradient (by ``id``) was before DDP took it up. One that is
            in its bucket already DDP divides by ``W`` there; any other it multiplies by ``1 / W`` on
            the way. Not needed when the two give the same bits.
        backwards: Backward passes reduced since :meth:`reset`.
        own: What the local buckets of the last one measured.
        mean: What its averaged buckets measured.
        factor: The factor of the loss in it.
        refusal: Why a bucket could not be measured, or empty.
        seconds: Host time spent on measuring since :meth:`reset`.
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup,
        *,
        scale: Callable[[], torch.Tensor | None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.process_group = process_group
        self.workers = dist.get_world_size(process_group)
        self.measuring = False
        self.addresses: dict[int, int] = {}
        self._scale, self._clock = scale, clock
        self._sent: list[tuple[torch.Tensor, Any, torch.futures.Future[torch.Tensor]]] = []
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self.backwards, self.refusal, self.seconds = 0, "", 0.0
        self.factor: torch.Tensor | None = None
        self.own: list[torch.Tensor] = []
        self.mean: list[torch.Tensor] = []

    def see_local(self, index: int, buffer: torch.Tensor) -> None:
        """Measure a bucket of this rank's own gradient."""
        began = self._clock()
        if index == 0:  # buckets are sent in order
            self.backwards += 1
            self.own, self.mean, self.factor = [], [], self._scale()
        if buffer.is_sparse:
            self.refusal = "a parameter has a sparse gradient"
        else:
            self.own.append(sqnorm([buffer]))
        self.seconds += self._clock() - began

    def see_mean(self, future: Any) -> torch.Tensor:
        """Measure a bucket of the averaged gradient, and hand it on."""
        buffer = _only(future)
        self._measure_mean(buffer)
        return buffer

    def wait_with_the_last(
        self,
        bucket: Any,
        buffer: torch.Tensor,
        work: Any,
    ) -> torch.futures.Future[torch.Tensor]:
        """Return a future that is fulfilled when the last bucket of the pass has been sent.

        DDP waits for all buckets as soon as it has sent the last one, so nobody waits longer. A
        callback would have to be run by the thread that communicates, which waits for Python's lock.
        """
        if bucket.index() == 0:  # of an earlier pass that broke off
            self._sent = []
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        self._sent.append((buffer, work, future))
        if bucket.is_last():
            sent, self._sent = self._sent, []
            for one, sending, averaged in sent:
                sending.wait()
                if self.measuring:
                    self._measure_mean(one)
                averaged.set_result(one)
        return future

    def _measure_mean(self, buffer: torch.Tensor) -> None:
        began = self._clock()
        if not buffer.is_sparse:
            self.mean.append(sqnorm([buffer]))
        self.seconds += self._clock() - began

    def divide(self, bucket: Any, buffer: torch.Tensor) -> None:
        """Divide by the number of workers, with the bits that DDP gets."""
        if buffer.is_sparse:
            buffer.div_(self.workers)
            return
        if not self.addresses:
            buffer.mul_(1.0 / self.workers)
            return
        for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
            if self.addresses.get(id(parameter)) == gradient.data_ptr():
                gradient.div_(self.workers)
            else:
                gradient.mul_(1.0 / self.workers)


def average(
    state: Buckets,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """Start the average of a bucket over all workers; the future holds it.

    Before all-reduce the buckets are those of this rank, as DDP gives them: not yet divided.
    """
    buffer = bucket.buffer()
    if state.measuring:
        state.see_local(bucket.index(), buffer)
    state.divide(bucket, buffer)
    work = dist.all_reduce(buffer, group=state.process_group, async_op=True)
    if buffer.is_cuda:  # nothing is waited for: the callback runs at once, on a stream that waits
        then: torch.futures.Future[torch.Tensor] = work.get_future().then(
            state.see_mean if state.measuring else _only
        )
        return then
    return state.wait_with_the_last(bucket, buffer, work)


def _only(future: Any) -> torch.Tensor:
    buffer: torch.Tensor = future.value()[0]
    return buffer
