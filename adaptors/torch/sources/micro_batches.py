"""The gradient of each micro-batch by itself, seen on its way into ``.grad``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from workbench.adaptors.torch.norms import sqnorm

from .seen import added


class MicroBatches:
    """Measures ``|h_m|^2`` of the gradient that each backward pass of a step adds to ``.grad``.

    A hook on a parameter (``Tensor.register_hook``) is handed the gradient of one backward pass,
    complete, before it is added. It is measured at once: a reference kept until the pass ends would
    make autograd copy it. The hooks are there on measured steps only.

    With ``A`` passes the optimizer sees ``sum(h_m)``, and ``A h_m`` is what it would see had every
    micro-batch been like this one: so the squares are in the units of the averaged gradient whether
    the loop divides its loss by ``A`` or not.

    Args:
        parameters: Those that need a gradient.
        clock: Monotonic seconds.

    Attributes:
        refusal: Why the last step could not be measured, or empty.
        seconds: Host time spent in the hooks since :meth:`arm`.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> micro = MicroBatches([weight])
        >>> micro.arm(True)
        >>> for factor in (1.0, 3.0):
        ...     (0.5 * factor * weight).sum().backward()
        >>> micro.squares()
        tensor([ 2., 18.], dtype=torch.float64)
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._parameters, self._clock = list(parameters), clock
        self._handles: list[Any] = []
        self._passes: list[int] = []
        self._squares: list[list[torch.Tensor]] = []
        self._clear()

    def arm(self, measure: bool) -> None:
        """Measure the passes from now on, or do not; forget those seen."""
        self._clear()
        if measure and not self._handles:
            self._handles = [
                parameter.register_hook(self._hook(place))  # type: ignore[no-untyped-call]
                for place, parameter in enumerate(self._parameters)
            ]
        elif not measure:
            for handle in self._handles:
                handle.remove()
            self._handles = []

    def squares(self) -> torch.Tensor | None:
        """Return ``A^2 |h_m|^2`` of each of the ``A`` passes, 1-d, double; ``None``: see ``refusal``."""
        passes = len(self._squares)
        if len({count for count in self._passes if count > 0}) > 1:
            self.refusal = "some parameters had a gradient in some micro-batches only"
        if self.refusal or not passes:
            self.refusal = self.refusal or "no backward pass was measured"
            return None
        return passes * passes * torch.stack([added(numbers) for numbers in self._squares])

    def _clear(self) -> None:
        self.refusal, self.seconds = "", 0.0
        self._passes = [0] * len(self._parameters)
        self._squares = []

    def _hook(self, place: int) -> Callable[[torch.Tensor], None]:
        def arrived(gradient: torch.Tensor) -> None:
            began = self._clock()
            at = self._passes[place]
            self._passes[place] += 1
            if at == len(self._squares):
                self._squares.append([])
            if gradient.is_sparse:
                self.refusal = "a parameter has a sparse gradient"
            else:
                self._squares[at].append(sqnorm([gradient]))
            self.seconds += self._clock() - began

        return arrived
