"""What a layer must be able to do so that each sample's part of its gradient can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch


class Layer(Protocol):
    """One kind of module, for one module: from its input and its output's gradient to norms.

    ``delta`` is the gradient of the loss by the module's output, shape ``(rows, ...)``. ``kept`` is
    what ``keep`` returned in the forward pass.
    """

    def fits(self, inputs: torch.Tensor) -> bool:
        """Return whether the first dimension of ``inputs`` can be that of the samples."""
        ...

    def keep(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Return what the backward pass will need; ``None`` when it needs no input."""
        ...

    def sqnorms(self, kept: torch.Tensor | None, delta: torch.Tensor) -> torch.Tensor:
        """Return the squared norm of each row's part of the gradient, shape ``(rows,)``."""
        ...

    def totals(self, kept: torch.Tensor | None, delta: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the sum of all rows' parts by parameter name: the gradient, if all is right."""
        ...


def as_seen(inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Return the input as the layer's own operation saw it: autocast may have changed its type.

    The same type: the operation keeps this very tensor for the gradient of its weight, and autograd
    refuses the backward pass if somebody changes it in place before. So a reference is enough.
    Another type: the operation saw a copy that nobody can change, and so must we.

    Example:
        >>> inputs = torch.ones(2, 3)
        >>> as_seen(inputs, torch.ones(2, 1)).data_ptr() == inputs.data_ptr()
        True
    """
    seen = inputs.detach()
    return seen if seen.dtype == output.dtype else seen.to(output.dtype)
