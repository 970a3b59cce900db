"""A watched loop under DDP and FSDP2: facts, one decision on all ranks, no weight changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from workbench.adaptors.torch.watching import watch
from workbench.errors import ConfigurationError

pytestmark = pytest.mark.timeout(300)
STEP, SAMPLES, BATCH, TARGET, LOSS, ORIGIN, COUNT, SMALL, BIG, RATE = range(10)


@pytest.fixture
def two(ranks: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [told["watch"] for told in ranks(2, "all", "fsdp", "watch", "page")]


@pytest.mark.parametrize(
    ("watched", "plain"), [("budget", "plain ddp"), ("watched fsdp", "plain fsdp")]
)
def test_watching_changes_no_weight(watched: str, plain: str, two: Any) -> None:
    for told in two:
        assert told[watched]["weights"] == told[plain]["weights"]


@pytest.mark.parametrize("how", ["ddp", "fsdp", "one by one"])
def test_all_ranks_decide_the_same_at_the_same_step(how: str, two: Any) -> None:
    one, other = (told[how] for told in two)
    for key in ("step", "stopped", "asked", "saved", "signals", "rates"):
        assert one[key] == other[key], key
    assert one["weights"] == other["weights"]
    assert one["stopped"] == "enough"
    assert one["asked"] == [20, 7]


@pytest.mark.parametrize(("how", "end"), [("ddp", 33), ("fsdp", 33), ("one by one", 27)])
def test_decisions_are_applied_or_refused_with_the_next_exchange(
    how: str, end: int, two: Any
) -> None:
    told = two[0][how]
    assert told["outcomes"] == [
        [5, "set_learning_rate", "applied"],
        [10, "set_batch_size", "applied"],
        [14, "resize", "refused"],
        [18, "set_batch_size", "refused"],
        [26, "stop", "applied"],
    ]
    assert told["step"] == len(told["facts"]) == end, "asked at 26, heard after the exchange"


def test_the_rate_is_scaled_and_the_schedule_does_not_see_it(two: Any) -> None:
    told = two[0]["one by one"]
    assert told["rates"] == pytest.approx([0.1 * 0.99**at for at in range(27)])
    applied = [row[RATE] for row in told["facts"]]
    assert applied[:6] == pytest.approx(told["rates"][:6])
    assert applied[6:] == pytest.approx([0.5 * rate for rate in told["rates"][6:]])


def test_facts_are_those_of_all_ranks(two: Any) -> None:
    rows = two[0]["ddp"]["facts"]
    losses = [told["ddp"]["losses"] for told in two]
    for at, row in enumerate(rows):
        assert row[STEP] == at + 1
        assert row[LOSS] == pytest.approx((losses[0][at] + losses[1][at]) / 2, rel=1e-6)
        assert (row[ORIGIN], row[COUNT]) == ("ranks", 2)
        assert row[SMALL] >= row[BIG] > 0.0
    assert [row[BATCH] for row in rows[:16] + rows[-4:]] == [12] * 16 + [20] * 4
    assert rows[-1][SAMPLES] == sum(row[BATCH] for row in rows)


def test_both_wrappers_measure_the_same_training(two: Any) -> None:
    for ddp, fsdp in zip(two[0]["ddp"]["facts"], two[0]["fsdp"]["facts"], strict=True):
        assert fsdp[SMALL] == pytest.approx(ddp[SMALL], rel=1e-4)
        assert fsdp[BIG] == pytest.approx(ddp[BIG], rel=1e-4)


def test_micro_batches_count_apart(two: Any) -> None:
    told = two[0]["micro"]
    assert {(row[ORIGIN], row[COUNT], row[BATCH]) for row in told["facts"]} == {
        ("ranks+micro-batches", 6, 12)
    }
    assert told["faults"] == []


def test_why_small_batches_are_not_measured_is_told_once(two: Any) -> None:
    told = two[0]["synchronised"]
    assert {row[COUNT] for row in told["facts"]} == {0}
    (fault,) = told["faults"]
    assert fault.startswith("gradients were averaged 2 times in one step")


def test_within_a_budget_some_steps_are_measured_and_every_loss_is_known(two: Any) -> None:
    rows = two[0]["budget"]["facts"]
    measured = [row[STEP] for row in rows if row[BIG] is not None]
    assert measured[0] == 1
    assert 10 <= len(measured) < 60
    assert all(row[LOSS] is not None for row in rows)
    assert all(seconds > 0.0 for seconds in two[0]["budget"]["monitor_seconds"])


def test_a_saved_watch_goes_on(two: Any) -> None:
    told = two[0]["resumed"]
    assert told["facts"][0][STEP] == 21
    assert told["saved"] == [40, 480, 12]


def test_a_plain_module_is_sent_to_attach() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigurationError, match=r"for a plain module use attach\(\)"):
        watch(model, optimizer, batch_size=8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0; allowed: a whole number, 1 or more"),
        ({"batch_size": 8, "exchange_every": 0}, "exchange_every is 0"),
        ({"batch_size": 8, "learning_rate_rule": "cubic"}, "learning_rate_rule is .cubic."),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], words: str) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigurationError, match=words):
        watch(model, optimizer, **options)
