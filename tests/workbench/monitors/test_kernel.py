"""Kernels see through the drift that they are made for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.monitors.kernel import CURVE, LINE, MEAN, kernel
from workbench.monitors.pieces import Piece

LEVELS = st.lists(st.floats(0.2, 5.0), min_size=4, max_size=8)


def equal(count: int) -> list[Piece]:
    return [
        Piece(8.0, -(j + 0.5) / count, 1 / count, 1.0, 1.0, 0.0, 0.0, 0.0) for j in range(count)
    ]


@given(LEVELS, st.sampled_from([LINE, CURVE]))
@settings(deadline=None, max_examples=100)
def test_a_drift_of_the_degree_drops_out(level: list[float], degree: int) -> None:
    found = equal(len(level))
    weights = kernel(found, level, degree)
    for power in range(degree + 1):
        left = sum(v * c * p.middle**power for v, c, p in zip(weights, level, found, strict=True))
        assert left == pytest.approx(1.0 if power == 0 else 0.0, abs=1e-7)


@pytest.mark.parametrize(("degree", "factor"), [(MEAN, 1.0), (LINE, 4.0), (CURVE, 9.0)])
def test_the_price_of_seeing_through_a_drift(degree: int, factor: float) -> None:
    weights = kernel(equal(64), [1.0] * 64, degree)
    assert 64 * sum(v * v for v in weights) == pytest.approx(factor, rel=0.01)


def test_too_few_pieces_for_a_degree_give_their_mean() -> None:
    assert kernel(equal(2), [1.0, 1.0], CURVE) == [0.5, 0.5]
    assert kernel(equal(1), [1.0], LINE) == [1.0]


def test_a_piece_with_nearly_all_of_the_weight_gives_the_mean() -> None:
    heavy = [piece._replace(share=1e-200) for piece in equal(8)]
    heavy[0] = heavy[0]._replace(share=1.0)
    assert kernel(heavy, [1.0] * 8, CURVE) == [piece.share for piece in heavy]
