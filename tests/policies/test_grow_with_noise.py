"""Growing with the noise: never on what is not sure, never past the maximum, never down."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workbench.decision import Keep, SetBatchSize
from workbench.errors import ConfigurationError
from workbench.policies import GrowWithNoise
from workbench.policy import View
from workbench.signal import Signal, Signals, exact, undetermined

batch_sizes = st.integers(1, 100_000)
positive = st.floats(0.0, 1e12)
ratios = st.floats(0.01, 100.0)


def view(batch_size: int, *signals: Signal) -> View:
    return View(
        step=90,
        epoch=1,
        samples=5760,
        workers=2,
        batch_size_global=batch_size,
        signals=Signals.of(signals),
    )


def noise(value: float, low: float, high: float = inf) -> Signal:
    return Signal(name="noise_scale", value=value, low=low, high=high, unit="samples", step=90)


def asked(policy: GrowWithNoise, batch_size: int, signal: Signal) -> int:
    """Return the batch size asked for, or the one in force."""
    decision = policy.decide(view(batch_size, signal))
    return decision.batch_size_global if isinstance(decision, SetBatchSize) else batch_size


@st.composite
def noises(draw: st.DrawFn) -> Signal:
    low, value, high = sorted(
        draw(st.tuples(positive, positive, st.one_of(positive, st.just(inf))))
    )
    assume(value < inf)
    return noise(value, low, high)


@given(batch_size=batch_sizes, top=batch_sizes, ratio=ratios)
def test_it_never_acts_on_an_undetermined_noise_scale(
    batch_size: int, top: int, ratio: float
) -> None:
    policy = GrowWithNoise(max_batch_size=top, ratio=ratio)
    assert policy.decide(view(batch_size)) == Keep()
    unknown = undetermined("noise_scale", reason="too few steps")
    assert policy.decide(view(batch_size, unknown)) == Keep()
    assert policy.decide(view(batch_size, exact("loss", 1e9))) == Keep()


@given(batch_size=batch_sizes, signal=noises(), ratio=ratios)
def test_it_keeps_while_the_lower_end_is_not_above_the_batch(
    batch_size: int, signal: Signal, ratio: float
) -> None:
    assume(ratio * signal.low <= batch_size)
    policy = GrowWithNoise(max_batch_size=10**9, ratio=ratio)
    assert policy.decide(view(batch_size, signal)) == Keep()


@given(batch_size=batch_sizes, top=batch_sizes, signal=noises(), ratio=ratios)
def test_it_asks_only_for_more_and_never_past_the_maximum(
    batch_size: int, top: int, signal: Signal, ratio: float
) -> None:
    decision = GrowWithNoise(max_batch_size=top, ratio=ratio).decide(view(batch_size, signal))
    if isinstance(decision, SetBatchSize):
        assert batch_size < decision.batch_size_global <= top
        assert decision.batch_size_global <= ratio * signal.value
        assert decision.because == (signal,)
    else:
        assert decision == Keep()


@given(batch_size=batch_sizes, signal=noises(), factor=st.floats(1.0, 100.0))
def test_more_noise_never_asks_for_less(batch_size: int, signal: Signal, factor: float) -> None:
    louder = noise(signal.value * factor, signal.low * factor, signal.high * factor)
    policy = GrowWithNoise(max_batch_size=50_000)
    assert asked(policy, batch_size, louder) >= asked(policy, batch_size, signal)


@given(value=st.floats(65.0, 1e12))
def test_a_wider_interval_acts_only_while_its_lower_end_is_above_the_batch(value: float) -> None:
    policy = GrowWithNoise(max_batch_size=10**13)
    for low in (64.0, 63.0, 0.0):
        assert asked(policy, 64, noise(value, low)) == 64
    assert asked(policy, 64, noise(value, 64.5)) == int(value)


def test_an_infinite_upper_end_is_enough_when_the_lower_one_is_sure() -> None:
    decision = GrowWithNoise(max_batch_size=4096).decide(view(64, noise(800.0, 640.0, inf)))
    assert decision == SetBatchSize(
        800,
        because=(noise(800.0, 640.0, inf),),
        reason="noise_scale 800 [640, inf] samples is surely above batch size 64",
    )


@pytest.mark.parametrize("ratio", [1.0, 1e300])
def test_an_infinite_or_overflowing_value_asks_for_the_maximum(ratio: float) -> None:
    policy = GrowWithNoise(max_batch_size=4096, ratio=ratio)
    assert asked(policy, 64, noise(inf, 1e5, inf)) == 4096
    assert asked(policy, 64, noise(1e300, 1e299, inf)) == 4096


def test_a_noise_scale_less_than_one_sample_above_the_batch_changes_nothing() -> None:
    assert GrowWithNoise(max_batch_size=4096).decide(view(64, noise(64.9, 64.2))) == Keep()


def test_at_or_above_the_maximum_it_keeps() -> None:
    policy = GrowWithNoise(max_batch_size=128)
    for batch_size in (128, 256):
        assert policy.decide(view(batch_size, noise(5000.0, 4000.0))) == Keep()


def test_the_ratio_scales_the_target_and_is_told() -> None:
    decision = GrowWithNoise(max_batch_size=4096, ratio=0.5).decide(view(64, noise(800.0, 640.0)))
    assert isinstance(decision, SetBatchSize)
    assert decision.batch_size_global == 400
    assert decision.reason.startswith("0.5 x noise_scale 800 [640, inf] samples is surely above")


@pytest.mark.parametrize("value", [0, -1, 12.5, "4096", None, nan])
def test_an_impossible_maximum_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        GrowWithNoise(max_batch_size=value)
    assert str(caught.value) == (
        f"grow_with_noise: max_batch_size is {value!r}; allowed: a whole number, 1 or more; "
        "use for example max_batch_size=4096"
    )


@pytest.mark.parametrize("value", [0, -1.0, inf, nan, "half", None])
def test_an_impossible_ratio_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        GrowWithNoise(max_batch_size=8, ratio=value)
    assert str(caught.value) == (
        f"grow_with_noise: ratio is {value!r}; allowed: a number above 0; use ratio=1"
    )
