"""Squared norms: right to single precision at any size, type and layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.adaptors.torch.sources.squares import CHUNK, added, squares


@given(
    st.integers(1, 50), st.floats(-10, 10),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)  # fmt: skip
def test_it_is_the_squared_norm_in_every_type(count: int, shift: float, dtype: torch.dtype) -> None:
    tensor = (torch.linspace(-1, 1, count) + shift).to(dtype)
    found = added(squares(tensor))
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(float(tensor.double().square().sum()), rel=1e-5)


def test_a_large_buffer_is_as_exact_as_a_small_one() -> None:
    tensor = torch.randn(5 * CHUNK + 7, generator=torch.Generator().manual_seed(0)) + 0.3
    truth = float(tensor.double().square().sum())
    assert float(added(squares(tensor))) == pytest.approx(truth, rel=5e-6)
    assert len(squares(tensor)) == 6


def test_a_transposed_tensor_is_measured_as_it_is() -> None:
    tensor = torch.arange(6.0).reshape(2, 3).t()
    assert float(added(squares(tensor))) == pytest.approx(55.0, rel=1e-6)


def test_half_precision_does_not_overflow() -> None:
    assert float(added(squares(torch.full((10,), 300.0, dtype=torch.float16)))) == 9e5


def test_types_may_be_mixed() -> None:
    numbers = squares(torch.ones(3)) + squares(torch.ones(2, dtype=torch.float64))
    assert float(added(numbers)) == 5.0
