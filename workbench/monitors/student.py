"""Quantiles of Student's t for any real number of degrees of freedom, by the standard library."""

from __future__ import annotations

from functools import lru_cache
from math import exp, floor, inf, isfinite, lgamma, log, log1p, log2, pi, sqrt
from statistics import NormalDist

_NORMAL_FROM = 1e5


def t_quantile(probability: float, dof: float) -> float:
    """Return the quantile of Student's t.

    ``dof`` is rounded down (to a quarter below 16, by at most a fourth above), so that quantiles
    can be remembered; this widens an interval by 2 % at most and never narrows it.

    Equation: ``P(|T| > t) = I_x(dof / 2, 1 / 2)`` with ``x = dof / (dof + t^2)`` and ``I`` the
    regularised incomplete beta function. Source: Abramowitz and Stegun 1964, 26.5.8 and 26.7.1.

    Args:
        probability: Between 0 and 1, both excluded.
        dof: Degrees of freedom, at least 0.5; infinity gives the normal quantile.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> round(t_quantile(0.975, 10), 3), round(t_quantile(0.5, 3), 3)
        (2.228, 0.0)
    """
    if not 0.0 < probability < 1.0:
        raise ValueError(f"probability is {probability}; allowed: above 0 and below 1")
    if not dof >= 0.5:
        raise ValueError(f"dof is {dof}; allowed: 0.5 or more")
    return _quantile(probability, _rounded(dof))


def _rounded(dof: float) -> float:
    if dof < 16.0:
        return floor(4.0 * dof) / 4.0
    return 2.0 ** (floor(4.0 * log2(dof)) / 4.0) if dof < _NORMAL_FROM else inf


@lru_cache(maxsize=4096)
def _quantile(probability: float, dof: float) -> float:
    if not isfinite(dof) or dof > _NORMAL_FROM:
        return NormalDist().inv_cdf(probability)
    if probability < 0.5:
        return -_quantile(1.0 - probability, dof)
    tails = 2.0 * (1.0 - probability)
    if tails >= 1.0:
        return 0.0
    low, high, t = 0.0, inf, _first_guess(probability, dof)
    for _ in range(200):  # Newton's steps, held inside a bracket by bisection
        excess = _two_tails(t, dof) - tails
        low, high = (t, high) if excess > 0.0 else (low, t)
        following = t + 0.5 * excess / _density(t, dof)
        if not low < following < high:
            following = 0.5 * (low + high) if high < inf else 2.0 * t
        if abs(following - t) <= 1e-9 * t:  # the error is squared by the step just taken
            return following
        t = following
    return t


def _first_guess(probability: float, dof: float) -> float:
    """Return the first terms of the expansion in 1 / dof (Abramowitz and Stegun 1964, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    zz = z * z
    one = 0.25 * z * (zz + 1.0)
    two = z * (3.0 + zz * (16.0 + 5.0 * zz)) / 96.0
    return z + (one + two / dof) / dof


def _density(t: float, dof: float) -> float:
    front = exp(lgamma(0.5 * (dof + 1.0)) - lgamma(0.5 * dof)) / sqrt(dof * pi)
    return front * exp(-0.5 * (dof + 1.0) * log1p(t * t / dof))


def _two_tails(t: float, dof: float) -> float:
    """Return ``P(|T| > t)``."""
    square = t * t
    return _beta(dof / (dof + square), square / (dof + square), 0.5 * dof, 0.5)


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """Return ``I_x(a, b)``; ``rest`` is ``1 - x`` without the loss of digits."""
    if x <= 0.0 or rest <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(rest))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(rest, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c = 1.0
    d = 1.0 / ((1.0 - (a + b) * x / (a + 1.0)) or tiny)
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / ((1.0 + term * d) or tiny)
            c = (1.0 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value
