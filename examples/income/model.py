"""Embeddings of category codes beside a few numbers, and a small multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

ROWS = (32, 16, 1024, 256, 64)
"""Rows of the tables of COW, MAR, OCCP, POBP, RELP: the categories of ``prepare.load``."""


class People(nn.Module):
    """Two logits for each person.

    Args:
        numbers: Leading columns of the inputs that are numbers.
        rows: Rows of each category's embedding table; a code past the end counts as unknown, 0.
        width: Columns of an embedding.
        hidden: Units of each of the two hidden layers.
    """

    starts: torch.Tensor
    rows: torch.Tensor

    def __init__(self, numbers: int, rows: Sequence[int], width: int, hidden: int) -> None:
        super().__init__()
        self.numbers = numbers
        starts = torch.tensor([0, *rows[:-1]]).cumsum(0)
        self.register_buffer("starts", starts)
        self.register_buffer("rows", torch.tensor(list(rows)))
        self.table = nn.Embedding(sum(rows), width)
        self.layers = nn.Sequential(
            nn.Linear(numbers + len(rows) * width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits of shape ``(n, 2)`` for inputs of shape ``(n, numbers + categories)``."""
        codes = inputs[:, self.numbers :].long()
        codes = torch.where((codes >= 0) & (codes < self.rows), codes, torch.zeros_like(codes))
        embedded = self.table(codes + self.starts).flatten(1)
        logits: torch.Tensor = self.layers(torch.cat([inputs[:, : self.numbers], embedded], dim=1))
        return logits


def build(
    *, numbers: int = 3, rows: Sequence[int] = ROWS, width: int = 8, hidden: int = 64
) -> nn.Module:
    """Return the untrained network.

    Example:
        >>> import torch
        >>> build()(torch.zeros(4, 8)).shape
        torch.Size([4, 2])
    """
    return People(numbers, rows, width, hidden)
