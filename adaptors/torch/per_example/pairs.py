"""Squared norms of products, row by row, in chunks that keep what is held at once small."""

from __future__ import annotations

from collections.abc import Iterator

import torch

LARGEST_BYTES = 64 * 2**20
"""The most that one temporary tensor may take; a single row may take more."""


def wide(tensor: torch.Tensor) -> torch.dtype:
    """Return the type to compute in: double stays double, all others become single.

    Example:
        >>> wide(torch.ones(1, dtype=torch.bfloat16))
        torch.float32
    """
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def row_sqnorms(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``|t_i|^2`` of each row ``t_i``.

    Args:
        tensor: Shape ``(rows, ...)``.

    Example:
        >>> row_sqnorms(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
        tensor([25.,  1.])
    """
    flat = tensor if tensor.dim() == 2 else tensor.flatten(1)
    norms: torch.Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=wide(tensor))
    return norms.square_()


def chunks(rows: int, numbers_per_row: int, item_bytes: int) -> Iterator[slice]:
    """Yield slices of rows whose temporaries stay below ``LARGEST_BYTES``, one row at least.

    Example:
        >>> [(part.start, part.stop) for part in chunks(5, LARGEST_BYTES // 8, 4)]
        [(0, 2), (2, 4), (4, 5)]
    """
    most = max(1, LARGEST_BYTES // max(1, numbers_per_row * item_bytes))
    for start in range(0, rows, most):
        yield slice(start, min(rows, start + most))


def product_sqnorms(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    r"""Return ``|L_i^T R_i|^2`` (all elements) of each row ``i``.

    Two ways, the one with fewer multiplications is taken: the products themselves, ``p q``
    numbers a row; or, with ``L_i^T R_i = sum_t l_t r_t^T``,

    ``|L_i^T R_i|^2 = sum_{t,u} (l_t . l_u) (r_t . r_u)``,

    ``T^2`` numbers a row (Li et al. 2022, "Large Language Models Can Be Strong Differentially
    Private Learners", section 4, the ghost norm).

    Args:
        left: Shape ``(rows, T, p)``.
        right: Shape ``(rows, T, q)``.

    Example:
        >>> left = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
        >>> right = torch.tensor([[[3.0], [1.0]]])
        >>> product_sqnorms(left, right)
        tensor([13.])
    """
    rows, terms, high = left.shape
    wide_ = right.shape[2]
    if terms == 1:
        return row_sqnorms(left) * row_sqnorms(right)
    ghost = terms * (high + wide_) < high * wide_
    numbers = terms * (high + wide_) + (2 * terms * terms if ghost else high * wide_)
    take = _by_grams if ghost else _by_products
    kind = wide(left)
    pieces = [
        take(left[part].to(kind), right[part].to(kind))
        for part in chunks(rows, numbers, kind.itemsize)
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _by_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return row_sqnorms(torch.bmm(left.transpose(1, 2), right))


def _by_grams(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    grams = torch.bmm(left, left.transpose(1, 2))
    grams.mul_(torch.bmm(right, right.transpose(1, 2)))
    return grams.sum((1, 2)).clamp_min_(0.0)  # rounding may leave a zero below zero
