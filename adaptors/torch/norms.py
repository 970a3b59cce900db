"""The squared norm of many tensors at once: one fused pass, no copy, nothing read by the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def sqnorm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of the squares of all elements, one double on the first tensor's device.

    Args:
        tensors: One or more dense tensors of floating-point numbers, of any types and devices.

    Example:
        >>> sqnorm([torch.tensor([3.0]), torch.tensor([4.0])])
        tensor(25., dtype=torch.float64)
    """
    norms = torch._foreach_norm(list(tensors))
    if len({(norm.dtype, norm.device) for norm in norms}) > 1:
        norms = tuple(norm.to(tensors[0].device, torch.float64) for norm in norms)
    return torch.stack(norms).double().square().sum()
