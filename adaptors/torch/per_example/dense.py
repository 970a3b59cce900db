"""The norms of each sample's gradient in a linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .layers import as_seen
from .pairs import product_sqnorms, row_sqnorms, wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """``nn.Linear`` on ``(rows, features)`` or ``(rows, ..., features)``.

    With inputs ``a_t`` and output gradients ``d_t`` over the positions ``t`` of one sample, its part
    is ``sum_t d_t a_t^T`` for the weight and ``sum_t d_t`` for the bias. With one position
    (Goodfellow 2015, "Efficient Per-Example Gradient Computations", section 4) the squared norms
    are ``|a|^2 |d|^2`` and ``|d|^2``.

    Attributes:
        weight: Whether the weight is trained.
        bias: Whether there is a bias that is trained.

    Example:
        >>> layer = Dense(weight=True, bias=True)
        >>> layer.sqnorms(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))
        tensor([54.])
    """

    weight: bool
    bias: bool

    def fits(self, inputs: torch.Tensor) -> bool:
        """Return whether there is a dimension of samples before that of features."""
        return inputs.dim() >= 2

    def keep(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Return the input."""
        return as_seen(inputs, output) if self.weight else None

    def sqnorms(self, kept: torch.Tensor | None, delta: torch.Tensor) -> torch.Tensor:
        """Return ``|part_i|^2`` of weight and bias together."""
        if delta.dim() == 2:
            squared = row_sqnorms(delta)
            if kept is None:
                return squared
            factor = row_sqnorms(kept)
            return torch.addcmul(squared, squared, factor) if self.bias else squared.mul_(factor)
        delta = delta.flatten(1, -2)
        squared = delta.new_zeros(delta.shape[0], dtype=wide(delta))
        if kept is not None:
            squared += product_sqnorms(kept.flatten(1, -2), delta)
        if self.bias:
            squared += row_sqnorms(delta.sum(1, dtype=wide(delta)))
        return squared

    def totals(self, kept: torch.Tensor | None, delta: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the sums over all rows."""
        delta = delta.flatten(0, -2).to(wide(delta))
        found = {}
        if kept is not None:
            found["weight"] = delta.T @ kept.flatten(0, -2).to(delta.dtype)
        if self.bias:
            found["bias"] = delta.sum(0)
        return found
