"""The norms of each sample's gradient in a table of embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .pairs import LARGEST_BYTES, chunks, row_sqnorms, wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """``nn.Embedding`` on indices ``(rows, ...)``.

    One sample's part is, in the table's row ``v``, the sum of the output gradients ``d_t`` at the
    positions ``t`` with index ``v``. So ``|part|^2 = sum_{t,u} [v_t = v_u] (d_t . d_u)``.

    Attributes:
        entries: Rows of the table.
        padding: The index whose row is not trained, or ``None``.

    Example:
        >>> layer = Embedded(entries=3, padding=None)
        >>> layer.sqnorms(torch.tensor([[1, 1, 2]]), torch.tensor([[[1.0], [2.0], [4.0]]]))
        tensor([25.])
    """

    entries: int
    padding: int | None

    def fits(self, inputs: torch.Tensor) -> bool:
        """Return whether there is a dimension of samples."""
        return inputs.dim() >= 1

    def keep(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:  # noqa: ARG002
        """Return the indices."""
        return inputs

    def sqnorms(self, kept: torch.Tensor | None, delta: torch.Tensor) -> torch.Tensor:
        """Return ``|part_i|^2``."""
        indices, delta = self._flat(kept, delta)
        rows, terms, width = delta.shape
        if terms == 1:
            return row_sqnorms(delta)
        item = delta.element_size()
        block = max(1, min(terms, LARGEST_BYTES // (2 * terms * item)))
        squared = delta.new_zeros(rows)
        for part in chunks(rows, 2 * terms * block + terms * width, item):
            for start in range(0, terms, block):
                some = slice(start, start + block)
                same = indices[part, some].unsqueeze(2) == indices[part].unsqueeze(1)
                dots = torch.bmm(delta[part, some], delta[part].transpose(1, 2))
                squared[part] += dots.mul_(same).sum((1, 2))
        return squared.clamp_min_(0.0)  # rounding may leave a zero below zero

    def totals(self, kept: torch.Tensor | None, delta: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the sums over all rows."""
        indices, delta = self._flat(kept, delta)
        table = delta.new_zeros((self.entries, delta.shape[2]))
        return {"weight": table.index_add_(0, indices.flatten(), delta.flatten(0, 1))}

    def _flat(
        self, kept: torch.Tensor | None, delta: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return indices ``(rows, T)`` and gradients ``(rows, T, width)``, zero at the padding."""
        assert kept is not None
        rows, width = delta.shape[0], delta.shape[-1]
        indices = kept.reshape(rows, -1)
        delta = delta.reshape(rows, -1, width).to(wide(delta))
        if self.padding is not None:
            delta = delta * (indices != self.padding).unsqueeze(2)
        return indices, delta
