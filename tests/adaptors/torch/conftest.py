"""Small models and datasets, and the user's own loop, for tests of the torch adaptor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from workbench.adaptors.torch import Job, attach
from workbench.testing import MemoryTracker


@dataclass
class Ran:
    """What a loop left."""

    job: Job
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    tracker: MemoryTracker
    batches: list[torch.Tensor] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        return [record.facts.loss or 0.0 for record in self.tracker.records]

    @property
    def weights(self) -> list[torch.Tensor]:
        return list(self.model.state_dict().values())


def mlp(seed: int = 0, *, normalise: bool = False, dropout: float = 0.0) -> torch.nn.Module:
    torch.manual_seed(seed)
    middle = torch.nn.BatchNorm1d(16) if normalise else torch.nn.Identity()
    return torch.nn.Sequential(
        torch.nn.Linear(8, 16),
        middle,
        torch.nn.ReLU(),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(16, 3),
    )


def rows(count: int) -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 8, generator=generator)
    return torch.utils.data.TensorDataset(
        inputs, torch.randint(0, 3, (count,), generator=generator), torch.arange(count)
    )


@pytest.fixture
def make_mlp() -> Callable[..., torch.nn.Module]:
    return mlp


@pytest.fixture
def make_rows() -> Callable[..., torch.utils.data.TensorDataset]:
    return rows


@pytest.fixture
def loop() -> Iterator[Callable[..., Ran]]:
    """The loop of the documentation, with everything about it an option."""
    opened: list[Job] = []

    def run(
        *,
        model: torch.nn.Module | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
        lr: float = 0.05,
        dataset: Any = None,
        count: int = 103,
        epochs: int = 2,
        clip: float | None = None,
        scheduler: Callable[..., Any] | None = None,
        forward: Callable[..., Any] | None = None,
        **options: Any,
    ) -> Ran:
        model = model or mlp()
        stepper = optimizer(model.parameters(), lr=lr)
        plan = scheduler(stepper) if scheduler else None
        tracker = MemoryTracker()
        options.setdefault("batch_size", 16)
        options.setdefault("measure_every", 1)
        options.setdefault("read_lag", 0)
        job = attach(
            model,
            stepper,
            rows(count) if dataset is None else dataset,
            trackers=[tracker],
            **options,
        )
        opened.append(job)
        ran = Ran(job, model, stepper, tracker)
        torch.manual_seed(7)
        for epoch in job.epochs(epochs):
            for inputs, targets, index in epoch:
                ran.batches.append(index)
                ran.rates.append(job.learning_rate)
                loss = F.cross_entropy((forward or model)(inputs), targets)
                job.observe(loss=loss)
                loss.backward()  # type: ignore[no-untyped-call]
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                stepper.step()
                stepper.zero_grad()
                if plan is not None and job.at_boundary:
                    plan.step()
        job.flush()
        return ran

    yield run
    for job in opened:
        job.close()
