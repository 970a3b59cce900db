"""A sample of coordinates: exact when it is whole, unbiased over its offsets, without a copy."""

from __future__ import annotations

from itertools import product
from math import gcd, prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.adaptors.torch.coordinates import FEWEST, CoordinateSample, Stratum

Shape = tuple[int, ...]
shapes = st.lists(st.lists(st.integers(1, 9), max_size=3).map(tuple), min_size=1, max_size=4)


def drawn(sizes: list[Shape], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


def exact(one: list[torch.Tensor], other: list[torch.Tensor]) -> torch.Tensor:
    g = torch.cat([each.reshape(-1) for each in one])
    h = torch.cat([each.reshape(-1) for each in other])
    return torch.stack((g @ h, g @ g, h @ h))


@settings(max_examples=50, deadline=None)
@given(sizes=shapes, seed=st.integers(0, 99))
def test_a_sample_of_everything_is_exact(sizes: list[Shape], seed: int) -> None:
    one, other = drawn(sizes, seed), drawn(sizes, seed + 1)
    sample = CoordinateSample(one)
    found = sample.compare(sample.take(one), sample.take(other))
    torch.testing.assert_close(found, exact(one, other), rtol=1e-9, atol=1e-9)


def test_over_all_offsets_the_mean_is_exact() -> None:
    """The estimate is linear in each parameter's own sum: all offsets of each one, then the mean."""
    sizes: list[Shape] = [(40, 9), (130,), (3, 3)]
    one, other = drawn(sizes, 0), drawn(sizes, 1)
    sample = CoordinateSample(one, largest=100)
    strides = [stratum.stride for stratum in sample.strata]
    assert strides[0] > 1
    assert strides[1] > 1
    total, count = torch.zeros(3, dtype=torch.float64), 0
    for offsets in product(*(range(stride) for stride in strides)):
        moved = CoordinateSample(one, largest=100)
        moved.strata = tuple(
            Stratum(elements=stratum.elements, stride=stratum.stride, offset=offset)
            for stratum, offset in zip(sample.strata, offsets, strict=True)
        )
        total += moved.compare(moved.take(one), moved.take(other))
        count += 1
    torch.testing.assert_close(total / count, exact(one, other), rtol=1e-6, atol=1e-6)


def test_offsets_are_uniform_over_seeds() -> None:
    """400 seeds, 13 offsets: chi squared with 12 degrees of freedom, its 99.9 % point is 32.9."""
    weight = torch.zeros(130, 10)
    offsets = [CoordinateSample([weight], largest=100, seed=s).strata[0] for s in range(400)]
    assert {stratum.stride for stratum in offsets} == {13}
    counts = [sum(stratum.offset == place for stratum in offsets) for place in range(13)]
    mean = 400 / 13
    assert sum((count - mean) ** 2 / mean for count in counts) < 32.9


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 60), max_size=3).map(tuple), min_size=1, max_size=5),
    largest=st.integers(1, 5000),
    seed=st.integers(0, 9),
)
def test_each_parameter_has_its_few_and_strides_do_not_keep_to_columns(
    sizes: list[Shape], largest: int, seed: int
) -> None:
    parameters = [torch.zeros(size) for size in sizes]
    sample = CoordinateSample(parameters, largest=largest, seed=seed)
    for size, stratum in zip(sizes, sample.strata, strict=True):
        assert stratum.elements == prod(size)
        assert 0 <= stratum.offset < stratum.stride
        assert stratum.taken >= min(stratum.elements, FEWEST)
        assert all(gcd(stratum.stride, each) == 1 for each in size[1:])
    assert sum(stratum.taken for stratum in sample.strata) == len(sample.take(parameters)[0])


def test_a_large_network_gives_about_the_coordinates_that_were_asked_for() -> None:
    sizes: list[Shape] = [(512, 784), (512,), (512, 512), (512,), (10, 512), (10,)]
    sample = CoordinateSample([torch.zeros(size) for size in sizes])
    assert 50_000 < sum(stratum.taken for stratum in sample.strata) <= 70_000
    assert sample.strata[-1].stride == 1


def test_two_steps_take_the_same_coordinates_whatever_the_layout() -> None:
    image = torch.randn(8, 6, 5, 5)
    other = image.to(memory_format=torch.channels_last)
    sample = CoordinateSample([image], largest=100)
    assert sample.strata[0].stride > 1
    assert not other.is_contiguous()
    assert torch.equal(sample.take([image])[0], sample.take([other])[0])


def test_what_is_taken_is_a_copy() -> None:
    grads = [torch.ones(4)]
    sample = CoordinateSample(grads)
    before = sample.take(grads)
    grads[0].zero_()
    assert sample.compare(sample.take(grads), before).tolist() == [0.0, 0.0, 4.0]


def test_no_gradient_counts_as_zero_and_types_may_differ() -> None:
    parameters = [torch.zeros(3), torch.zeros(2, dtype=torch.bfloat16)]
    sample = CoordinateSample(parameters)
    now = sample.take([torch.ones(3), torch.ones(2, dtype=torch.bfloat16)])
    before = sample.take([None, torch.full((2,), 2.0, dtype=torch.bfloat16)])
    assert sample.compare(now, before).tolist() == [4.0, 5.0, 8.0]
    assert sample.compare(now, before).dtype == torch.float64


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(0.01, 100.0), seed=st.integers(0, 99))
def test_the_cosine_of_a_gradient_with_a_multiple_of_itself_is_one(scale: float, seed: int) -> None:
    grads = drawn([(50, 7), (90,)], seed)
    sample = CoordinateSample(grads, largest=60, seed=seed)
    now, before = sample.take(grads), sample.take([scale * grad for grad in grads])
    dot, square, square_before = sample.compare(now, before).tolist()
    assert dot / (square * square_before) ** 0.5 == pytest.approx(1.0, rel=1e-9)


def test_torchs_random_numbers_are_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    sample = CoordinateSample([torch.zeros(1000)], largest=50)
    sample.take([torch.ones(1000)])
    assert torch.equal(torch.randn(3), expected)


class NoReading(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises when the host asks for a number of a tensor, or a tensor goes to another device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.name().split("::")[1].split(".")[0], kwargs or {}
        moved = name == "_to_copy" and kwargs.get("device") is not None
        if moved or name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"):
            raise AssertionError(f"{func.name()} in a step that is measured")
        return func(*args, **kwargs)


def test_the_host_reads_nothing() -> None:
    grads = [torch.ones(40, 30), torch.ones(8, 6, 5, 5).to(memory_format=torch.channels_last)]
    sample = CoordinateSample(grads, largest=100)
    with NoReading():  # type: ignore[no-untyped-call]
        found = sample.compare(sample.take(grads), sample.take([None, grads[1]]))
    assert found.shape == (3,)
