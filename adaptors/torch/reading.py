"""Numbers on their way from the device to the host, without anybody waiting for them."""

from __future__ import annotations

import torch


class Reading:
    """A copy of a small vector that is under way to the host.

    On the CPU it is the vector. On a GPU the copy goes to pinned memory and is followed by an event;
    asked some steps later, both have long been done.

    Args:
        vector: One dimension, any device; not written to afterwards.

    Example:
        >>> Reading(torch.tensor([1.0, 2.0])).values()
        [1.0, 2.0]
    """

    def __init__(self, vector: torch.Tensor) -> None:
        self._host, self._event = vector, None
        if vector.device.type == "cuda":
            self._host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
            self._host.copy_(vector, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def values(self) -> list[float]:
        """Return the numbers; waits only if the device has not got so far."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._host.tolist()
        return values
