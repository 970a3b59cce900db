"""Under FSDP2, in real processes: the same bits with and without the source, and the right norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from workbench.adaptors.torch.sources.fsdp import FSDPSource
from workbench.errors import ConfigurationError

pytestmark = pytest.mark.timeout(300)

EXACT = ["even", "accumulating", "scaled", "sums"]
OTHERS = ["uneven", "accumulating with sync", "broken", "bfloat16", "float16"]
RARE_EXACT = ["one module", "kept after forward", "clipped", "sums, divided"]


@pytest.fixture
def two(ranks: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [told["fsdp"] for told in ranks(2, "all", "fsdp", "watch", "page")]


@pytest.fixture
def rare(ranks: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [told["fsdp rare"] for told in ranks(2, "fsdp rare")]


def same_bits(case: str, ranks: Any) -> None:
    for told in ranks:
        assert len(told[case]["hashes"]) == 3
        assert len(set(told[case]["hashes"])) == 1
    assert ranks[0][case]["hash"] != ranks[1][case]["hash"], "each rank has a shard of its own"


def norms_of_the_twin(case: str, ranks: Any) -> None:
    for told in ranks:
        seen, truth = told[case]["seen"], told[case]["truth"]
        assert len(seen) == len(truth) >= 6
        for (_, big, (small, _, count)), true in zip(seen, truth, strict=True):
            assert big == pytest.approx(true["big"], rel=1e-6)
            assert small == pytest.approx(true["small"], rel=1e-6)
            assert count == 2


def rounded_norms(case: str, ranks: Any) -> None:
    for told in ranks:
        seen, truth = told[case]["seen"], told[case]["truth"]
        for (_, big, (small, _, _)), true in zip(seen, truth, strict=True):
            assert big == pytest.approx(true["big"], rel=0.05)
            assert small == pytest.approx(true["small"], rel=0.05)
            assert big != pytest.approx(true["big"], rel=1e-6), "the twin is not rounded"


@pytest.mark.parametrize("case", EXACT + OTHERS)
def test_shards_are_the_same_bits_as_without_the_source(case: str, two: Any) -> None:
    same_bits(case, two)


@pytest.mark.campaign
@pytest.mark.parametrize("case", [*RARE_EXACT, "bfloat16 parameters"])
def test_shards_are_the_same_bits_in_rarer_settings(case: str, rare: Any) -> None:
    same_bits(case, rare)


@pytest.mark.parametrize("case", EXACT)
def test_norms_are_those_of_an_unsharded_twin(case: str, two: Any) -> None:
    norms_of_the_twin(case, two)


@pytest.mark.campaign
@pytest.mark.parametrize("case", RARE_EXACT)
def test_norms_are_those_of_the_twin_in_rarer_settings(case: str, rare: Any) -> None:
    norms_of_the_twin(case, rare)


def test_low_precision_measures_the_rounded_gradient(two: Any) -> None:
    rounded_norms("bfloat16", two)


@pytest.mark.campaign
def test_low_precision_parameters_measure_the_rounded_gradient(rare: Any) -> None:
    rounded_norms("bfloat16 parameters", rare)


def test_uneven_batches_have_the_noise_of_the_plain_mean(two: Any) -> None:
    even = 4 / (1 / 6 + 1 / 7)
    for told in two:
        for (batch, big, (small, weighted, _)), true in zip(
            told["uneven"]["seen"], told["uneven"]["truth"], strict=True
        ):
            assert (batch, big) == (13, pytest.approx(true["big"], rel=1e-6))
            noise = even * (true["small"] - true["big"])
            assert 13 * (small - weighted) == pytest.approx(noise, rel=1e-5)


def test_a_nan_on_one_rank_poisons_no_later_step(two: Any) -> None:
    for told in two:
        bigs = [big for _, big, _ in told["broken"]["seen"]]
        assert math.isnan(bigs[2])
        assert all(math.isfinite(big) and big > 0 for at, big in enumerate(bigs) if at != 2)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("float16", "FSDP divides torch.float16 before and after"),
        ("accumulating with sync", "gradients were reduced 2 times in one step"),
    ],
)
def test_what_cannot_be_measured_is_told_and_not_made_up(case: str, reason: str, two: Any) -> None:
    for told in two:
        assert all(given.startswith(reason) for given in told[case]["reasons"])
        assert all(big is None and pair is None for _, big, pair in told[case]["seen"])


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("replicated", "a parameter lies on a mesh of 2 dimensions"),
        ("frozen", "model has no sharded parameter that needs a gradient"),
        ("plain", "model is a Linear without an FSDP module"),
    ],
)
def test_what_cannot_work_is_refused_at_once(case: str, words: str, two: Any) -> None:
    for told in two:
        assert told["refusals"][case].startswith(words)


def test_no_number_comes_to_the_host_that_would_not_come_anyway(two: Any) -> None:
    for told in two:
        without, measured = told["reads"]
        assert measured == without


def test_a_model_that_is_not_sharded_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="without an FSDP module; allowed: a model after"):
        FSDPSource(torch.nn.Linear(2, 1))
