"""Under DDP, in real processes: the same bits with and without the hook, and the right two norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from workbench.adaptors.torch.sources.ddp import DDPSource
from workbench.errors import ConfigurationError

pytestmark = pytest.mark.timeout(300)
Ranks = Callable[..., list[dict[str, Any]]]

CASES = [
    "80 steps", "AdamW", "views", "views kept", "views kept, accumulating", "many buckets", "double",
    "unused", "unused views", "static graph", "static graph, views", "accumulating",
    "accumulating without no_sync", "uneven", "clipped", "scaled", "scaled, overflow", "autocast",
    "bfloat16", "sparse", "batched copies",
]  # fmt: skip


@pytest.fixture
def two(ranks: Ranks) -> list[dict[str, Any]]:
    return [told["all"] for told in ranks(2, "all", "fsdp", "watch", "page")]


@pytest.mark.parametrize("case", CASES)
def test_weights_are_the_same_bits_as_without_the_hook(case: str, two: Any) -> None:
    for told in two:
        assert told[case]["moved"]
        assert len(told[case]["hashes"]) >= 3
        assert len(set(told[case]["hashes"])) == 1
    assert two[0][case]["hashes"] == two[1][case]["hashes"]


@pytest.mark.campaign
@pytest.mark.parametrize("case", ["compiled", "compiled, split"])
def test_weights_of_a_compiled_model_are_the_same_bits(case: str, ranks: Ranks) -> None:
    for told in (one["compiled"] for one in ranks(2, "compiled")):
        assert told[case]["moved"]
        assert len(set(told[case]["hashes"])) == 1
        assert all(pair for _, _, pair in told[case]["seen"])


@pytest.mark.campaign
def test_weights_are_the_same_bits_after_a_long_training(ranks: Ranks) -> None:
    for told in (one["long"]["500 steps"] for one in ranks(2, "long")):
        assert told["moved"]
        assert len(set(told["hashes"])) == 1


@pytest.mark.campaign
@pytest.mark.parametrize("case", CASES[:7])
def test_three_ranks_divide_with_the_bits_of_ddp(case: str, ranks: Ranks) -> None:
    """A third is no binary fraction: multiplying by it and dividing by three differ."""
    for told in (one["common"] for one in ranks(3, "common")):
        assert told[case]["moved"]
        assert len(set(told[case]["hashes"])) == 1


@pytest.mark.parametrize("case", ["even", "scaled", "views", "accumulating"])
def test_norms_are_those_of_unwrapped_twins(case: str, two: Any) -> None:
    for told in two:
        seen, truth = told["truth"][case]["seen"], told["truth"][case]["truth"]
        assert len(seen) == 6
        for (_, big, (small, also_big, count)), true in zip(seen, truth, strict=True):
            assert big == also_big == pytest.approx(true["big"], rel=1e-6)
            assert small == pytest.approx(true["ranks"], rel=1e-6)
            assert count == 2


@pytest.mark.parametrize("case", ["micro", "micro, scaled"])
def test_each_micro_batch_is_seen_by_itself(case: str, two: Any) -> None:
    for told in two:
        seen, truth = told["truth"][case]["seen"], told["truth"][case]["truth"]
        for (batch, big, (small, _, count)), true in zip(seen, truth, strict=True):
            assert (batch, count) == (36, 6)
            assert big == pytest.approx(true["big"], rel=1e-6)
            assert small == pytest.approx(true["micro"], rel=1e-6)


def test_uneven_batches_have_the_noise_and_signal_of_the_plain_mean(two: Any) -> None:
    even = 4 / (1 / 6 + 1 / 7)
    for told in two:
        seen, truth = told["truth"]["uneven"]["seen"], told["truth"]["uneven"]["truth"]
        for (batch, big, (small, weighted, _)), true in zip(seen, truth, strict=True):
            noise = even * (true["ranks"] - true["big"])
            assert (batch, big) == (13, pytest.approx(true["big"], rel=1e-6))
            assert 13 * (small - weighted) == pytest.approx(noise, rel=1e-5)
            assert weighted - noise / 13 == pytest.approx(true["big"] - noise / even, rel=1e-4)


def test_a_nan_on_one_rank_is_seen_on_all_and_poisons_no_later_step(two: Any) -> None:
    for told in two:
        bigs = [big for _, big, _ in told["truth"]["broken"]["seen"]]
        assert math.isnan(bigs[2])
        assert all(math.isfinite(big) and big > 0 for at, big in enumerate(bigs) if at != 2)


def test_what_cannot_be_measured_is_told(two: Any) -> None:
    for told in two:
        assert set(told["sparse"]["reasons"]) == {"a parameter has a sparse gradient"}
        (reason,) = set(told["accumulating without no_sync"]["reasons"])
        assert reason.startswith("gradients were averaged 2 times in one step")
        for _, big, pair in told["accumulating without no_sync"]["seen"]:
            assert big > 0
            assert pair is None


def test_all_ranks_read_the_same_norms(two: Any) -> None:
    assert two[0]["80 steps"]["seen"] == two[1]["80 steps"]["seen"]
    assert len(two[0]["80 steps"]["seen"]) == 80


@pytest.mark.parametrize("case", ["twice", "mixed precision", "own hook"])
def test_a_second_communication_hook_is_refused(case: str, two: Any) -> None:
    for told in two:
        assert told["refusals"][case].startswith("the model has a communication hook already")


def test_no_number_comes_to_the_host_in_a_measured_step(two: Any) -> None:
    assert [told["reads"] for told in two] == [{}, {}]


def test_a_model_that_is_not_wrapped_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="model is a Linear; allowed: a Distributed"):
        DDPSource(torch.nn.Linear(2, 1))
