"""The norms of each sample's gradient in a convolution over one or two dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812

from .layers import as_seen
from .pairs import chunks, product_sqnorms, row_sqnorms, wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """``nn.Conv1d`` and ``nn.Conv2d`` with zero padding, in groups or not.

    A convolution is a linear layer on patches: with the patches ``U`` (features of one patch by
    positions) and the output gradients ``D`` of one sample, its part of the weight is ``D U^T``
    in each group (Rochette et al. 2019, "Efficient Per-Example Gradient Computations in
    Convolutional Neural Networks", section 3). Conv1d is Conv2d with a height of one.

    Attributes:
        kernel: Height and width.
        stride: Height and width.
        dilation: Height and width.
        before: Zeros added above and to the left.
        after: Zeros added below and to the right.
        groups: Into how many the channels are divided.
        weight: Whether the weight is trained.
        bias: Whether there is a bias that is trained.
        dims: Dimensions of positions, 1 or 2.

    Example:
        >>> one = (1, 1)
        >>> layer = Convolution(kernel=one, stride=one, dilation=one, before=(0, 0), after=(0, 0),
        ...                     groups=1, weight=True, bias=False, dims=1)
        >>> layer.sqnorms(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 1.0]]]))
        tensor([25.])
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    groups: int
    weight: bool
    bias: bool
    dims: int

    def fits(self, inputs: torch.Tensor) -> bool:
        """Return whether samples and channels come before the positions."""
        return inputs.dim() == self.dims + 2

    def keep(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Return the input."""
        return as_seen(inputs, output) if self.weight else None

    def sqnorms(self, kept: torch.Tensor | None, delta: torch.Tensor) -> torch.Tensor:
        """Return ``|part_i|^2`` of weight and bias together."""
        squared = delta.new_zeros(delta.shape[0], dtype=wide(delta))
        if self.bias:
            squared += row_sqnorms(delta.flatten(2).sum(2, dtype=wide(delta)))
        if kept is None:
            return squared
        for part, patches, outward in self._unfolded(kept, delta):
            products = product_sqnorms(patches.transpose(1, 2), outward.transpose(1, 2))
            squared[part] += products.view(-1, self.groups).sum(1)
        return squared

    def totals(self, kept: torch.Tensor | None, delta: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the sums over all rows."""
        found = {}
        if self.bias:
            found["bias"] = delta.flatten(2).sum((0, 2), dtype=wide(delta))
        if kept is None:
            return found
        shape = (delta.shape[1], kept.shape[1] // self.groups, *self.kernel[2 - self.dims :])
        total = delta.new_zeros(shape, dtype=wide(delta))
        for _, patches, outward in self._unfolded(kept, delta):
            products = torch.bmm(outward, patches.transpose(1, 2))
            total += products.view(-1, self.groups, *products.shape[1:]).sum(0).view(shape)
        return {**found, "weight": total}

    def _unfolded(
        self, kept: torch.Tensor, delta: torch.Tensor
    ) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Yield rows, their patches, and their output gradients: ``(rows * groups, _, places)``."""
        delta = delta.flatten(2)
        rows, _, places = delta.shape
        numbers = kept.shape[1] * self.kernel[0] * self.kernel[1] * places
        kind = wide(delta)
        for part in chunks(rows, numbers, kind.itemsize):
            patches = self._patches(kept[part].to(kind))
            outward = delta[part].to(kind)
            yield (
                part,
                patches.reshape(-1, patches.shape[1] // self.groups, places),
                outward.reshape(-1, outward.shape[1] // self.groups, places),
            )

    def _patches(self, inputs: torch.Tensor) -> torch.Tensor:
        image = inputs.unsqueeze(2) if self.dims == 1 else inputs
        padding = self.before
        if self.before != self.after:
            (top, left), (bottom, right) = self.before, self.after
            image, padding = F.pad(image, (left, right, top, bottom)), (0, 0)
        return F.unfold(image, self.kernel, self.dilation, padding, self.stride)


def convolution_of(
    module: torch.nn.Conv1d | torch.nn.Conv2d, *, weight: bool, bias: bool
) -> Convolution | None:
    """Return the layer for a module, or ``None`` when its padding is not zeros."""
    if module.padding_mode != "zeros":
        return None
    kernel, dilation = _plane(module.kernel_size, 1), _plane(module.dilation, 1)
    before, after = _padding(module.padding, kernel, dilation)
    return Convolution(
        kernel=kernel,
        stride=_plane(module.stride, 1),
        dilation=dilation,
        before=before,
        after=after,
        groups=module.groups,
        weight=weight,
        bias=bias,
        dims=len(module.kernel_size),
    )


def _plane(sizes: tuple[int, ...], alone: int) -> tuple[int, int]:
    return (alone, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _padding(
    given: str | tuple[int, ...], kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the zeros before and after; ``same`` puts the odd one after."""
    if given == "valid":
        return (0, 0), (0, 0)
    if not isinstance(given, str):
        return _plane(given, 0), _plane(given, 0)
    height, width = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    return (height // 2, width // 2), (height - height // 2, width - width // 2)
