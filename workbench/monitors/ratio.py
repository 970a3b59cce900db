"""The ratio of two averages over blocks, with Fieller's interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

from .student import t_quantile
from .window import Block


@dataclass(frozen=True, slots=True)
class Moments:
    """Weighted means of ``x`` and ``y`` over blocks, and what their spread says of the error.

    Attributes:
        weight: Sum of the weights.
        x: Mean of ``x``.
        y: Mean of ``y``.
        xx: Variance of the mean of ``x``.
        xy: Covariance of the two means.
        yy: Variance of the mean of ``y``.
        dof: Effective number of blocks less one.
    """

    weight: float
    x: float
    y: float
    xx: float
    xy: float
    yy: float
    dof: float


def moments(blocks: Sequence[Block]) -> Moments:
    """Return the means over ``blocks`` and the covariance of their errors, from the blocks' spread.

    With weights ``w_j``, ``W = sum(w_j)``, block means ``x_j`` and ``h_j = w_j / W``:
    ``Var(mean x) = sum(h_j^2 (x_j - mean x)^2 / (1 - h_j))``, unbiased when a block's variance goes
    as ``1 / w_j``, and sound when it does not (MacKinnon and White 1985, the estimator "HC2").
    Taking blocks, not steps, counts the correlation of neighbouring steps in (batch means:
    Schmeiser 1982). ``dof = 1 / sum(h_j^2) - 1`` (Satterthwaite 1946).

    Args:
        blocks: Two or more.

    Example:
        >>> found = moments([(1.0, 1.0, 2.0, 1.0, *[0.0] * 3), (1.0, 1.0, 4.0, 1.0, *[0.0] * 3)])
        >>> found.x, found.y, found.xx, found.yy, found.dof
        (3.0, 1.0, 1.0, 0.0, 1.0)
    """
    weight = sum_x = sum_y = 0.0
    for _, w, x, y, _, _, _ in blocks:
        weight += w
        sum_x += x
        sum_y += y
    mean_x, mean_y = sum_x / weight, sum_y / weight
    xx = xy = yy = squares = 0.0
    for _, w, x, y, _, _, _ in blocks:
        share = w / weight
        error_x = x / weight - share * mean_x
        error_y = y / weight - share * mean_y
        rest = 1.0 - share
        xx += error_x * error_x / rest
        xy += error_x * error_y / rest
        yy += error_y * error_y / rest
        squares += share * share
    return Moments(weight, mean_x, mean_y, xx, xy, yy, 1.0 / squares - 1.0)


def fieller(found: Moments, level: float) -> tuple[float, float]:
    """Return the interval of ``E[x] / E[y]`` on the side where the point estimate lies.

    All ``r`` with ``(x - r y)^2 <= t^2 (xx - 2 r xy + r^2 yy)``, a quadratic in ``r`` (Fieller
    1954, "Some Problems in Interval Estimation", section 2). When ``y`` is not surely different
    from 0 the set is unbounded: above for a positive ``y``, hence an infinite upper end.

    Args:
        found: With ``y`` above 0.
        level: Confidence, between 0 and 1.

    Example:
        >>> fieller(Moments(9.0, 6.0, 2.0, 0.0, 0.0, 0.0, 8.0), 0.95)
        (3.0, 3.0)
        >>> low, high = fieller(Moments(9.0, 6.0, 2.0, 0.1, 0.0, 1.0, 8.0), 0.95)
        >>> round(low, 2), high
        (1.37, inf)
    """
    t = t_quantile(0.5 + 0.5 * level, max(found.dof, 0.5))
    # Relative errors: the quadratic then has no units, and neither overflows nor underflows.
    scale = max(abs(found.x), sqrt(found.xx)) or 1.0
    point = found.x / scale
    xx = t * t * (found.xx / scale / scale)
    xy = t * t * (found.xy / scale / found.y)
    yy = t * t * (found.yy / found.y / found.y)
    unit = scale / found.y
    a, b, c = 1.0 - yy, point - xy, point * point - xx
    inside = b * b - a * c
    if a > 0.0:
        root = sqrt(max(inside, 0.0))
        return (b - root) / a * unit, (b + root) / a * unit
    if a == 0.0:
        return (c / (2.0 * b) * unit if b > 0.0 else -inf), inf
    low = (b - sqrt(inside)) / a if inside >= 0.0 else -inf
    return (low * unit if low <= point else -inf), inf
