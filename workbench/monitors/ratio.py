"""The ratio of two averages, with Fieller's interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

from .drift import levels, scale_of
from .kernel import LINE, kernel
from .pieces import PIECES, Piece, past, pieces
from .student import t_quantile
from .window import Blocks


@dataclass(frozen=True, slots=True)
class Moments:
    """Weighted means of ``x`` and ``y``, and their sampling error.

    Attributes:
        x: Weighted mean of ``x``.
        y: Weighted mean of ``y``.
        xx: Variance of the mean of ``x``.
        xy: Covariance of the two means.
        yy: Variance of the mean of ``y``.
        dof: Degrees of freedom of the error.
    """

    x: float
    y: float
    xx: float
    xy: float
    yy: float
    dof: float


def weighted(found: Sequence[Piece], weights: Sequence[float]) -> Moments:
    """Return the means of the pieces with ``weights``, and the covariance of their errors.

    The errors come from neighbouring steps' differences, of which ``n`` are worth ``2n/3`` degrees
    of freedom (von Neumann 1941); pieces are joined as by Satterthwaite (1946), on the error of
    ``Y x - X y``.

    Example:
        >>> one = Piece(9.0, -0.25, 0.5, 2.0, 1.0, 0.5, 0.0, 0.0)
        >>> other = Piece(9.0, -0.75, 0.5, 4.0, 1.0, 0.5, 0.0, 0.0)
        >>> weighted([one, other], [0.5, 0.5])
        Moments(x=3.0, y=1.0, xx=0.25, xy=0.0, yy=0.0, dof=14.0)
    """
    x = y = xx = xy = yy = 0.0
    for piece, v in zip(found, weights, strict=True):
        x += v * piece.x
        y += v * piece.y
        vv = v * v
        xx += vv * piece.xx
        xy += vv * piece.xy
        yy += vv * piece.yy
    unit_x, unit_y = max(abs(x), sqrt(xx)) or 1.0, max(abs(y), sqrt(yy)) or 1.0
    p, q = y / unit_y / unit_x, x / unit_x / unit_y
    pp, pq, qq = p * p, 2.0 * p * q, q * q
    whole = squares = 0.0
    for piece, v in zip(found, weights, strict=True):
        error = v * v * (pp * piece.xx - pq * piece.xy + qq * piece.yy)
        whole += error
        squares += error * error / (piece.steps / 1.5 + 2.0)
    dof = whole * whole / squares - 2.0 if squares > 0.0 else inf
    return Moments(x, y, xx, xy, yy, max(dof, 1.0))


def moments(blocks: Blocks, *, degree: int = LINE, positive: bool = True) -> Moments:
    """Return ``x`` and ``y`` at the end of ``blocks``, whatever drift of ``degree`` is in them.

    Example:
        >>> blocks = ((1.0, 1.0, 3.0, 2.0, 0.0, 0.0, 0.0),) * 8
        >>> found = moments(blocks)
        >>> round(found.x, 12), round(found.y, 12)
        (3.0, 2.0)
    """
    found = pieces(past(blocks), len(blocks), PIECES)
    weights = kernel(found, levels(found, scale_of(found, positive)), degree)
    return weighted(found, weights)


def fieller(found: Moments, level: float) -> tuple[float, float]:
    """Return the interval of ``E[x] / E[y]`` on the side where the point estimate lies.

    All ``r`` with ``(x - r y)^2 <= t^2 (xx - 2 r xy + r^2 yy)``, a quadratic in ``r`` (Fieller
    1954, "Some Problems in Interval Estimation", section 2). When ``y`` is not surely different
    from 0 the set is unbounded: above for a positive ``y``, hence an infinite upper end.

    Args:
        found: Means and their errors; ``y`` may be 0 or negative.
        level: Confidence, between 0 and 1.

    Example:
        >>> fieller(Moments(6.0, 2.0, 0.0, 0.0, 0.0, 8.0), 0.95)
        (3.0, 3.0)
        >>> low, high = fieller(Moments(6.0, 2.0, 0.1, 0.0, 1.0, 8.0), 0.95)
        >>> round(low, 2), high
        (1.37, inf)
    """
    t = t_quantile(0.5 + 0.5 * level, max(found.dof, 0.5))
    # Relative errors: the quadratic then has no units, and neither overflows nor underflows.
    unit_x = max(abs(found.x), sqrt(found.xx)) or 1.0
    unit_y = max(abs(found.y), sqrt(found.yy)) or 1.0
    x, y, unit = found.x / unit_x, found.y / unit_y, unit_x / unit_y
    xx = t * t * (found.xx / unit_x / unit_x)
    xy = t * t * (found.xy / unit_x / unit_y)
    yy = t * t * (found.yy / unit_y / unit_y)
    a, b, c = y * y - yy, x * y - xy, x * x - xx
    inside = b * b - a * c
    if a > 0.0 and y > 0.0:
        root = sqrt(max(inside, 0.0))
        return (b - root) / a * unit, (b + root) / a * unit
    if a >= 0.0 or c <= 0.0 or x <= 0.0:
        return -inf, inf
    return (b - sqrt(inside)) / a * unit, inf
