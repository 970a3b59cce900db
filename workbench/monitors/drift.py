"""How far back the past still lies on one line with the present."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from .pieces import Past, Piece, past, pieces
from .student import t_quantile
from .window import Blocks

FIRST_STEPS = 16
"""The shortest window."""

FALSE_ALARM = 0.001
"""Chance that one comparison shortens the window of a past that has not changed."""

LONGEST_REACH = 1.5
"""Change of the logarithm of the ratio over a window, beyond which a line is no longer trusted."""

ALL_OF_IT = 0.875
"""A window of this share of the past or more is the whole past."""

_QUARTERS = 4
_CLEAR = 4.0
_LEAST_SCALE = 0.05
_ROUNDING = 1e-18
_SHARED = 8.0


class Scale(NamedTuple):
    """The means of a window, and the units that make its numbers relative.

    Attributes:
        x: Mean of ``x`` in its unit: 1, -1 or less in size.
        y: Mean of ``y`` in its unit, 0 where it is negative.
        unit_x: Unit of ``x``.
        unit_y: Unit of ``y``.
        trust_x: How clear the mean of ``x`` is of 0, from 0 to 1; 0 for what may change its sign.
        trust_y: The same of ``y``.
    """

    x: float
    y: float
    unit_x: float
    unit_y: float
    trust_x: float
    trust_y: float


class Line(NamedTuple):
    """A line through the pieces of a window.

    Attributes:
        misfit: Squared distance of the pieces from it, in their errors.
        slope: By how much the logarithm of the ratio changes over the window.
        error: Standard error of ``slope``.
    """

    misfit: float
    slope: float
    error: float


def scale_of(found: Sequence[Piece], positive: bool) -> Scale:
    """Return the means of the pieces together, and the units of the window.

    Example:
        >>> piece = Piece(8.0, -0.5, 1.0, 6.0, 2.0, 0.0, 0.0, 0.0)
        >>> scale_of([piece], True)
        Scale(x=1.0, y=1.0, unit_x=6.0, unit_y=2.0, trust_x=1.0, trust_y=1.0)
    """
    x = y = xx = yy = 0.0
    for _, _, share, piece_x, piece_y, piece_xx, _, piece_yy in found:
        x += share * piece_x
        y += share * piece_y
        xx += share * share * piece_xx
        yy += share * share * piece_yy
    unit_x = abs(x) or sqrt(xx) or 1.0
    unit_y = max(y, 0.0) or sqrt(yy) or 1.0
    trust_x = max(1.0 - _CLEAR * (xx / unit_x / unit_x), 0.0) if positive and x > 0.0 else 0.0
    trust_y = max(1.0 - _CLEAR * (yy / unit_y / unit_y), 0.0) if y > 0.0 else 0.0
    return Scale(x / unit_x, max(y, 0.0) / unit_y, unit_x, unit_y, trust_x, trust_y)


def levels(found: Sequence[Piece], scale: Scale) -> list[float]:
    """Return how large ``x`` and ``y`` together are in each piece, 1 on average.

    A loss that falls by ten makes both fall by a hundred and leaves their ratio alone. The level
    is the mean of the two relative to their averages: with it, what the ratio of a straight
    window adds in ``x`` it takes from ``y``, and the curvature of the logarithm cancels.
    """
    together = scale.trust_x + scale.trust_y
    if together < 0.1:
        return [1.0] * len(found)
    of_x = scale.trust_x / together / (scale.x * scale.unit_x or 1.0)
    of_y = scale.trust_y / together / (scale.y * scale.unit_y or 1.0)
    return [max(of_x * piece.x + of_y * piece.y, _LEAST_SCALE) for piece in found]


def gaps(found: Sequence[Piece], scale: Scale) -> tuple[list[float], list[float]]:
    """Return ``z = Y x - X y`` of each piece in relative units, and its variance.

    ``X`` and ``Y`` are the means of the window: ``z`` is 0 on average where the ratio is theirs.
    """
    p, q = scale.x / scale.unit_y, scale.y / scale.unit_x
    pp, pq, qq = p * p, 2.0 * p * q, q * q
    values = [q * piece.x - p * piece.y for piece in found]
    errors = [
        max(qq * piece.xx - pq * piece.xy + pp * piece.yy, 0.0) + _ROUNDING for piece in found
    ]
    return values, errors


def line(found: Sequence[Piece], scale: Scale) -> Line:
    """Fit ``z = level (a + b t)`` by least squares, pieces weighed by their errors.

    With ``x / y = R e^(b t)`` and ``z``, ``level`` as above ``z / level = 2 tanh(b t / 2)``: straight
    to the third order of the change over the window.
    """
    level = levels(found, scale)
    values, errors = gaps(found, scale)
    steps = sum(piece.steps for piece in found)
    common = sum(
        piece.steps * piece.share * e for piece, e in zip(found, errors, strict=True)
    ) / steps  # fmt: skip
    a11 = a12 = a22 = b1 = b2 = zz = 0.0
    for piece, c, z, e in zip(found, level, values, errors, strict=True):
        # A few steps know their own variance badly: they share in that of the whole window.
        own = (piece.steps * e + _SHARED * common / piece.share) / (piece.steps + _SHARED)
        g = 1.0 / own
        c2 = c * piece.middle
        a11 += g * c * c
        a12 += g * c * c2
        a22 += g * c2 * c2
        b1 += g * c * z
        b2 += g * c2 * z
        zz += g * z * z
    rest = a11 * a22 - a12 * a12
    if rest <= 0.0:
        return Line(0.0, 0.0, 0.0)
    start, slope = (a22 * b1 - a12 * b2) / rest, (a11 * b2 - a12 * b1) / rest
    size = max(abs(scale.x) * scale.y, 1e-9)
    return Line(max(zz - start * b1 - slope * b2, 0.0), slope / size, sqrt(a11 / rest) / size)


def recent(blocks: Blocks, *, false_alarm: float = FALSE_ALARM, positive: bool = True) -> Blocks:
    """Return the newest blocks that lie on one line: see :func:`longest`.

    Example:
        >>> from .window import Window, push
        >>> window = Window()
        >>> for step in range(512):
        ...     noise = 0.1 * ((step * 7) % 5 - 2)
        ...     window = push(window, 1.0, (1.0 if step < 384 else 5.0) + noise, 1.0)
        >>> int(sum(block[0] for block in recent(window.blocks)))
        128
    """
    held = longest(past(blocks), false_alarm=false_alarm, positive=positive)
    return blocks[len(blocks) - held :]


def longest(found: Past, *, false_alarm: float = FALSE_ALARM, positive: bool = True) -> int:
    """Return how many of the newest blocks lie on one line: the longest window that does.

    Windows of 16, 32, 64 ... steps and the whole past are tried, until one fails (Lepski 1990). A
    window fails when its quarters lie off a line by more than their errors allow: the F test of two
    constraints, ``F > nu/2 (alpha^(-2/nu) - 1)`` with ``nu = 2 steps / 3`` (the degrees of freedom of
    neighbours' differences: von Neumann 1941). Or when it surely rises or falls by a factor of
    more than ``e^1.5``, over which a line is a poor copy of any curve. Nothing is deleted, so that
    a false alarm is over at the next estimate.

    Args:
        found: Sums over the blocks.
        false_alarm: Chance of each of the about ``log2(steps / 16)`` comparisons to fail for nothing.
        positive: Whether ``x`` and ``y`` are positive by nature, so that their ratio has a logarithm.

    Example:
        >>> blocks = ((1.0, 1.0, 3.0, 1.0, 0.5, 0.0, 0.0),) * 12
        >>> longest(past(blocks))
        12
    """
    last = len(found.steps) - 1
    whole, wanted, held = ALL_OF_IT * found.steps[last], FIRST_STEPS, 0
    while True:
        tried = found.newest(wanted) if wanted < whole else last
        if held and _fails(found, tried, false_alarm, positive):
            return held
        held = tried
        if held == last:
            return held
        wanted *= 2


def _fails(found: Past, held: int, false_alarm: float, positive: bool) -> bool:
    quarters = pieces(found, held, _QUARTERS)
    scale = scale_of(quarters, positive)
    fit = line(quarters, scale)
    dof = 2.0 / 3.0 * found.steps[held]
    if len(quarters) == _QUARTERS and fit.misfit > dof * (false_alarm ** (-2.0 / dof) - 1.0):
        return True
    if not scale.trust_x * scale.trust_y or abs(fit.slope) <= LONGEST_REACH:
        return False
    return abs(fit.slope) > t_quantile(1.0 - 0.5 * false_alarm, dof) * fit.error
