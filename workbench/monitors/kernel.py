"""Weights of the pieces of a window that look at its end, not at its middle."""

from __future__ import annotations

from collections.abc import Sequence

from .pieces import Piece

MEAN, LINE, CURVE = 0, 1, 2
"""Degrees of the drift that a kernel sees through: none, a line, a parabola."""

_SINGULAR = 1e-9


def kernel(found: Sequence[Piece], level: Sequence[float], degree: int) -> list[float]:
    """Return one weight a piece, so that a drift of ``degree`` drops out of the weighted ratio.

    With shares ``h_j``, levels ``c_j`` and middles ``t_j`` (0 is the present), the weights are
    ``v_j = h_j (a + b t_j + d t_j^2)`` such that ``sum(v_j c_j) = 1``, ``sum(v_j c_j t_j) = 0``, and
    for a parabola ``sum(v_j c_j t_j^2) = 0``: local polynomial regression at the end point
    (Fan and Gijbels 1996, sections 2.2 and 3.2.4), with the same weights for numerator and
    denominator. Without a drift the variance of the estimate is 1, 4 and 9 times that of a mean.

    Example:
        >>> flat = [Piece(4.0, -0.125 - 0.25 * j, 0.25, 1.0, 1.0, 0.0, 0.0, 0.0) for j in range(4)]
        >>> [round(v, 3) for v in kernel(flat, [1.0] * 4, LINE)]
        [0.85, 0.45, 0.05, -0.35]
    """
    if degree == MEAN or len(found) <= degree:
        return [piece.share for piece in found]
    m0 = m1 = m2 = m3 = m4 = 0.0
    for piece, c in zip(found, level, strict=True):
        t = piece.middle
        m0 += (moment := piece.share * c)
        m1 += (moment := moment * t)
        m2 += (moment := moment * t)
        m3 += (moment := moment * t)
        m4 += moment * t
    if degree == LINE:
        a, b, d = m2, -m1, 0.0
    else:
        a, b, d = m2 * m4 - m3 * m3, m2 * m3 - m1 * m4, m1 * m3 - m2 * m2
    whole = a * m0 + b * m1 + d * m2
    if not whole > _SINGULAR * (m0 * m2 if degree == LINE else m0 * m2 * m4):
        return kernel(found, level, degree - 1)  # one piece has nearly all of the weight
    a, b, d = a / whole, b / whole, d / whole
    return [p.share * (a + p.middle * (b + p.middle * d)) for p in found]
