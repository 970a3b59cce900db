"""From sums over ranks to two norms: unbiased whatever the sizes, nothing invented."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.adaptors.torch.sources.seen import Seen, StepNorms, totals, two_norms
from workbench.errors import ConfigurationError
from workbench.monitors.parts import parts_of

CPU = torch.device("cpu")
positive = st.floats(1e-3, 1e3)


def seen(own: list[float] | None, share: float | None) -> Seen:
    return Seen(
        own=None if own is None else torch.tensor(own, dtype=torch.float64),
        share=None if share is None else torch.tensor(share, dtype=torch.float64),
    )


def over_ranks(*ranks: tuple[Seen, int | list[int]]) -> StepNorms:
    vectors = [totals(one, rows, CPU) for one, rows in ranks]
    return two_norms(torch.stack(vectors).sum(0).tolist())


@given(
    base=st.integers(20, 1000), off=st.lists(st.integers(-2, 2), min_size=2, max_size=9),
    noise=positive, signal=positive,
)  # fmt: skip
def test_expected_norms_of_uneven_batches_give_back_noise_and_signal(
    base: int, off: list[int], noise: float, signal: float
) -> None:
    sizes = [base + delta for delta in off]
    n = len(sizes)
    big = signal + noise * sum(1 / size for size in sizes) / n**2
    step = over_ranks(*[(seen([signal + noise / size], big / n), size) for size in sizes])
    assert step.batch == sum(sizes)
    assert step.big == pytest.approx(big)
    assert step.norms is not None
    parts = parts_of(step.norms, step.batch)
    assert parts is not None
    assert parts.noise == pytest.approx(noise, rel=1e-6, abs=1e-9 * signal * step.batch)
    assert parts.signal == pytest.approx(signal, rel=1e-6, abs=1e-9 * noise)


@given(st.permutations([(3.0, 30), (5.0, 31), (4.0, 32)]))
def test_the_order_of_ranks_does_not_matter(ranks: list[tuple[float, int]]) -> None:
    step = over_ranks(*[(seen([own], 0.5), rows) for own, rows in ranks])
    first = over_ranks(*[(seen([own], 0.5), rows) for own, rows in sorted(ranks)])
    assert step.norms is not None
    assert first.norms is not None
    assert step.norms.small == pytest.approx(first.norms.small, rel=1e-12)
    assert step.norms.big == pytest.approx(first.norms.big, rel=1e-12)


def test_two_ranks_of_two_micro_batches_are_four_ranks() -> None:
    two = over_ranks((seen([3.0, 5.0], 1.0), [8, 8]), (seen([2.0, 4.0], 1.0), 16))
    four = over_ranks(*[(seen([own], 0.5), 8) for own in (3.0, 5.0, 2.0, 4.0)])
    assert two == four
    assert two.norms is not None
    assert two.norms.small_batches == 4


@pytest.mark.parametrize("sizes", [(1, 63), (32, 16), (8, 0)])
def test_very_uneven_batches_are_not_split_whatever_was_measured(sizes: tuple[int, int]) -> None:
    steps = [
        over_ranks(*[(seen([own], 0.5), size) for own, size in zip(owns, sizes, strict=True)])
        for owns in ((1.0, 1.0), (9.0, 1.0), (1.0, 100.0))
    ]
    assert [step.norms for step in steps] == [None, None, None]
    assert [step.big for step in steps] == [1.0, 1.0, 1.0]


def test_nothing_is_made_up_for_a_rank_that_did_not_measure() -> None:
    assert over_ranks((seen([1.0], 0.5), 8), (seen(None, 0.5), 8)) == StepNorms(
        batch=16, big=1.0, norms=None
    )
    assert over_ranks((seen([1.0], 0.5), 8), (seen([1.0], None), 8)).big is None
    assert over_ranks((seen([1.0], 1.0), 8)).norms is None, "one small batch is no split"


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(broken: float) -> None:
    step = over_ranks((seen([broken], broken), 8), (seen([1.0], broken), 8))
    assert step.big is not None
    assert not math.isfinite(step.big)
    assert step.norms is None or not step.norms.finite


def test_the_wrong_number_of_sizes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rows has 3 numbers; allowed: one, or 2"):
        totals(seen([1.0, 2.0], 1.0), [8, 8, 8], CPU)
