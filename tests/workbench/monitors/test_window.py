"""The blocks hold all steps, in logarithmic space."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.codec import from_json, to_json
from workbench.monitors.window import PER_SIZE, Window, newest, push

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


@given(STEPS, st.floats(1, 400))
@settings(deadline=None, max_examples=60)
def test_newest_takes_no_block_more_than_it_needs(
    steps: list[tuple[float, float, float]], wanted: float
) -> None:
    blocks = _filled(steps).blocks
    start = newest(blocks, wanted)
    held = sum(block[0] for block in blocks[start:])
    assert held >= min(wanted, len(steps))
    assert held - blocks[start][0] < wanted
