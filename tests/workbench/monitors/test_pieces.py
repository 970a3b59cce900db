"""Pieces of a window hold its steps, and errors that a drift leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.monitors.pieces import past, pieces
from workbench.monitors.window import Window, push

STEPS = st.lists(
    st.tuples(st.floats(0.1, 10), st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=300
)


def filled(steps: list[tuple[float, float, float]]) -> Window:
    window = Window()
    for weight, x, y in steps:
        window = push(window, weight, x, y)
    return window


@given(STEPS, st.integers(1, 12))
@settings(deadline=None, max_examples=80)
def test_pieces_together_are_the_window(
    steps: list[tuple[float, float, float]], count: int
) -> None:
    found = past(filled(steps).blocks)
    made = pieces(found, len(found.steps) - 1, count)
    weight = sum(w for w, _, _ in steps)
    assert 1 <= len(made) <= count
    assert sum(piece.steps for piece in made) == len(steps)
    assert sum(piece.share for piece in made) == pytest.approx(1.0)
    mean = sum(piece.share * piece.x for piece in made)
    assert mean == pytest.approx(sum(w * x for w, x, _ in steps) / weight, abs=1e-9)
    middles = [piece.middle for piece in made]
    assert middles == sorted(middles, reverse=True)
    assert all(-1.0 <= middle <= 0.0 for middle in middles)
    assert all(piece.xx >= 0.0 <= piece.yy for piece in made)


@pytest.mark.parametrize("count", [16, 20, 63, 100, 257, 1000, 5000])
def test_eight_pieces_of_a_long_window_are_about_equal(count: int) -> None:
    found = past(filled([(1.0, 0.0, 1.0)] * count).blocks)
    made = pieces(found, len(found.steps) - 1, 8)
    assert len(made) == 8
    assert max(piece.steps for piece in made) <= 2.5 * count / 8
    assert min(piece.steps for piece in made) >= 0.4 * count / 8


def test_the_error_of_a_mean_is_that_of_its_noise_whatever_the_drift() -> None:
    rng = np.random.default_rng(0)
    drift = np.linspace(0.0, 30.0, 2000)
    found = past(filled([(2.0, float(x), 1.0) for x in drift + rng.standard_normal(2000)]).blocks)
    for piece in pieces(found, len(found.steps) - 1, 4):
        assert piece.xx == pytest.approx(1.0 / piece.steps, rel=0.2)


def test_newest_takes_no_block_more_than_asked_for() -> None:
    found = past(filled([(1.0, 0.0, 1.0)] * 300).blocks)
    for wanted in (1, 16, 100, 299):
        held = found.newest(wanted)
        assert found.steps[held] <= wanted < found.steps[held + 1]
    assert found.newest(301) == len(found.steps) - 1
    assert found.newest(0.5) == 1
