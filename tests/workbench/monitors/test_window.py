"""The blocks hold all steps, in logarithmic space."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.codec import from_json, to_json
from workbench.monitors.window import PER_SIZE, Window, merge, push

STEPS = st.lists(
    st.tuples(st.floats(0.1, 10), st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=300
)


def _filled(steps: list[tuple[float, float, float]]) -> Window:
    window = Window()
    for weight, x, y in steps:
        window = push(window, weight, x, y)
    return window


@given(STEPS)
@settings(deadline=None, max_examples=60)
def test_sums_are_those_of_all_steps(steps: list[tuple[float, float, float]]) -> None:
    blocks = _filled(steps).blocks
    assert sum(block[0] for block in blocks) == len(steps)
    assert sum(block[1] for block in blocks) == pytest.approx(sum(w for w, _, _ in steps))
    assert sum(block[2] for block in blocks) == pytest.approx(
        sum(w * x for w, x, _ in steps), abs=1e-9
    )
    assert sum(block[3] for block in blocks) == pytest.approx(
        sum(w * y for w, _, y in steps), abs=1e-9
    )


@given(STEPS)
@settings(deadline=None, max_examples=60)
def test_sizes_are_powers_of_two_that_shrink_towards_the_present(
    steps: list[tuple[float, float, float]],
) -> None:
    sizes = [block[0] for block in _filled(steps).blocks]
    assert sizes == sorted(sizes, reverse=True)
    assert all(log2(size).is_integer() for size in sizes)
    assert all(sizes.count(size) <= PER_SIZE for size in set(sizes))


def test_memory_grows_with_the_logarithm_of_the_steps() -> None:
    window = Window()
    for _ in range(20_000):
        window = push(window, 1.0, 1.0, 1.0)
    assert window.steps == 20_000
    assert len(window.blocks) <= PER_SIZE * (log2(20_000 / PER_SIZE) + 1)


def test_neighbours_differences_measure_the_noise_and_not_the_drift() -> None:
    window = Window()
    for step in range(4000):
        noise = 1.0 if step % 2 else -1.0  # differences of 2: (2^2) / (1 + 1) = 2 a step
        window = push(window, 1.0, 0.001 * step + noise, 1.0)
    per_step = sum(block[4] for block in window.blocks) / window.steps
    assert per_step == pytest.approx(2.0, rel=0.01)


@given(STEPS)
@settings(deadline=None, max_examples=30)
def test_a_window_survives_the_codec_bit_for_bit(steps: list[tuple[float, float, float]]) -> None:
    window = _filled(steps)
    assert from_json(Window, to_json(window)) == window


def _totals(window: Window) -> list[float]:
    return [sum(block[i] for block in window.blocks) for i in range(4)]


@given(STEPS, STEPS)
@settings(deadline=None, max_examples=60)
def test_merged_stretches_have_the_sums_of_one_run(
    older: list[tuple[float, float, float]], newer: list[tuple[float, float, float]]
) -> None:
    both, one = merge(_filled(older), _filled(newer)), _filled([*older, *newer])
    assert both.steps == one.steps
    assert both.last == one.last
    assert _totals(both) == pytest.approx(_totals(one), abs=1e-9)


@given(STEPS, STEPS, STEPS)
@settings(deadline=None, max_examples=60)
def test_merging_keeps_the_shape_and_can_go_on(
    older: list[tuple[float, float, float]],
    newer: list[tuple[float, float, float]],
    following: list[tuple[float, float, float]],
) -> None:
    window = merge(_filled(older), _filled(newer))
    for weight, x, y in following:
        window = push(window, weight, x, y)
    sizes = [2.0 ** int(log2(block[0])) for block in window.blocks]
    assert sizes == sorted(sizes, reverse=True)
    assert all(sizes.count(size) <= PER_SIZE for size in set(sizes))
    assert sum(block[0] for block in window.blocks) == window.steps
    assert window.steps == len(older) + len(newer) + len(following)


@given(STEPS)
@settings(deadline=None, max_examples=30)
def test_merging_with_nothing_changes_nothing(steps: list[tuple[float, float, float]]) -> None:
    window = _filled(steps)
    assert merge(window, Window()) == window
    assert merge(Window(), window) == window


def test_merging_loses_one_difference_and_no_more() -> None:
    """Without the seam both halves estimate one and the same noise."""
    steps = [(1.0, float((7 * step) % 11), 1.0) for step in range(400)]
    halves = merge(_filled(steps[:200]), _filled(steps[200:]))
    one = _filled(steps)
    seam = 0.5 * (steps[200][1] - steps[199][1]) ** 2
    first = 0.5 * (steps[201][1] - steps[200][1]) ** 2  # counts for two, since it is a first one
    noise, of_one = (sum(block[4] for block in each.blocks) for each in (halves, one))
    assert noise == pytest.approx(of_one - seam + first)


@given(STEPS, STEPS, st.floats(0.1, 10))
@settings(deadline=None, max_examples=30)
def test_weights_in_other_units_are_made_comparable(
    older: list[tuple[float, float, float]],
    newer: list[tuple[float, float, float]],
    scale: float,
) -> None:
    scaled = [(scale * weight, x, y) for weight, x, y in newer]
    both = merge(_filled(older), _filled(newer), scale=scale)
    same = merge(_filled(older), _filled(scaled))
    assert _totals(both) == pytest.approx(_totals(same), abs=1e-9)
    assert sum(b[4] for b in both.blocks) == pytest.approx(sum(b[4] for b in same.blocks))


def test_the_first_difference_counts_for_two() -> None:
    window = _filled([(1.0, 0.0, 1.0), (1.0, 2.0, 1.0)])
    assert sum(block[4] for block in window.blocks) == 2 * 2.0
