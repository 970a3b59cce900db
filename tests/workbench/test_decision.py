"""A decision checks what a policy puts into it, where the policy puts it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from workbench.decision import (
    Keep,
    Resize,
    SetBatchSize,
    SetLearningRate,
    SetSync,
    Stop,
)
from workbench.signal import exact

NOISE = exact("noise_scale", 100.0)


@pytest.mark.parametrize(
    "decision",
    [
        Keep(because=NOISE),  # type: ignore[arg-type]
        SetBatchSize(8, because=NOISE),
        SetLearningRate(0.5, because=NOISE),
        Resize(2, because=NOISE),
        SetSync("every_step", because=NOISE),
        Stop(because=NOISE),
    ],
)
def test_one_signal_is_as_good_as_a_tuple_of_one(decision: Any) -> None:
    assert decision.because == (NOISE,)


@pytest.mark.parametrize("make", [SetBatchSize, Resize])
@pytest.mark.parametrize("value", [128.0, 128.7, float("nan"), "128", None])
def test_a_number_that_is_not_whole_is_refused_where_it_is_given(make: Any, value: Any) -> None:
    with pytest.raises(TypeError, match=r"allowed: a whole number; use int\(\.\.\.\)"):
        make(value)


def test_integers_of_torch_become_plain_ones() -> None:
    decision = SetBatchSize(torch.tensor(128))  # type: ignore[arg-type]
    assert type(decision.batch_size_global) is int
    assert decision == SetBatchSize(128)


def test_what_led_to_a_decision_can_only_be_signals() -> None:
    with pytest.raises(TypeError, match="because holds 'noise'; allowed: signals"):
        SetBatchSize(128, because=("noise",))  # type: ignore[arg-type]
