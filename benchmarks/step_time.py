"""What a step costs with monitors and without: one worker, and two against plain torch DDP.

All arms live in the same processes and take turns, a block of steps each, in a new order every
round; a round gives one ratio per arm, against the plain loop of the same round. The plain loop runs
twice, as two arms: their ratio, whose truth is 1, shows how much of a difference is noise.

    python benchmarks/step_time.py [--seconds 45]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from workbench.adaptors.torch import attach
from workbench.monitors import DEFAULT_MONITORS

BATCH_SIZE_GLOBAL = 64
STEPS_IN_BLOCK = 16  # holds one of the splits that one worker makes every 16 steps
BLOCKS_TO_WARM_UP = 4
NO_MONITORS: tuple[str, ...] = ()

Steps = Iterator[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=45.0, help="for each of the two cases")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    report("one worker", compare(one_worker(), seconds))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(in_processes(2, str(Path(folder) / "meeting"), seconds))


def in_processes(count: int, meeting: str, seconds: float) -> int:
    """Run :func:`two_workers` in so many processes; return the first bad exit code, or 0."""
    spawning = multiprocessing.get_context("spawn")
    processes = [
        spawning.Process(target=two_workers, args=(rank, meeting, seconds)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return next((process.exitcode for process in processes if process.exitcode), 0)


def one_worker() -> dict[str, Steps]:
    return {
        "plain": plain_steps(*parts()),
        "plain again": plain_steps(*parts()),
        "attached, no monitors": attached_steps(monitors=NO_MONITORS),
        "attached, monitors": attached_steps(),
        "attached, monitors, no split": attached_steps(split_every=0),
    }


def two_workers(rank: int, meeting: str, seconds: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    ratios = compare(
        {
            "DDP": ddp_steps(),
            "DDP again": ddp_steps(),
            "attached, no monitors": attached_steps(monitors=NO_MONITORS),
            "attached, monitors": attached_steps(),
        },
        seconds,
        meet=meet,
    )
    if rank == 0:
        report("two workers, gloo", ratios)
    dist.destroy_process_group()


# The arms -----------------------------------------------------------------------------------------


def parts() -> tuple[torch.nn.Module, torch.optim.Optimizer, TensorDataset]:
    """A perceptron of 669,706 parameters on noise the shape of MNIST."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    rows = 60 * BATCH_SIZE_GLOBAL
    return model, optimizer, TensorDataset(torch.randn(rows, 784), torch.randint(10, (rows,)))


def plain_steps(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, dataset: TensorDataset
) -> Steps:
    loader = DataLoader(dataset, batch_size=BATCH_SIZE_GLOBAL, shuffle=True)
    while True:
        for inputs, targets in loader:
            train(model, optimizer, inputs, targets)
            yield


def ddp_steps() -> Steps:
    model, optimizer, dataset = parts()
    wrapped = DistributedDataParallel(model)
    sampler: DistributedSampler[TensorDataset] = DistributedSampler(dataset)
    share = BATCH_SIZE_GLOBAL // dist.get_world_size()
    loader = DataLoader(dataset, batch_size=share, sampler=sampler)
    while True:
        for inputs, targets in loader:
            train(wrapped, optimizer, inputs, targets)
            yield


def attached_steps(*, monitors: Sequence[str] = DEFAULT_MONITORS, split_every: int = 16) -> Steps:
    model, optimizer, dataset = parts()
    job = attach(
        model,
        optimizer,
        dataset,
        batch_size=BATCH_SIZE_GLOBAL,
        monitors=monitors,
        split_every=split_every,
    )
    for epoch in job.epochs(10**9):
        for inputs, targets in epoch:
            train(model, optimizer, inputs, targets)
            yield


def train(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
) -> None:
    loss = torch.nn.functional.cross_entropy(model(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()


# The comparison -----------------------------------------------------------------------------------


def alone(go_on: bool) -> bool:
    return go_on


def meet(go_on: bool) -> bool:
    """Wait for the other process; return what rank 0 wants."""
    answer = torch.tensor([go_on])
    dist.broadcast(answer, src=0)
    return bool(answer)


def compare(
    arms: dict[str, Steps], seconds: float, *, meet: Callable[[bool], bool] = alone
) -> dict[str, list[float]]:
    """Return each arm's seconds per step, one number a round."""
    for steps in arms.values():
        block(steps, BLOCKS_TO_WARM_UP * STEPS_IN_BLOCK)
    order, turn = list(arms), random.Random(0)
    taken: dict[str, list[float]] = {name: [] for name in arms}
    end = time.perf_counter() + seconds
    while meet(time.perf_counter() < end):
        turn.shuffle(order)
        for name in order:
            meet(True)
            taken[name].append(block(arms[name], STEPS_IN_BLOCK) / STEPS_IN_BLOCK)
    return taken


def block(steps: Steps, count: int) -> float:
    before = time.perf_counter()
    for _ in range(count):
        next(steps)
    return time.perf_counter() - before


def report(case: str, taken: dict[str, list[float]]) -> None:
    (base, base_seconds), *others = taken.items()
    for name, seconds in others:
        ratios = sorted(mine / plain for mine, plain in zip(seconds, base_seconds, strict=True))
        low, high = interval_of_median(ratios)
        row = {
            "benchmark": "step_time",
            "case": case,
            "arm": name,
            "against": base,
            "median_ratio": round(statistics.median(ratios), 4),
            "ratio_low": round(low, 4),
            "ratio_high": round(high, 4),
            "rounds": len(ratios),
            "step_ms": round(1e3 * statistics.median(seconds), 3),
            "against_step_ms": round(1e3 * statistics.median(base_seconds), 3),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        print(json.dumps(row), flush=True)


def interval_of_median(ordered: Sequence[float]) -> tuple[float, float]:
    """About 95 %, from order statistics: no shape of the distribution is assumed."""
    middle, spread = len(ordered) / 2, 1.96 * sqrt(len(ordered)) / 2
    return ordered[max(0, int(middle - spread))], ordered[
        min(len(ordered) - 1, int(middle + spread))
    ]


if __name__ == "__main__":
    main()
