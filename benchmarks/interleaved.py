"""Time the steps of several loops in one process, in turns. Other benchmarks import it; it runs nothing.

Each loop is an *arm*: an iterator that trains one step at each ``next``. All arms live in the same
processes and take turns, a block of steps each, in a new order every round. A round gives one
ratio per arm, against the first arm of the same round.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from math import sqrt
from typing import Any

import torch
import torch.distributed as dist

STEPS_IN_BLOCK = 16
RESAMPLES = 1000

Steps = Iterator[None]
Meet = Callable[[bool], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One loop among those compared.

    Attributes:
        name: What the loop does differently.
        make: Returns the loop.
        package: The distribution whose version is reported; empty: none, it is written here.
        optional: Whether the arm is left out, with a reason, where it cannot run.
        steps_in_block: How many steps the loop trains when it is its turn.
        warm_up: How many it trains first; by default what :func:`compare` is given.
    """

    name: str
    make: Callable[[], Steps]
    package: str = "torch"
    optional: bool = False
    steps_in_block: int = STEPS_IN_BLOCK
    warm_up: int | None = None

    @property
    def version(self) -> str | None:
        try:
            return metadata.version(self.package) if self.package else None
        except metadata.PackageNotFoundError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the steps of each arm that ran took, one number a round, and why the others did not run.

    Attributes:
        seconds: Seconds per step by the clock.
        processor_seconds: Of the processor, per step: what others do on the machine counts less.
        skipped: Arms that could not run, and the reason.
    """

    seconds: dict[str, list[float]]
    processor_seconds: dict[str, list[float]]
    skipped: dict[str, str]


def alone(go_on: bool) -> bool:
    return go_on


def meet(go_on: bool) -> bool:
    """Wait for the other processes; return what rank 0 wants."""
    answer = torch.tensor([go_on])
    dist.broadcast(answer, src=0)
    return bool(answer)


def compare(arms: Sequence[Arm], seconds: float, *, warm_up: int, meet: Meet = alone) -> Comparison:
    """Time the arms in turns for about so many ``seconds``, after ``warm_up`` steps of each."""
    running, skipped = begin(arms, warm_up)
    ready = [arm for arm in arms if arm.name in running]
    order, turn = list(ready), random.Random(0)
    taken: dict[str, list[float]] = {arm.name: [] for arm in ready}
    worked: dict[str, list[float]] = {arm.name: [] for arm in ready}
    end = time.perf_counter() + seconds
    while meet(time.perf_counter() < end or not taken[arms[0].name]):
        turn.shuffle(order)
        for arm in order:
            meet(True)
            began = time.process_time()
            taken[arm.name].append(block(running[arm.name], arm.steps_in_block))
            worked[arm.name].append((time.process_time() - began) / arm.steps_in_block)
    return Comparison(seconds=taken, processor_seconds=worked, skipped=skipped)


def begin(arms: Sequence[Arm], warm_up: int) -> tuple[dict[str, Steps], dict[str, str]]:
    """Start and warm up the loops; return those that run, and why the others do not."""
    running: dict[str, Steps] = {}
    skipped: dict[str, str] = {}
    for arm in arms:
        steps = arm.make()
        try:
            block(steps, warm_up if arm.warm_up is None else arm.warm_up)
        except Exception as error:  # whatever a tool of others does where it does not fit
            if not arm.optional:
                raise
            skipped[arm.name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            running[arm.name] = steps
    return running, skipped


def block(steps: Steps, count: int) -> float:
    """Return the seconds per step of so many steps."""
    before = time.perf_counter()
    for _ in range(count):
        next(steps)
    return (time.perf_counter() - before) / max(count, 1)


# What is said of it -------------------------------------------------------------------------------


def report(benchmark: str, case: str, arms: Sequence[Arm], found: Comparison) -> None:
    """Print one JSON object for every arm but the first, which the others are against."""
    base = arms[0].name
    for arm in arms[1:]:
        row: dict[str, Any] = {
            "benchmark": benchmark,
            "case": case,
            "arm": arm.name,
            "version": arm.version,
        }
        if arm.name in found.skipped:
            row["skipped"] = found.skipped[arm.name]
        else:
            row |= {"against": base} | figures(found.seconds[arm.name], found.seconds[base])
            worked = found.processor_seconds
            row |= processor_figures(worked[arm.name], worked[base])
            row["steps_in_block"] = arm.steps_in_block
        row |= {
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "load_average": round(os.getloadavg()[0], 2),
        }
        print(json.dumps(row), flush=True)


def figures(mine: Sequence[float], plain: Sequence[float]) -> dict[str, float]:
    """Return the median of the rounds' ratios and the ratio of the totals, with 95 % intervals.

    The median says what a usual round costs, however badly the machine was disturbed in others.
    Where few steps of many cost something, most rounds hold none of them: then only the
    ratio of the totals says what the loop costs.
    """
    ratios = sorted(one / other for one, other in zip(mine, plain, strict=True))
    low, high = interval_of_median(ratios)
    total_low, total_high = interval_of_total(mine, plain)
    return {
        "median_ratio": round(statistics.median(ratios), 4),
        "ratio_low": round(low, 4),
        "ratio_high": round(high, 4),
        "total_ratio": round(sum(mine) / sum(plain), 4),
        "total_low": round(total_low, 4),
        "total_high": round(total_high, 4),
        "rounds": len(ratios),
        "step_ms": round(1e3 * statistics.median(mine), 3),
        "against_step_ms": round(1e3 * statistics.median(plain), 3),
    }


def processor_figures(mine: Sequence[float], plain: Sequence[float]) -> dict[str, float]:
    """Return the ratio of the totals of processor time, with its 95 % interval.

    Other work on the machine lengthens a step by the clock, and hardly the processor's time for it.
    Waiting for another process costs no processor time and is not in it.
    """
    low, high = interval_of_total(mine, plain)
    return {
        "processor_ratio": round(sum(mine) / sum(plain), 4),
        "processor_low": round(low, 4),
        "processor_high": round(high, 4),
    }


def interval_of_median(ordered: Sequence[float]) -> tuple[float, float]:
    """About 95 %, from order statistics: no shape of the distribution is assumed."""
    middle, spread = len(ordered) / 2, 1.96 * sqrt(len(ordered)) / 2
    return ordered[max(0, int(middle - spread))], ordered[
        min(len(ordered) - 1, int(middle + spread))
    ]


def interval_of_total(mine: Sequence[float], plain: Sequence[float]) -> tuple[float, float]:
    """About 95 %, from drawing rounds anew (percentile bootstrap; Efron 1979)."""
    turn, rounds = random.Random(0), list(zip(mine, plain, strict=True))
    totals = []
    for _ in range(RESAMPLES):
        drawn = turn.choices(rounds, k=len(rounds))
        totals.append(sum(one for one, _ in drawn) / sum(other for _, other in drawn))
    totals.sort()
    return totals[int(0.025 * RESAMPLES)], totals[int(0.975 * RESAMPLES)]


# Processes ----------------------------------------------------------------------------------------


def in_processes(count: int, target: Callable[..., None], *arguments: Any) -> int:
    """Run ``target(rank, port, *arguments)`` in new processes; return the first bad exit code, or 0."""
    spawning = multiprocessing.get_context("spawn")
    port = free_port()
    processes = [
        spawning.Process(target=target, args=(rank, port, *arguments)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return next((abs(process.exitcode) for process in processes if process.exitcode), 0)


def free_port() -> int:
    """Return a port of the loopback address that is free now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
