"""A probe inside a running job: two hundred steps, bit for bit as without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import TensorDataset

from workbench.adaptors.torch import attach
from workbench.adaptors.torch.probes import critical_batch, sharpness
from workbench.facts import StepFacts
from workbench.policies import Schedule
from workbench.testing import MemoryTracker

STEPS, AT = 200, 101


def rows(count: int = 640) -> TensorDataset:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(count, 8, generator=generator)
    return TensorDataset(inputs, (inputs[:, :3] + 0.3 * inputs[:, 3:6]).argmax(1))


def probes(model: torch.nn.Module, optimizer: torch.optim.Optimizer, job: Any) -> None:
    data = rows()
    found = critical_batch(
        model,
        optimizer,
        data,
        F.cross_entropy,
        batch_size=job.batch_size,
        held_out=data,
        samples=job.batch_size * 8,
        repeats=2,
        learning_rate=job.learning_rate,
    )
    assert len(set(found.control_losses)) == 2
    measured = sharpness(model, F.cross_entropy, [data[:64], data[64:100]])
    assert measured.signal().determined, measured.reason


def run(place: str, *, accumulate: int | None, **options: Any) -> tuple[list[Any], list[StepFacts]]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16),
        torch.nn.BatchNorm1d(16),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(16, 3),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    tracker = MemoryTracker()
    job = attach(
        model,
        optimizer,
        rows(),
        batch_size=16,
        policies=[Schedule(at={60: 32})],
        learning_rate_rule="square_root",
        max_batch_size_per_worker=accumulate,
        trackers=[tracker],
        measure_every=2,
        **options,
    )
    probed = False
    torch.manual_seed(7)
    for epoch in job.epochs(20):
        for inputs, targets in epoch:
            due = job.step + 1 == AT and not probed
            if due and place == "before forward":
                probes(model, optimizer, job)
            loss = F.cross_entropy(model(inputs), targets)
            if due and place == "before backward":
                probes(model, optimizer, job)
            loss.backward()  # type: ignore[no-untyped-call]
            if due and place == "before step":
                probes(model, optimizer, job)
            optimizer.step()
            optimizer.zero_grad()
            probed = probed or due
            if job.at_boundary:
                plan.step()
            if job.step >= STEPS:
                break
        if job.step >= STEPS:
            break
    job.flush()
    job.close()
    facts = [
        replace(record.facts, seconds=0.0, monitor_seconds=0.0, phases=None, ranks=())
        for record in tracker.records
    ]
    left = [*model.state_dict().values(), *optimizer.state_dict()["state"].values()]
    return [*left, torch.get_rng_state(), plan.state_dict()], facts


def flat(things: list[Any]) -> list[Any]:
    return [
        part
        for thing in things
        for part in (thing.values() if isinstance(thing, dict) else [thing])
    ]


@pytest.mark.parametrize("accumulate", [None, 8])
def test_two_hundred_steps_with_probes_in_the_middle_are_those_without(
    accumulate: int | None,
) -> None:
    plain, facts = run("nowhere", accumulate=accumulate)
    assert len(facts) >= STEPS - 1
    assert any(one.splits for one in facts[AT:])
    for place in ("before forward", "before backward", "before step"):
        probed, seen = run(place, accumulate=accumulate)
        assert all(
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
            for a, b in zip(flat(plain), flat(probed), strict=True)
        ), place
        assert seen == facts, place
