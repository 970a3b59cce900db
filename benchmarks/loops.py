"""The training loops that benchmarks compare: plain, under DDP, attached. It runs nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from interleaved import Steps
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from workbench.adaptors.torch import attach
from workbench.adaptors.torch.watching import watch

BATCHES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A model to train, the same whoever asks: its weights and its data come from one seed."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    dataset: TensorDataset
    batch_size: int


MakeTask = Callable[[], Task]


def perceptron(*, momentum: float = 0.9) -> Task:
    """Return a perceptron of 669,706 parameters on noise the shape of MNIST, batch 64."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 10),
    )
    rows = BATCHES * 64
    return Task(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=momentum),
        dataset=TensorDataset(torch.randn(rows, 784), torch.randint(10, (rows,))),
        batch_size=64,
    )


def transformer() -> Task:
    """Return a small causal transformer of bytes: 1.8 million parameters, 16 texts of 64 bytes."""
    torch.manual_seed(0)
    model = Bytes(width=256, layers=2, length=64)
    rows = BATCHES * 16
    texts = torch.randint(256, (rows, 65))
    return Task(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4),
        dataset=TensorDataset(texts[:, :-1].contiguous(), texts[:, 1:].contiguous()),
        batch_size=16,
    )


class Bytes(torch.nn.Module):
    """Scores of the next byte at each place of a text."""

    def __init__(self, *, width: int, layers: int, length: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(256, width)
        self.place = torch.nn.Embedding(length, width)
        layer = torch.nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = torch.nn.Linear(width, 256)
        self.register_buffer("mask", torch.nn.Transformer.generate_square_subsequent_mask(length))
        self.register_buffer("places", torch.arange(length))

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        """Return scores of shape ``(texts, 256, places)``, as ``cross_entropy`` wants them."""
        rows = self.embedding(texts) + self.place(self.places)
        scores: torch.Tensor = self.head(self.layers(rows, mask=self.mask, is_causal=True))
        return scores.transpose(1, 2)


def train(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
) -> None:
    loss = cross_entropy(model(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()


def plain_steps(make: MakeTask) -> Steps:
    task = make()
    loader = DataLoader(task.dataset, batch_size=task.batch_size, shuffle=True)
    while True:
        for inputs, targets in loader:
            train(task.model, task.optimizer, inputs, targets)
            yield


def share_of(task: Task) -> DataLoader[Any]:
    """Return a loader of this rank's part of every batch."""
    sampler: DistributedSampler[TensorDataset] = DistributedSampler(task.dataset)
    share = task.batch_size // dist.get_world_size()
    return DataLoader(task.dataset, batch_size=share, sampler=sampler)


def ddp_steps(make: MakeTask) -> Steps:
    task = make()
    wrapped = DistributedDataParallel(task.model)
    loader = share_of(task)
    while True:
        for inputs, targets in loader:
            train(wrapped, task.optimizer, inputs, targets)
            yield


def watched_steps(make: MakeTask, **options: Any) -> Steps:
    """Train under DDP, watched through its communication hook."""
    task, clock = make(), OwnTime()
    wrapped = DistributedDataParallel(task.model)
    watching = watch(wrapped, task.optimizer, batch_size=task.batch_size, clock=clock, **options)
    loader = share_of(task)
    while True:
        for inputs, targets in loader:
            loss = cross_entropy(wrapped(inputs), targets)
            watching.observe(loss=loss, samples=len(inputs))
            loss.backward()  # type: ignore[no-untyped-call]
            task.optimizer.step()
            task.optimizer.zero_grad()
            clock.leave()
            yield
            clock.come_back()


def attached_steps(make: MakeTask, **options: Any) -> Steps:
    task, clock = make(), OwnTime()
    job = attach(
        task.model,
        task.optimizer,
        task.dataset,
        batch_size=task.batch_size,
        clock=clock,
        **options,
    )
    for epoch in job.epochs(10**9):
        for inputs, targets in epoch:
            train(task.model, task.optimizer, inputs, targets)
            clock.leave()
            yield
            clock.come_back()


class OwnTime:
    """Seconds that pass while it is this loop's turn, so that the job times its own steps alone.

    Example:
        >>> clock = OwnTime()
        >>> clock.leave()
        >>> time.sleep(0.01)
        >>> clock.come_back()
        >>> clock.away >= 0.01
        True
    """

    def __init__(self) -> None:
        self.away = 0.0
        self._left = 0.0

    def __call__(self) -> float:
        return time.perf_counter() - self.away

    def leave(self) -> None:
        self._left = time.perf_counter()

    def come_back(self) -> None:
        self.away += time.perf_counter() - self._left
