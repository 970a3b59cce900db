"""The largest eigenvalue of a symmetric matrix that is known only by its products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, nan

import torch

Product = Callable[[torch.Tensor], torch.Tensor]

_FIRST = 8
"""Products before an answer is believed: a random start hardly touches a lonely large eigenvalue."""

_REFRESH = 16
"""Steps after which ``H x`` is computed anew, since sums of earlier products drift."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eigenvalue:
    """What was found.

    Attributes:
        value: ``x . H x`` of the last unit vector ``x``: at most the largest eigenvalue.
        residual: ``|H x - value x|``: some eigenvalue is within it of ``value``.
        products: Products with the matrix that were taken.
        converged: Whether the residual is small enough.
        vector: ``x``.
    """

    value: float
    residual: float
    products: int
    converged: bool
    vector: torch.Tensor


@dataclass(slots=True)
class _Pair:
    """A vector and the matrix's product with it, kept in step."""

    x: torch.Tensor
    hx: torch.Tensor

    def without(self, other: _Pair) -> _Pair:
        along = _dot(self.x, other.x)
        return _Pair(self.x - along * other.x, self.hx - along * other.hx)

    def unit(self) -> _Pair:
        length = _dot(self.x, self.x) ** 0.5
        return _Pair(self.x / length, self.hx / length)


def largest_eigenvalue(
    product: Product, start: torch.Tensor, *, iterations: int, tolerance: float, rounding: float
) -> Eigenvalue:
    """Return the largest (most positive) eigenvalue of a symmetric matrix ``H``.

    Power iteration goes from ``x`` to ``H x``, which is led astray when the most negative eigenvalue
    is the larger one in magnitude. Here each step takes, of all vectors spanned by ``x``, the
    residual ``H x - value x`` and the last step, the one with the largest ``x . H x / x . x``. That
    span holds ``H x + c x`` for every ``c``, so no step gains less than one of power iteration
    with any shift, and the sign of the other eigenvalues does not matter. One product a step.

    Source: Knyazev 2001, "Toward the optimal preconditioned eigensolver", section 4 (block of one,
    no preconditioner). Residual bound: Parlett 1998, "The symmetric eigenvalue problem", theorem
    4.5.1.

    Args:
        product: ``H v`` for a vector ``v``.
        start: Not zero; a random vector, since one without any part along the answer misses it.
        iterations: Products allowed, 1 or more.
        tolerance: The residual wanted, relative to the value.
        rounding: Relative error of a product; a residual of this size is as good as none.

    Example:
        >>> diagonal = torch.tensor([-9.0, 1.0, 2.0])
        >>> found = largest_eigenvalue(lambda v: diagonal * v, torch.ones(3), iterations=50,
        ...                            tolerance=1e-3, rounding=1e-6)
        >>> round(found.value, 3), found.converged
        (2.0, True)
    """
    x = start / _dot(start, start) ** 0.5
    now, last = _Pair(x, product(x)), None
    taken, exact, scale, steps = 1, True, 0.0, 0
    while True:
        value = _dot(now.x, now.hx)
        gradient = now.hx - value * now.x
        residual = _dot(gradient, gradient) ** 0.5
        scale = max(scale, _dot(now.hx, now.hx) ** 0.5)
        if not (isfinite(value) and isfinite(residual)):
            return Eigenvalue(
                value=nan, residual=nan, products=taken, converged=False, vector=now.x
            )
        enough = residual <= tolerance * abs(value) and taken >= min(_FIRST, iterations)
        enough = enough or residual <= rounding * scale
        if (enough and exact) or taken >= iterations:
            return Eigenvalue(
                value=value,
                residual=residual,
                products=taken,
                converged=enough and exact,
                vector=now.x,
            )
        if (enough or steps % _REFRESH == _REFRESH - 1) and not exact:
            now, last, exact = _Pair(now.x, product(now.x)), None if enough else last, True
            taken += 1
            continue
        direction = gradient / residual
        direction = direction - _dot(direction, now.x) * now.x
        direction = direction / _dot(direction, direction) ** 0.5
        now, last = _best([now, _Pair(direction, product(direction)), last])
        taken, steps, exact = taken + 1, steps + 1, False


def _best(span: list[_Pair | None]) -> tuple[_Pair, _Pair | None]:
    """Return the unit vector of the span with the largest quotient, and the step that led to it."""
    basis = [pair for pair in span[:2] if pair is not None]
    last = span[2]
    if last is not None:
        rest = last.unit()
        for pair in (*basis, *basis):  # twice: once leaves rounding behind
            rest = rest.without(pair)
        if _dot(rest.x, rest.x) > 1e-8:
            basis.append(rest.unit())
    table = [[_dot(a.x, b.hx) for b in basis] for a in basis]
    small = torch.tensor(table, dtype=torch.float64)
    weights = torch.linalg.eigh((small + small.T) / 2).eigenvectors[:, -1].tolist()
    step = _sum(basis[1:], weights[1:])
    now = _Pair(basis[0].x * weights[0] + step.x, basis[0].hx * weights[0] + step.hx).unit()
    return now, step if _dot(step.x, step.x) > 0.0 else None


def _sum(pairs: list[_Pair], weights: list[float]) -> _Pair:
    return _Pair(
        sum((w * p.x for w, p in zip(weights, pairs, strict=True)), torch.zeros(())),
        sum((w * p.hx for w, p in zip(weights, pairs, strict=True)), torch.zeros(())),
    )


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.dot(a.double(), b.double()))
