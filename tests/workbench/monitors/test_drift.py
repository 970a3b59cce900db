"""The window keeps what agrees and drops what does not."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.monitors.drift import part, recent
from workbench.monitors.estimate import due, estimate
from workbench.monitors.window import Window, push


def filled(x: np.ndarray, y: np.ndarray | None = None) -> Window:
    window = Window()
    ones = np.ones(len(x)) if y is None else y
    for one, other in zip(x.tolist(), ones.tolist(), strict=True):
        window = push(window, 1.0, one, other)
    return window


def test_an_unchanged_past_is_kept_whole_in_most_runs() -> None:
    rng = np.random.default_rng(0)
    kept = [
        part(recent(filled(5.0 + rng.standard_normal(500)).blocks)).steps == 500 for _ in range(100)
    ]
    assert np.mean(kept) > 0.88


@pytest.mark.parametrize("since", [32, 64, 200])
def test_a_clear_change_is_cut_away(since: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x = rng.standard_normal(500) + np.where(np.arange(500) < 500 - since, 0.0, 10.0)
        assert part(recent(filled(x).blocks)).steps <= since


def test_both_averages_may_rise_together_without_a_cut() -> None:
    rng = np.random.default_rng(2)
    scale = np.exp(np.linspace(0, 3, 400))
    window = filled(
        scale * (6 + rng.standard_normal(400)), scale * (2 + 0.3 * rng.standard_normal(400))
    )
    found = estimate(window, level=0.95)
    assert found.steps == 400
    assert found.low < 3.0 < found.high


def test_a_line_is_followed_to_its_end_in_nine_of_ten_runs() -> None:
    rng = np.random.default_rng(3)
    for slope in (0.0, 0.001, 0.003, 0.01, 0.05):
        inside = 0
        for _ in range(100):
            found = estimate(filled(slope * np.arange(300) + rng.standard_normal(300)), level=0.95)
            inside += found.low <= slope * 299 <= found.high
        assert inside >= 88, slope


def test_estimates_become_rarer_and_never_stop() -> None:
    times = [steps for steps in range(1, 20_000) if due(steps)]
    gaps = np.diff(times)
    assert times[:64] == list(range(1, 65))
    assert gaps.max() <= 2 * np.sqrt(20_000) / 4
    assert len(times) < 2000
