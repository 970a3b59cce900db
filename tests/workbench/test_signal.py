"""A signal that is not known compares false with everything; what is known prints plainly."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from math import inf, isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.policy import View
from workbench.signal import Signal, Signals, exact, undetermined

numbers = st.floats(allow_nan=False)


@given(number=numbers)
def test_every_comparison_with_an_undetermined_signal_is_false(number: float) -> None:
    unknown = undetermined("noise_scale", reason="too few steps")
    for end in (unknown.value, unknown.low, unknown.high):
        compared = [end > number, end >= number, end < number, end <= number, end == number]
        assert not any(compared)


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_an_exact_signal_has_an_interval_of_one_point_at_full_confidence(value: float) -> None:
    signal = exact("loss", value, step=3)
    assert (signal.low, signal.high, signal.level, signal.step) == (value, value, 1.0, 3)
    assert signal.determined


def test_an_infinite_upper_end_is_determined_and_printed() -> None:
    noise = Signal(name="noise_scale", value=812.0, low=640.0, high=inf, unit="samples")
    assert noise.determined
    assert str(noise) == "noise_scale 812 [640, inf] samples"


@pytest.mark.parametrize(
    ("signal", "text"),
    [
        (exact("throughput", 128.0, unit="samples/s"), "throughput 128 samples/s"),
        (exact("loss", 0.25), "loss 0.25"),
        (undetermined("loss", reason="NaN"), "loss undetermined (NaN)"),
        (undetermined("loss", reason=""), "loss undetermined"),
    ],
)
def test_a_signal_prints_its_name_value_unit_or_reason(signal: Signal, text: str) -> None:
    assert str(signal) == text


def test_signals_are_a_mapping_in_the_order_of_their_monitors() -> None:
    signals = Signals.of([exact("loss", 0.5), exact("a", 1.0)])
    assert list(signals) == ["loss", "a"]
    assert len(signals) == 2
    assert dict(signals)["a"].value == 1.0
    assert "throughput" not in signals
    with pytest.raises(KeyError, match="throughput"):
        signals["throughput"]


def test_a_view_answers_undetermined_for_a_signal_that_nothing_computes() -> None:
    view = View(step=7, epoch=0, samples=56, workers=1, batch_size_global=8)
    signal = view.signal("noise_scale")
    assert isnan(signal.value)
    assert (signal.name, signal.step) == ("noise_scale", 7)
    assert signal.reason == "no monitor computes it"


def test_a_signal_cannot_be_changed() -> None:
    signal = exact("loss", 0.5)
    with pytest.raises(FrozenInstanceError):
        signal.value = 0.4  # type: ignore[misc]


def test_a_large_number_is_written_out() -> None:
    signal = Signal(name="noise_scale", value=84_712.3, low=353.6, high=inf, unit="samples")

    assert str(signal) == "noise_scale 84710 [353.6, inf] samples"
    assert str(exact("tiny", 1e-7)) == "tiny 1e-07"
    assert str(exact("huge", 1e15)) == "huge 1e+15"
