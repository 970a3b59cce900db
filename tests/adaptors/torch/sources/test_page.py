"""The page on ``watch()``: its code runs on two ranks, and ``attach()`` sends there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def two(ranks: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [told["page"] for told in ranks(2, "all", "fsdp", "watch", "page")]


@pytest.fixture
def on_page(two: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if any(told["blocks"] is None for told in two):
        pytest.skip("not in a checkout")
    return two


@pytest.mark.parametrize(("block", "steps"), [(0, 20), (1, 10)])
def test_the_loops_of_both_wrappers_are_watched(block: int, steps: int, on_page: Any) -> None:
    ddp = [told["blocks"][block] for told in on_page]
    assert [told["step"] for told in ddp] == [steps, steps]
    assert [told["written"] for told in ddp] == [steps, 0], "rank 0 keeps the record"
    assert ddp[0]["small_batches"] == 2


def test_the_loop_draws_the_batch_that_a_policy_asks_for(on_page: Any) -> None:
    for told in on_page:
        resized = told["blocks"][2]
        assert resized["batch_size"] == resized["saved"] == 256
        assert resized["learning_rate"] == pytest.approx(0.02)


def test_attach_sends_a_wrapped_model_to_watch(two: Any) -> None:
    for told in two:
        ddp, fsdp = told["attach"]
        assert ddp.startswith("model is wrapped in DistributedDataParallel; allowed: the plain")
        assert fsdp.startswith("model is sharded by FSDP; allowed: the plain module")
        assert all("call watch()" in line for line in (ddp, fsdp))
