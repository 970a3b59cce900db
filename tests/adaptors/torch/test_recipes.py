"""Optimizers by name: options that no training can work with are refused before it starts."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.adaptors.torch.recipes import build_optimizer
from workbench.errors import ConfigurationError
from workbench.lifecycle.ports import Part


@pytest.mark.parametrize("rate", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_rate_that_is_no_finite_number_is_refused(name: str, rate: float) -> None:
    with pytest.raises(ConfigurationError, match="allowed: a finite number"):
        build_optimizer(Part(name=name, options={"lr": rate}), torch.nn.Linear(1, 1))


def test_options_reach_the_optimizer() -> None:
    part = Part(name="sgd", options={"lr": 0.5, "momentum": 0.9})
    built = build_optimizer(part, torch.nn.Linear(1, 1))
    assert (built.defaults["lr"], built.defaults["momentum"]) == (0.5, 0.9)
