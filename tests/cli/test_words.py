"""Numbers, signals and decisions in words."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import Record
from workbench.cli.words import BARS, duration, interval, number, sparkline, tell, tell_row
from workbench.decision import Refused, Resize, SetBatchSize, SetLearningRate, SetSync, Stop
from workbench.records import decision_rows
from workbench.signal import undetermined

_PARTS = ("s", "min")
numbers = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None, max_examples=200)
@given(values=st.lists(numbers, max_size=300), width=st.integers(0, 60))
def test_a_sparkline_fits_and_has_only_bars(values: list[float], width: int) -> None:
    drawn = sparkline(values, width)
    finite = [value for value in values if math.isfinite(value)]
    assert len(drawn) == min(width, len(finite))
    assert set(drawn) <= set(BARS)


@settings(deadline=None, max_examples=100)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40, unique=True))
def test_the_lowest_value_has_the_lowest_bar_and_the_highest_the_highest(
    values: list[float],
) -> None:
    drawn = sparkline(values, len(values))
    assert drawn[values.index(min(values))] == BARS[0]
    assert drawn[values.index(max(values))] == BARS[-1]


@settings(deadline=None, max_examples=200)
@given(value=st.floats(-1e300, 1e300))
def test_a_number_in_words_is_the_number_to_four_digits(value: float) -> None:
    told = float(number(value).replace(",", ""))
    assert math.isclose(told, value, rel_tol=6e-4, abs_tol=1e-300)


@settings(deadline=None, max_examples=100)
@given(seconds=st.floats(0, 1e7))
def test_a_time_never_shows_sixty_of_anything(seconds: float) -> None:
    words = duration(seconds).split()
    assert not {"60", "60.0"} & {word for word, unit in pairwise(words) if unit in _PARTS}


def test_an_unknown_signal_says_why() -> None:
    signal = undetermined("noise_scale", reason="too few steps")
    assert interval(signal) == "not yet determined (too few steps)"


def test_a_record_and_its_row_in_mlflow_tell_the_same(growth: list[Record]) -> None:
    decided = [record for record in growth if record.decision.kind != "keep"]
    rows = decision_rows(growth)
    assert len(rows) == len(decided) == 2
    assert [tell_row(row) for row in rows] == [tell(record) for record in decided]


def test_every_kind_of_decision_has_words(make_record) -> None:  # type: ignore[no-untyped-def]
    told = [
        tell(make_record(1, decision=decision, outcome=Refused("no"))).change
        for decision in (
            SetBatchSize(4096),
            Resize(4),
            SetLearningRate(0.5),
            SetSync("local_sgd"),
            Stop(reason="enough"),
        )
    ]
    assert told == [
        "batch size 64 → 4,096",
        "workers 2 → 4",
        "learning rate → × 0.5",
        "synchronisation → local_sgd",
        "stop",
    ]
