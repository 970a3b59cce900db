"""Loops in turns: who runs, who is left out and why, and what their times amount to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interleaved import Arm, Comparison, alone, compare, figures, interval_of_median, report

seconds = st.floats(0.001, 10.0)
rounds = st.lists(st.tuples(seconds, seconds), min_size=1, max_size=30)


def counting(counts: dict[str, int], name: str) -> Callable[[], Iterator[None]]:
    def steps() -> Iterator[None]:
        while True:
            counts[name] = counts.get(name, 0) + 1
            yield

    return steps


def broken() -> Iterator[None]:
    yield
    raise RuntimeError("does not fit\nthis torch")


def test_every_arm_has_as_many_blocks_as_the_first() -> None:
    counts: dict[str, int] = {}
    arms = [
        Arm(name="plain", make=counting(counts, "plain"), steps_in_block=4),
        Arm(name="slow", make=counting(counts, "slow"), steps_in_block=1, warm_up=3),
    ]
    found = compare(arms, 0.01, warm_up=10)
    blocks = len(found.seconds["plain"])
    assert len(found.seconds["slow"]) == blocks > 0
    assert counts == {"plain": 10 + 4 * blocks, "slow": 3 + blocks}


def test_rank_0_says_when_all_stop() -> None:
    asked: list[bool] = []

    def meet(go_on: bool) -> bool:
        asked.append(go_on)
        return len(asked) < 6

    arms = [Arm(name=name, make=counting({}, name)) for name in ("plain", "other")]
    found = compare(arms, 1000.0, warm_up=1, meet=meet)
    assert [len(taken) for taken in found.seconds.values()] == [2, 2]


def test_an_arm_that_cannot_run_is_left_out_with_its_reason() -> None:
    arms = [
        Arm(name="plain", make=counting({}, "plain")),
        Arm(name="other tool", make=broken, optional=True),
    ]
    found = compare(arms, 0.0, warm_up=2)
    assert found.skipped == {"other tool": "RuntimeError: does not fit"}
    assert [*found.seconds] == ["plain"]


def test_an_arm_of_ours_that_cannot_run_is_an_error() -> None:
    arms = [Arm(name="plain", make=counting({}, "plain")), Arm(name="ours", make=broken)]
    with pytest.raises(RuntimeError, match="does not fit"):
        compare(arms, 0.0, warm_up=2)


def test_a_line_says_the_version_and_the_figures_or_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arms = [
        Arm(name=name, make=counting({}, name), package=package)
        for name, package in (("plain", "torch"), ("twice", "hypothesis"), ("gone", "no-such-tool"))
    ]
    found = Comparison(
        seconds={"plain": [1.0, 2.0, 3.0], "twice": [2.0, 4.0, 6.0]},
        processor_seconds={"plain": [1.0, 1.0, 1.0], "twice": [3.0, 3.0, 3.0]},
        skipped={"gone": "ModuleNotFoundError: No module named 'gone'"},
    )
    report("name", "case", arms, found)
    twice, gone = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (twice["arm"], twice["against"], twice["rounds"]) == ("twice", "plain", 3)
    assert twice["median_ratio"] == twice["total_ratio"] == twice["total_high"] == 2.0
    assert twice["processor_ratio"] == twice["processor_low"] == 3.0
    assert twice["version"].startswith("6.")
    assert gone["version"] is None
    assert gone["skipped"] == "ModuleNotFoundError: No module named 'gone'"
    assert "median_ratio" not in gone


def test_a_cost_in_few_rounds_is_in_the_total_and_not_in_the_median() -> None:
    plain = [1.0] * 40
    mine = [1.0] * 36 + [2.0] * 4
    found = figures(mine, plain)
    assert found["median_ratio"] == found["ratio_high"] == 1.0
    assert found["total_ratio"] == pytest.approx(1.1)
    assert 1.0 <= found["total_low"] < 1.1 < found["total_high"] < 1.3


@given(rounds)
def test_intervals_hold_their_figures(pairs: list[tuple[float, float]]) -> None:
    mine, plain = zip(*pairs, strict=True)
    found = figures(mine, plain)
    assert found["ratio_low"] <= found["median_ratio"] <= found["ratio_high"]
    ratios = [one / other for one, other in pairs]
    least, most = min(ratios) - 1e-4, max(ratios) + 1e-4
    assert least <= found["total_low"] <= found["total_high"] <= most
    assert least <= found["total_ratio"] <= most


def test_the_interval_of_the_median_leaves_out_one_half_in_twenty() -> None:
    # Of 100 ordered values, those from the 41st to the 60th hold the median 95 times in 100.
    low, high = interval_of_median([float(place) for place in range(100)])
    assert (low, high) == (40.0, 59.0)


def test_alone_nobody_is_asked() -> None:
    assert (alone(True), alone(False)) == (True, False)
