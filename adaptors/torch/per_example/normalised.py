"""The norms of each sample's gradient in layers that normalise within a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch.nn import functional as F  # noqa: N812

from .layers import as_seen
from .pairs import chunks, row_sqnorms, wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalised:
    """``nn.LayerNorm``, ``nn.RMSNorm`` and ``nn.GroupNorm``: ``output = weight * z + bias``.

    With the normalised input ``z`` and the output's gradient ``d``, one sample's part is ``d z``
    summed over the positions that share a weight, and ``d`` summed likewise for the bias
    (Gray et al. 2024, "Normalization Layer Per-Example Gradients are Sufficient to Predict
    Gradient Noise Scale in Transformers", section 3).

    Attributes:
        normalise: From an input to ``z``.
        early: Take ``z`` in the forward pass, since the layer's own operation may not keep its input.
        shape: Of the weight.
        channels_first: The weight runs along dimension 1, not along the last ones.
        weight: Whether the weight is trained.
        bias: Whether there is a bias that is trained.

    Example:
        >>> layer = Normalised(normalise=lambda inputs: inputs, early=False, shape=(2,),
        ...                    channels_first=False, weight=True, bias=True)
        >>> layer.sqnorms(torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, 3.0]]))
        tensor([26.])
    """

    normalise: Callable[[torch.Tensor], torch.Tensor]
    early: bool
    shape: tuple[int, ...]
    channels_first: bool
    weight: bool
    bias: bool

    def fits(self, inputs: torch.Tensor) -> bool:
        """Return whether a dimension of samples comes before those of the weight."""
        return inputs.dim() >= 2 if self.channels_first else inputs.dim() > len(self.shape)

    def keep(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Return the input, or what it is when normalised."""
        if not self.weight:
            return None
        return self.normalise(inputs.detach()) if self.early else as_seen(inputs, output)

    def sqnorms(self, kept: torch.Tensor | None, delta: torch.Tensor) -> torch.Tensor:
        """Return ``|part_i|^2`` of weight and bias together."""
        squared = delta.new_zeros(delta.shape[0], dtype=wide(delta))
        if self.bias:
            squared += row_sqnorms(self._shared(delta))
        if kept is not None:
            for part in chunks(delta.shape[0], 3 * delta[0].numel(), wide(delta).itemsize):
                squared[part] += row_sqnorms(self._scaled(kept[part], delta[part]))
        return squared

    def totals(self, kept: torch.Tensor | None, delta: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the sums over all rows."""
        found = {}
        if kept is not None:
            found["weight"] = self._scaled(kept, delta).sum(0).view(self.shape)
        if self.bias:
            found["bias"] = self._shared(delta).sum(0).view(self.shape)
        return found

    def _scaled(self, kept: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        kept = kept.to(wide(delta))
        return self._shared((kept if self.early else self.normalise(kept)) * delta)

    def _shared(self, values: torch.Tensor) -> torch.Tensor:
        """Return sums over the positions that share a weight, shape ``(rows, weights)``."""
        rows, kind = values.shape[0], wide(values)
        if self.channels_first:
            return values.reshape(rows, values.shape[1], -1).sum(2, dtype=kind)
        return values.reshape(rows, -1, prod(self.shape)).sum(1, dtype=kind)


def layer_norm_of(module: torch.nn.LayerNorm, *, weight: bool, bias: bool) -> Normalised:
    """Return the layer for an ``nn.LayerNorm``."""
    shape, eps = tuple(module.normalized_shape), module.eps
    return Normalised(
        normalise=lambda inputs: F.layer_norm(inputs, shape, None, None, eps),
        early=False,
        shape=shape,
        channels_first=False,
        weight=weight,
        bias=bias,
    )


def rms_norm_of(module: torch.nn.RMSNorm, *, weight: bool) -> Normalised:
    """Return the layer for an ``nn.RMSNorm``."""
    shape, eps = tuple(module.normalized_shape), module.eps
    return Normalised(
        normalise=lambda inputs: F.rms_norm(inputs, shape, None, eps),
        early=True,
        shape=shape,
        channels_first=False,
        weight=weight,
        bias=False,
    )


def group_norm_of(module: torch.nn.GroupNorm, *, weight: bool, bias: bool) -> Normalised:
    """Return the layer for an ``nn.GroupNorm``."""
    groups, eps = module.num_groups, module.eps
    return Normalised(
        normalise=lambda inputs: F.group_norm(inputs, groups, None, None, eps),
        early=False,
        shape=(module.num_channels,),
        channels_first=True,
        weight=weight,
        bias=bias,
    )
