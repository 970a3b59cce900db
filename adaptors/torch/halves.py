"""On one worker: the gradient of half of the batch, from the graph that is there anyway.

At the moment the loss's gradient reaches the model's output, a second backward pass over the same
graph, with that gradient masked to the first half of the rows, gives the half batch's gradient. There
is no second forward pass, no random number is drawn, no buffer changes and ``.grad`` is not touched,
so the weights stay bit-identical with and without it. It costs one backward pass, now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from .ear import Ear
from .leaves import tensors_in
from .norms import sqnorm


class Halves:
    """Measures ``|g_1 - g|²`` for the first half ``g_1`` of a batch with gradient ``g``.

    The rows of the output must belong to the samples of the batch, and the loss be a mean over them.
    What a loss adds beside it (a penalty on the weights) is in ``.grad`` and in no half: ``whole``
    takes the gradient through the output alone as well, so that the halves are compared with that.

    Args:
        model: The module whose output leads to the loss.
        parameters: Its trainable parameters.
        around: Entered during the second pass, with the number of rows that it keeps.
        clock: Monotonic seconds.

    Attributes:
        seconds: Time that second passes took, by ``clock``.
        mismatch: ``|g_output - g|² / |g|²`` of the last split with ``whole``, one number on the
            device; ``None`` without.
        coarse: Whether the last split was of a forward pass under autocast.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        parameters: Sequence[torch.nn.Parameter],
        *,
        around: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock, self.seconds = clock, 0.0
        self._parameters, self._around = list(parameters), around
        self._rows = 0
        self._busy = False
        self._half: Sequence[torch.Tensor | None] | None = None
        self._all: Sequence[torch.Tensor | None] | None = None
        self._whole = False
        self.mismatch: torch.Tensor | None = None
        self.coarse = False
        self._forwards = 0
        self.refusal = ""
        self._handle = model.register_forward_hook(Ear(self._after_forward))

    def arm(self, rows: int, *, whole: bool = False) -> None:
        """Split the next batch, of ``rows`` samples; 0 or 1: do not.

        Args:
            rows: Of the batch.
            whole: Whether to take the gradient through the output, too: one more backward pass.
        """
        self._rows, self._half, self._forwards = rows if rows > 1 else 0, None, 0
        self._whole, self._all, self.mismatch = whole, None, None

    def difference(self) -> tuple[dict[int, torch.Tensor], float] | None:
        """Return ``d = g_1 - g`` by place, and ``b_1 / b_2``; ``None`` if there was no split.

        With ``b_1 + b_2 = B``: ``g_2 - g = -(b_1 / b_2) d``, hence for any linear ``P``
        ``sum(b_i |P g_i|²) / B = |P g|² + (b_1 / b_2) |P d|²``. ``g`` is in ``.grad``.
        """
        half, rows = self._half, self._rows
        self._half, self._rows = None, 0
        if half is None or self._forwards != 1:
            return None
        first = (rows + 1) // 2
        moved = {
            place: part
            for place, part in enumerate(half)
            if part is not None and self._parameters[place].grad is not None
        }
        if not moved:
            return None
        torch._foreach_mul_(list(moved.values()), rows / first)
        grads = {at: grad for at in moved if (grad := self._parameters[at].grad) is not None}
        base, self._all = self._all, None
        if base is None:
            torch._foreach_sub_(list(moved.values()), list(grads.values()))
            return moved, first / (rows - first)
        mean = {at: part for at in moved if (part := base[at]) is not None}
        torch._foreach_sub_(list(moved.values()), list(mean.values()))
        beside = torch._foreach_sub(list(mean.values()), list(grads.values()))
        self.mismatch = sqnorm(beside) / sqnorm(list(grads.values()))
        return moved, first / (rows - first)

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    def _after_forward(self, module: torch.nn.Module, inputs: Any, outputs: Any) -> None:  # noqa: ARG002
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not self._rows:
            return
        self._forwards += 1
        found = [tensor for tensor in tensors_in(outputs) if tensor.requires_grad]
        if len(found) != 1 or found[0].dim() < 1 or found[0].shape[0] != self._rows:
            self.refusal = f"the model's output is not one tensor with {self._rows} rows"
        elif self._forwards == 1:
            output = found[0]
            self.coarse = torch.is_autocast_enabled(output.device.type)
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._split(output, gradient)
            )

    def _split(self, output: torch.Tensor, gradient: torch.Tensor) -> None:
        if self._busy or self._half is not None or not self._rows:
            return
        began = self._clock()
        first = (self._rows + 1) // 2
        masked = gradient.clone()
        masked[first:] = 0
        self._busy = True
        try:
            with self._around(first):
                self._half = torch.autograd.grad(
                    output, self._parameters, masked, retain_graph=True, allow_unused=True
                )
            if self._whole:
                with self._around(self._rows):
                    self._all = torch.autograd.grad(
                        output, self._parameters, gradient, retain_graph=True, allow_unused=True
                    )
        except RuntimeError as error:  # a compiled graph gives its buffers away after one pass
            self.refusal = (
                f"this graph allows one backward pass only ({str(error).splitlines()[0]})"
            )
        finally:
            self._busy = False
            self.seconds += self._clock() - began
