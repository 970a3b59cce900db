"""Loops that do what a measuring job would rather they did not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from workbench import StepFacts
from workbench.adaptors.torch import Job, attach
from workbench.testing import MemoryTracker


@pytest.fixture
def started(
    make_mlp: Callable[..., Any], make_rows: Callable[..., Any]
) -> Callable[..., tuple[Job, Any, torch.optim.Optimizer, MemoryTracker]]:
    """A job whose loop the test writes itself."""

    def start(
        *, model: Any = None, lr: float = 0.1, count: int = 96, **options: Any
    ) -> tuple[Job, Any, torch.optim.Optimizer, MemoryTracker]:
        model = make_mlp() if model is None else model
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        tracker = MemoryTracker()
        options = {"batch_size": 16, "measure_every": 1, "shuffle": False} | options
        job = attach(model, optimizer, make_rows(count), trackers=[tracker], **options)
        return job, model, optimizer, tracker

    return start


def facts_of(tracker: MemoryTracker) -> list[StepFacts]:
    return [record.facts for record in tracker.records]


@pytest.mark.parametrize("largest", [None, 8])
def test_norms_are_those_of_the_scale_in_force_although_the_loop_updates_it(
    started: Callable[..., Any], largest: int | None
) -> None:
    def norms(growth_interval: int) -> list[float | None]:
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=growth_interval)
        job, model, optimizer, tracker = started(
            lr=0.0,
            grad_scaler=scaler,
            max_batch_size_per_worker=largest,
            steps_at_boundary=True,
            monitors=["noise_scale"],
        )
        for epoch in job.epochs(1):
            for inputs, targets, _ in epoch:
                scaler.scale(F.cross_entropy(model(inputs), targets)).backward()
                if job.at_boundary:
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
        job.close()
        return [facts.grad_sqnorm_big for facts in facts_of(tracker)]

    fixed = norms(growth_interval=1000)
    assert len(fixed) == 6
    assert norms(growth_interval=1) == pytest.approx(fixed, rel=1e-5)


def test_a_step_that_the_loop_breaks_off_leaves_nothing_for_the_next(
    started: Callable[..., Any],
) -> None:
    def run(*, broken_off: bool) -> tuple[list[torch.Tensor], list[Any]]:
        job, model, optimizer, tracker = started(
            max_batch_size_per_worker=8, monitors=["noise_scale"]
        )
        for epoch in job.epochs(2):
            for inputs, targets, _ in epoch:
                if epoch.number == 1 or broken_off:
                    loss = F.cross_entropy(model(inputs), targets)
                    job.observe(loss=loss)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    optimizer.zero_grad()
                if epoch.number == 0:
                    break
        job.close()
        facts = facts_of(tracker)
        numbers = [(one.loss, one.grad_sqnorm_small, one.grad_sqnorm_big) for one in facts]
        return list(model.state_dict().values()), numbers

    whole, broken = run(broken_off=False), run(broken_off=True)
    assert all(map(torch.equal, whole[0], broken[0]))
    assert whole[1] == broken[1]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_second_backward_pass_makes_the_norms_of_a_step_undetermined_not_wrong(
    started: Callable[..., Any], set_to_none: bool
) -> None:
    job, model, optimizer, tracker = started(monitors=["noise_scale"])
    for epoch in job.epochs(1):
        for inputs, targets, _ in epoch:
            for _ in range(1 + (job.step == 3)):
                F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
    job.close()
    facts = facts_of(tracker)
    assert [one.grad_sqnorm_big is None for one in facts] == [at == 3 for at in range(6)]
    assert all(one.grad_sqnorm_big is None or one.grad_sqnorm_big > 0.01 for one in facts)
