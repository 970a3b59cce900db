"""Decisions are carried out at the step boundary, recorded with their cause and outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from workbench import Keep, Resize, SetBatchSize, SetLearningRate, SetSync, Stop, View
from workbench.arbiter import Limits
from workbench.decision import Decision
from workbench.policies import GrowWithNoise


@dataclass(frozen=True)
class At:
    """One decision after one step."""

    step: int
    decision: Decision

    def decide(self, view: View) -> Decision:
        return self.decision if view.step == self.step else Keep()


def decided(ran: Any) -> list[Any]:
    return [record for record in ran.tracker.records if record.outcome is not None]


def test_a_new_batch_size_holds_from_the_next_step_on(loop: Callable[..., Any]) -> None:
    ran = loop(policies=[At(3, SetBatchSize(32, reason="because"))], epochs=1)
    sizes = [record.facts.batch_size_global for record in ran.tracker.records]
    assert sizes == [16, 16, 16, 32, 23]
    (record,) = decided(ran)
    assert (record.facts.step, record.policy, record.decision.reason) == (3, "At", "because")
    assert record.outcome.detail == "batch size 16 -> 32"


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("linear", 4.0), ("square_root", 2.0)])
def test_the_rate_follows_the_batch_by_the_rule(
    loop: Callable[..., Any], rule: str, factor: float
) -> None:
    ran = loop(policies=[At(2, SetBatchSize(64))], learning_rate_rule=rule, lr=0.1)
    assert ran.rates[:3] == pytest.approx([0.1, 0.1, 0.1 * factor])
    applied = [record.facts.learning_rate for record in ran.tracker.records]
    assert applied[:3] == pytest.approx([0.1, 0.1, 0.1 * factor])
    assert ran.optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
        lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    ],
    ids=["closed form", "chained"],
)
def test_a_scheduler_composes_with_the_rule_exactly(
    loop: Callable[..., Any], scheduler: Any
) -> None:
    ran = loop(
        policies=[At(4, SetBatchSize(32))],
        learning_rate_rule="linear",
        lr=0.1,
        scheduler=scheduler,
        max_batch_size_per_worker=16,
        epochs=1,
    )
    rates = [record.facts.learning_rate for record in ran.tracker.records]
    expected = [0.1 * 0.9**step * (2.0 if step >= 4 else 1.0) for step in range(len(rates))]
    assert rates == pytest.approx(expected, rel=1e-9)


def test_a_learning_rate_decision_multiplies_the_schedule(loop: Callable[..., Any]) -> None:
    ran = loop(policies=[At(2, SetLearningRate(0.5))], lr=0.1)
    assert ran.rates[:4] == pytest.approx([0.1, 0.1, 0.05, 0.05])
    assert decided(ran)[0].outcome.kind == "applied"


def test_stop_ends_training_after_the_step(loop: Callable[..., Any]) -> None:
    ran = loop(policies=[At(5, Stop(reason="enough"))], epochs=9)
    assert (ran.job.step, ran.job.stopped) == (5, "enough")


@pytest.mark.parametrize(
    ("decision", "reason"),
    [(Resize(4), "fixed number of workers"), (SetSync("local_sgd"), "every step")],
)
def test_what_cannot_be_done_is_refused_with_a_reason_and_training_goes_on(
    loop: Callable[..., Any], decision: Decision, reason: str
) -> None:
    ran = loop(policies=[At(2, decision)], epochs=1)
    (record,) = decided(ran)
    assert record.outcome.kind == "refused"
    assert reason in record.outcome.reason
    assert ran.job.step == 7


def test_the_batch_grows_with_the_noise_scale_and_says_why(loop: Callable[..., Any]) -> None:
    ran = loop(
        count=2000,
        epochs=6,
        batch_size=8,
        lr=0.01,
        measure_every=1,
        policies=[GrowWithNoise(max_batch_size=64)],
        limits=Limits(cool_down_steps=20),
    )
    changes = decided(ran)
    assert changes
    assert 8 < ran.job.batch_size <= 64
    for record in changes:
        noise = record.decision.because[0]
        assert noise.name == "noise_scale"
        assert noise.low > record.facts.batch_size_target
        assert record.decision.batch_size_global <= 2 * record.facts.batch_size_target
        assert "surely above" in record.decision.reason


def test_a_policy_that_raises_is_reported_once_and_training_goes_on(
    loop: Callable[..., Any],
) -> None:
    class Broken:
        def decide(self, view: View) -> Decision:
            raise ZeroDivisionError(f"at step {view.step}")

    ran = loop(policies=[Broken()], epochs=1)
    faults = [fault for record in ran.tracker.records for fault in record.faults]
    assert [(fault.step, fault.part) for fault in faults] == [(1, "policy Broken")]
    assert ran.job.step == 7


def test_reading_numbers_a_step_later_records_the_same_facts(loop: Callable[..., Any]) -> None:
    at_once, later = (loop(read_lag=lag, single_worker="split") for lag in (0, 2))
    names = ("step", "samples", "loss", "grad_sqnorm_big", "grad_sqnorm_small", "learning_rate")
    for one, other in zip(at_once.tracker.records, later.tracker.records, strict=True):
        for name in names:
            assert getattr(one.facts, name) == getattr(other.facts, name)
