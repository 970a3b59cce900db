"""Draw where time goes and what memory is held in a small run, and stragglers in a simulated job.

Run from the root of the repository: ``python docs/plots/job_signals.py``; about half a minute.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from matplotlib import pyplot as plt
from signals import BLUE, GREEN, ORANGE, save, signals

from workbench.facts import PhaseSeconds, RankFacts, StepFacts
from workbench.monitors import PHASE_NAMES, build_monitor

STEPS, SLOW_DATA, LARGER = 300, 100, 200


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds at the ends of the phases of one step, from its start."""

    data: float
    forward: float
    backward: float
    optimizer: float


def blank(step: int, seconds: float, workers: int = 1, batch: int = 256) -> StepFacts:
    """Return the facts of a step of which nothing else is known."""
    return StepFacts(
        step=step,
        epoch=0,
        samples=batch * step,
        seconds=seconds,
        workers=workers,
        batch_size_global=batch,
        batch_size_target=256,
    )


def held_bytes() -> float:
    """Return the most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def trained() -> list[StepFacts]:
    """Train; from step 101 on each batch is sorted three times, from 201 on it is eight times larger."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 256)
    )
    optimizer = torch.optim.AdamW(model.parameters())
    data, found = torch.randn(8192, 256), []
    for step in range(1, STEPS + 1):
        batch = 256 if step <= LARGER else 2048
        start = time.perf_counter()
        rows = data[torch.randint(len(data), (batch,))]
        for _ in range(3 if step > SLOW_DATA else 0):
            rows = rows.sort(dim=1).values
        read = time.perf_counter()
        loss = (model(rows) - rows).square().mean()
        ahead = time.perf_counter()
        loss.backward()
        back = time.perf_counter()
        optimizer.step()
        stepped = time.perf_counter()
        optimizer.zero_grad()
        clock = Clock(read - start, ahead - read, back - ahead, stepped - back)
        found.append(facts_of(step, batch, clock, time.perf_counter() - start))
    return found


def facts_of(step: int, batch: int, clock: Clock, seconds: float) -> StepFacts:
    """Return the facts of a timed step."""
    rank = RankFacts(busy_seconds=seconds, data_seconds=clock.data, memory_bytes=held_bytes())
    phases = PhaseSeconds(
        data=clock.data,
        forward=clock.forward,
        backward=clock.backward,
        optimizer=clock.optimizer,
    )
    return replace(blank(step, seconds, batch=batch), phases=phases, ranks=(rank,))


def simulated() -> list[StepFacts]:
    """Return 200 steps of 8 ranks: rank 2 stalls once, rank 5 waits for data from 60 to 120."""
    chance = random.Random(0)
    found = []
    for step in range(1, 201):
        ranks = []
        for rank in range(8):
            busy, data = 0.2 * chance.lognormvariate(0.0, 0.05), 0.01
            if rank == 5 and 60 <= step <= 120:
                busy, data = busy + 0.2, data + 0.2
            if rank == 2 and step == 30:
                busy += 1.5
            ranks.append(RankFacts(busy_seconds=busy, data_seconds=data))
        plain = blank(step, max(rank.busy_seconds for rank in ranks), workers=8)
        found.append(replace(plain, ranks=tuple(ranks)))
    return found


def draw_shares(facts: Sequence[StepFacts]) -> None:
    """Draw the shares of the phases on top of one another."""
    phases = [phase for phase in PHASE_NAMES if phase != "communication"]
    rows = []
    for phase in phases:
        found = signals(build_monitor(f"share_{phase}", {"window_steps": 20}), facts)
        rows.append([signal.value for signal in found])
    figure, axes = plt.subplots(figsize=(6.0, 3.2))
    colours = ("#c05621", "#2b6cb0", "#63b3ed", "#2f855a")
    labels = [f"share_{phase}" for phase in phases]
    axes.stackplot(
        range(1, STEPS + 1), rows, labels=labels, colors=colours, alpha=0.85, linewidth=0
    )
    axes.set(xlabel="step", ylabel="share of the step's time", ylim=(0, 1), xlim=(1, STEPS))
    axes.spines[["top", "right"]].set_visible(False)
    handles, texts = axes.get_legend_handles_labels()
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    save(figure, "step_split", handles=handles[::-1], labels=texts[::-1], **place)


def draw_memory(facts: Sequence[StepFacts]) -> None:
    """Draw the memory of the process."""
    figure, axes = plt.subplots(figsize=(6.0, 3.2))
    found = signals(build_monitor("memory"), facts)
    values = [signal.value / 2**20 for signal in found]
    axes.step(range(1, STEPS + 1), values, color=BLUE, where="post", label="memory")
    axes.axvline(LARGER, color="0.75", linewidth=1, linestyle=":")
    axes.set(xlabel="step (batch 256, from step 201 on 2,048)", ylabel="MiB")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, "memory")


def draw_throughput(facts: Sequence[StepFacts]) -> None:
    """Draw the throughput, and each step's own."""
    figure, axes = plt.subplots(figsize=(6.0, 3.2))
    facts = [replace(fact, batch_size_target=fact.batch_size_global) for fact in facts]
    each = [fact.batch_size_global / fact.seconds for fact in facts]
    axes.plot(range(1, STEPS + 1), each, color="0.75", linewidth=0.8, label="of one step")
    found = signals(build_monitor("throughput"), facts)
    values = [signal.value for signal in found]
    axes.plot(range(1, STEPS + 1), values, color=BLUE, label="throughput")
    for at in (SLOW_DATA, LARGER):
        axes.axvline(at, color="0.75", linewidth=1, linestyle=":")
    axes.set(xlabel="step (slow data from 101 on, batch 2,048 from 201 on)", ylabel="samples/s")
    axes.set_ylim(0, 1.3 * max(values))
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, "throughput")


def draw_stragglers(facts: Sequence[StepFacts]) -> None:
    """Draw the ratio, and when a rank is named."""
    figure, axes = plt.subplots(figsize=(6.0, 3.2))
    found = signals(build_monitor("stragglers"), facts)
    steps = range(1, len(found) + 1)
    axes.axhline(1.5, color="0.75", linewidth=1, linestyle=":")
    named = [signal.reason != "" for signal in found]
    label = next(signal.reason for signal in found[119:] if signal.reason)
    axes.fill_between(
        steps, 0, 3, where=named, color=ORANGE, alpha=0.25, linewidth=0, label="a rank is named"
    )
    axes.plot(steps, [signal.value for signal in found], color=GREEN, label="stragglers")
    axes.set(xlabel="step", ylabel="slowest rank / median", ylim=(0.9, 2.4))
    axes.set_title(f"step 120: {label}", fontsize=8, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, "stragglers")


if __name__ == "__main__":
    run = trained()
    draw_shares(run)
    draw_memory(run)
    draw_throughput(run)
    draw_stragglers(simulated())
