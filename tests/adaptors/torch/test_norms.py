"""Squared norms: right to single precision whatever the size, type and place of the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.adaptors.torch.norms import CHUNK, sqnorm, sqnorms

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def truth(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().sum())


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=0, max_size=4),
            st.sampled_from(TYPES),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_each_norm_and_their_sum_are_those_of_a_sum_in_double_precision(
    kinds: list[tuple[list[int], torch.dtype, bool]],
) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for shape, dtype, turned in kinds:
        tensor = torch.randn(shape, generator=generator).to(dtype)
        tensors.append(tensor.transpose(0, -1) if turned and tensor.dim() > 1 else tensor)
    found = sqnorms(tensors)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([truth(tensor) for tensor in tensors], rel=1e-5)
    assert float(sqnorm(tensors)) == pytest.approx(float(found.sum()), rel=1e-12)


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 3_000_000])
def test_a_large_tensor_is_as_precise_as_a_small_one(size: int) -> None:
    torch.manual_seed(0)
    tensor = torch.randn(size)
    assert float(sqnorm([tensor])) == pytest.approx(truth(tensor), rel=1e-6)
    found = sqnorms([tensor, torch.ones(3)])
    assert found.tolist() == pytest.approx([truth(tensor), 3.0], rel=1e-6)


def test_channels_last_is_read_in_its_own_order() -> None:
    tensor = torch.randn(4, 8, 16, 16).to(memory_format=torch.channels_last)
    assert float(sqnorm([tensor])) == pytest.approx(truth(tensor), rel=1e-6)


def test_not_a_number_and_infinity_are_told() -> None:
    assert torch.isnan(sqnorm([torch.tensor([1.0, torch.nan]), torch.ones(2)]))
    assert torch.isinf(sqnorm([torch.tensor([torch.inf])]))
