"""Verdicts from losses of branches, without a single tensor."""

from __future__ import annotations

from math import inf, nan
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.adaptors.torch.probes.comparison import Comparison, CriticalBatch, compare

LOSSES = st.lists(st.floats(-10, 10), min_size=2, max_size=8)


def judged(*verdicts: str, differences: tuple[float, ...] = ()) -> CriticalBatch:
    means = differences or tuple({"fine": 0.0, "worse": 1.0}.get(v, 0.02) for v in verdicts)
    found = tuple(
        Comparison(
            multiple=2**place,
            batch_size=32 * 2**place,
            losses=(1.0, 1.0),
            difference=mean,
            low=mean,
            high=mean,
            verdict=verdict,
        )
        for place, (verdict, mean) in enumerate(zip(verdicts, means, strict=True), start=1)
    )
    return CriticalBatch(
        batch_size=32,
        tolerance=0.01,
        level=0.95,
        samples=512,
        learning_rate_rule="linear",
        start_loss=2.0,
        control_losses=(1.0, 1.0),
        comparisons=found,
    )


QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 8: 2.365}
"""Student's 97.5 % quantile for so many repeats, from a printed table."""


@pytest.mark.parametrize("repeats", QUANTILES)
def test_the_interval_is_that_of_the_paired_t_test(repeats: int) -> None:
    differences = [0.1 * place**2 for place in range(repeats)]
    control = [5.0 - place for place in range(repeats)]
    losses = tuple(one + more for one, more in zip(control, differences, strict=True))
    found = compare(2, 64, losses, tuple(control), tolerance=0.01, level=0.95)
    half = QUANTILES[repeats] * stdev(differences) / repeats**0.5
    assert found.difference == pytest.approx(sum(differences) / repeats)
    assert found.high - found.difference == pytest.approx(half, rel=3e-4)
    assert found.difference - found.low == pytest.approx(half, rel=3e-4)


@given(one=LOSSES, tolerance=st.floats(0, 1), noise=st.randoms(use_true_random=False))
def test_a_verdict_says_where_the_interval_lies(
    one: list[float], tolerance: float, noise: object
) -> None:
    losses = tuple(loss + noise.gauss(tolerance, 0.5) for loss in one)  # type: ignore[attr-defined]
    found = compare(2, 64, losses, tuple(one), tolerance=tolerance, level=0.95)
    assert (found.verdict == "fine") == (found.high <= tolerance)
    assert (found.verdict == "worse") == (found.low > tolerance)
    assert (found.verdict == "undetermined") == (found.low <= tolerance < found.high)


@pytest.mark.parametrize("bad", [inf, nan])
def test_a_branch_that_diverges_is_worse(bad: float) -> None:
    found = compare(2, 64, (1.0, bad, 1.0), (1.0, 1.0, 1.0), tolerance=0.01, level=0.95)
    assert (found.verdict, found.difference, found.low) == ("worse", inf, inf)


@pytest.mark.parametrize(
    ("verdicts", "low", "high", "value", "said"),
    [
        (("fine", "fine"), 128, inf, 128, "at least 128"),
        (("fine", "worse"), 64, 128, 64, "at least 64 and below 128"),
        (("worse",), 32, 64, 32, "below 64"),
        (("undetermined", "worse"), 32, 128, 32, "below 128"),
        (("fine", "undetermined"), 64, inf, 64, "at least 64"),
        (("undetermined", "fine"), 128, inf, 128, "at least 128"),
    ],
)
def test_the_signal_holds_what_was_surely_fine_and_surely_worse(
    verdicts: tuple[str, ...], low: float, high: float, value: float, said: str
) -> None:
    found = judged(*verdicts)
    signal = found.signal(9)
    assert found.verdict == said
    assert (signal.low, signal.value, signal.high) == (low, value, high)
    assert (signal.name, signal.unit, signal.step) == ("critical_batch", "samples", 9)


def test_the_point_estimate_is_the_largest_within_the_tolerance() -> None:
    found = judged("undetermined", "worse", differences=(0.005, 1.0))
    assert (found.signal().low, found.signal().value, found.signal().high) == (32, 64, 128)


@pytest.mark.parametrize("verdicts", [(), ("undetermined",), ("undetermined", "undetermined")])
def test_nothing_decided_is_undetermined(verdicts: tuple[str, ...]) -> None:
    found = judged(*verdicts)
    assert found.verdict == "undetermined"
    assert not found.signal().determined
    assert "more repeats" in found.signal().reason
