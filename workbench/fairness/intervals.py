"""Intervals that hold for small groups, and the quantiles that make many of them hold at once.

Everything here is a short function of arrays: no table, no group names, no state. ``z`` is always a
two-sided normal quantile (1.96 for 95 %), so that the same interval serves one group, the worst of
``K`` groups (:func:`each_group_quantile`) and all pairs of ``K`` groups
(:func:`all_pairs_quantile`).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Interval = tuple[Floats, Floats]


@cache
def one_group_quantile(level: float) -> float:
    """Return ``z`` with ``P(|Z| <= z) = level`` for a standard normal ``Z``.

    Example:
        >>> round(one_group_quantile(0.95), 3)
        1.96
    """
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


@cache
def each_group_quantile(groups: int, level: float) -> float:
    """Return ``z`` with which the intervals of all ``groups`` hold together at ``level``.

    ``z = Phi^-1((1 + level^(1/K)) / 2)`` (Sidak 1967): exact for independent groups, and disjoint
    groups of rows are.

    Example:
        >>> round(each_group_quantile(10, 0.95), 3)
        2.8
    """
    return one_group_quantile(level ** (1 / max(groups, 1)))


@cache
def all_pairs_quantile(groups: int, level: float) -> float:
    """Return ``z`` with which the differences of all pairs of ``groups`` hold together at ``level``.

    ``z = q(level; K, inf) / sqrt(2)``, ``q`` the quantile of the studentized range (Tukey 1953;
    Kramer 1956 for unequal sizes; Hayter 1984: never below ``level`` for unequal sizes). For two
    groups it is the usual 1.96; fewer than two groups are treated as two.

    Example:
        >>> round(all_pairs_quantile(2, 0.95), 2), round(all_pairs_quantile(40, 0.95), 2)
        (1.96, 3.89)
    """
    import numpy as np
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, max(groups, 2), np.inf) / 2**0.5)


def wilson(successes: Floats, trials: Floats, z: float) -> Interval:
    """Return the score interval of a proportion (Wilson 1927).

    ``(k + z^2/2) / (n + z^2)  ±  z / (n + z^2) * sqrt(k (n - k) / n + z^2 / 4)``. It covers for
    small ``n`` and does not collapse at 0 or 1. NaN where ``trials`` is 0.

    Args:
        successes: Counts ``k``, ``0 <= k <= n``.
        trials: Counts ``n``.
        z: Two-sided normal quantile, above 0.

    Example:
        >>> import numpy as np
        >>> low, high = wilson(np.array([2.0]), np.array([2.0]), 1.96)
        >>> print(f"{low[0]:.3f} {high[0]:.3f}")
        0.342 1.000
    """
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        centre = (successes + z * z / 2) / (trials + z * z)
        half = np.sqrt(successes * (trials - successes) / trials + z * z / 4) * z / (trials + z * z)
    low = np.where(successes == 0, 0.0, np.clip(centre - half, 0.0, 1.0))
    high = np.where(successes == trials, 1.0, np.clip(centre + half, 0.0, 1.0))
    empty = trials == 0
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def clopper_pearson(successes: Floats, trials: Floats, z: float) -> Interval:
    """Return the exact interval of a proportion (Clopper and Pearson 1934): never below its level.

    ``low`` is the ``a/2`` quantile of ``Beta(k, n - k + 1)``, ``high`` the ``1 - a/2`` quantile of
    ``Beta(k + 1, n - k)``, with ``a`` the two-sided probability beyond ``z``. NaN where ``trials``
    is 0.

    Example:
        >>> import numpy as np
        >>> low, high = clopper_pearson(np.array([2.0]), np.array([2.0]), 1.959964)
        >>> print(f"{low[0]:.3f} {high[0]:.3f}")
        0.158 1.000
    """
    import numpy as np
    from scipy.special import betaincinv, ndtr

    tail = float(ndtr(-z))
    failures = trials - successes
    low = betaincinv(np.maximum(successes, 1), failures + 1, tail)
    high = betaincinv(successes + 1, np.maximum(failures, 1), 1 - tail)
    low, high = np.where(successes == 0, 0.0, low), np.where(failures == 0, 1.0, high)
    empty = trials == 0
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def area_interval(area: Floats, positives: Floats, negatives: Floats, z: float) -> Interval:
    """Return the score-type interval of an area under the ROC curve (Newcombe 2006, method 5).

    The two solutions ``t`` of ``(t - area)^2 = z^2 V(t)`` with Hanley and McNeil's variance,
    ``V(t) = t (1 - t) [1 + N ((1 - t)/(2 - t) + t/(1 + t))] / (m n)``, ``N = (m + n)/2 - 1``.
    Like Wilson's it does not collapse at 0 or 1. NaN where a class is absent.

    Example:
        >>> import numpy as np
        >>> low, high = area_interval(np.array([1.0]), np.array([5.0]), np.array([5.0]), 1.96)
        >>> print(f"{low[0]:.3f} {high[0]:.3f}")
        0.643 1.000
    """
    import numpy as np

    def excess(t: Floats) -> Floats:
        larger = (positives + negatives) / 2 - 1
        spread = 1 + larger * ((1 - t) / (2 - t) + t / (1 + t))
        variance = t * (1 - t) * spread / (positives * negatives)
        return np.asarray((t - area) ** 2 - z * z * variance)

    def root(outer: Floats, inner: Floats) -> Floats:
        for _ in range(60):  # bisection: 2^-60 of [0, 1]
            middle = (outer + inner) / 2
            outside = excess(middle) > 0
            outer, inner = np.where(outside, middle, outer), np.where(outside, inner, middle)
        return inner

    with np.errstate(invalid="ignore", divide="ignore"):
        low = np.where(area == 0, 0.0, root(np.zeros_like(area), area))
        high = np.where(area == 1, 1.0, root(np.ones_like(area), area))
    empty = np.isnan(area)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def mean_interval(mean: Floats, deviation: Floats, count: Floats, z: float) -> Interval:
    """Return Student's interval of a mean: ``mean ± t(count - 1) * deviation / sqrt(count)``.

    ``t`` has the two-sided probability of ``z``. The interval is unbounded where the spread cannot
    be estimated: fewer than two values, or all equal. NaN where there is no value.

    Example:
        >>> import numpy as np
        >>> low, high = mean_interval(np.array([1.0]), np.array([2.0]), np.array([16.0]), 1.96)
        >>> print(f"{low[0]:.2f} {high[0]:.2f}")
        -0.07 2.07
    """
    import numpy as np
    from scipy.special import ndtr, stdtrit

    known = (count >= 2) & (deviation > 0)
    quantile = stdtrit(np.maximum(count - 1, 1), ndtr(z))
    half = np.where(known, quantile * deviation / np.sqrt(np.maximum(count, 1)), np.inf)
    half = np.where(count == 0, np.nan, half)
    return mean - half, mean + half


def difference_interval(first: Floats, a: Interval, second: Floats, b: Interval) -> Interval:
    """Return the interval of ``first - second`` from the intervals ``a`` and ``b`` of each.

    Square-and-add (Newcombe 1998, method 10; Zou and Donner 2008):
    ``low = d - sqrt((first - a_low)^2 + (b_high - second)^2)`` and ``high`` likewise. Arrays
    broadcast.

    Example:
        >>> import numpy as np
        >>> one, two = np.array([56.0]), np.array([48.0])
        >>> n, m = np.array([70.0]), np.array([80.0])  # Newcombe 1998, table II (a): 56/70, 48/80
        >>> low, high = difference_interval(one / n, wilson(one, n, 1.95996),
        ...                                 two / m, wilson(two, m, 1.95996))
        >>> print(f"{low[0]:.4f} {high[0]:.4f}")
        0.0524 0.3339
    """
    import numpy as np

    gap = first - second
    below = np.sqrt((first - a[0]) ** 2 + (b[1] - second) ** 2)
    above = np.sqrt((a[1] - first) ** 2 + (second - b[0]) ** 2)
    return gap - below, gap + above


def ratio_interval(top: Floats, a: Interval, bottom: Floats, b: Interval) -> Interval:
    """Return the interval of ``top / bottom`` from the intervals ``a`` and ``b`` of each.

    The ratio form of square-and-add (Donner and Zou 2012, equation 9), written so that nothing is
    divided by a difference that can vanish. Values are 0 or more; NaN where ``bottom`` is 0.
    ``high`` is infinite where ``b`` reaches 0.

    Example:
        >>> import numpy as np
        >>> black, white = np.array([9.0]), np.array([41.0])
        >>> low, high = ratio_interval(black / 27, wilson(black, np.array([27.0]), 1.96),
        ...                            white / 68, wilson(white, np.array([68.0]), 1.96))
        >>> print(f"{low[0]:.2f} {high[0]:.2f}")
        0.30 0.91
    """
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        product = top * bottom
        falls = a[0] * (2 * top - a[0])
        rises = a[1] * (2 * top - a[1])
        high_side = b[1] * (2 * bottom - b[1])
        low_side = b[0] * (2 * bottom - b[0])
        low = falls / (product + np.sqrt(np.maximum(product**2 - falls * high_side, 0)))
        high = (product + np.sqrt(np.maximum(product**2 - rises * low_side, 0))) / low_side
        low = np.where(top == 0, 0.0, low)
    empty = bottom == 0
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)
