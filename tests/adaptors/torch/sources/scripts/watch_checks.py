"""Loops that own data and wrapping, watched and not, and what came out: for both wrappers."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
from ddp_checks import Model, batch  # type: ignore[import-not-found]
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel

from workbench.adaptors.torch.watching import watch
from workbench.decision import Decision, Keep, Resize, SetBatchSize, SetLearningRate, Stop
from workbench.policy import View
from workbench.testing import FixedClock, MemoryTracker

RANK, WORKERS = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


class Plan:
    """One decision of each kind, at fixed steps."""

    name = "plan"

    def decide(self, view: View) -> Decision:
        planned: dict[int, Decision] = {
            5: SetLearningRate(0.5),
            10: SetBatchSize(20),
            14: Resize(4),
            18: SetBatchSize(7),
            26: Stop(reason="enough"),
        }
        return planned.get(view.step, Keep())


def wrapped(how: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = Model()
    if how == "ddp":
        return DistributedDataParallel(model)
    fully_shard(model, mesh=init_device_mesh("cpu", (WORKERS,)))
    return model


def train(
    how: str,
    *,
    watched: bool,
    steps: int = 60,
    passes: int = 1,
    sync: bool = False,
    resumed: Any = None,
    **options: Any,
) -> Any:
    model, tracker = wrapped(how), MemoryTracker()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    size, asked = 12, []

    def resize(wanted: int) -> str | None:
        nonlocal size
        asked.append(wanted)
        if wanted % WORKERS:
            return f"{wanted} samples do not go into {WORKERS} ranks"
        size = wanted
        return None

    eye = None
    if watched:
        eye = watch(
            model, optimizer, batch_size=12, on_batch_size=resize, trackers=[tracker], **options
        )
        if resumed is not None:
            eye.load_state_dict(resumed)
    losses: list[float] = []
    rates: list[float] = []
    for step in range(steps):
        for at in range(passes):
            rows = size // WORKERS // passes
            inputs, targets = batch(step, at, rows)
            apart = how == "ddp" and at < passes - 1 and not sync
            with model.no_sync() if apart else contextlib.nullcontext():  # type: ignore[operator]
                loss = F.cross_entropy(model(inputs), targets)
                (loss / passes).backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
            if eye is not None:
                eye.observe(loss=loss, samples=rows)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        rates.append(float(optimizer.param_groups[0]["lr"]))
        schedule.step()
        if eye is not None and eye.ended:
            break
    if eye is None:
        return {"weights": weights(model)}
    saved = eye.state_dict()
    eye.close()
    facts = [record.facts for record in tracker.records]
    return {
        "weights": weights(model),
        "step": eye.step,
        "stopped": eye.stopped,
        "asked": asked,
        "losses": losses,
        "rates": rates,
        "saved": [saved["step"], saved["samples"], saved["batch_size"]],
        "state": saved,
        "signals": {name: str(signal) for name, signal in eye.signals.items()},
        "facts": [
            [f.step, f.samples, f.batch_size_global, f.batch_size_target, f.loss, f.origin,
             f.small_batches, f.grad_sqnorm_small, f.grad_sqnorm_big, f.learning_rate]
            for f in facts
        ],
        "outcomes": [
            [record.facts.step, record.decision.kind, record.outcome.kind]
            for record in tracker.records if record.outcome is not None
        ],
        "faults": [fault.error for record in tracker.records for fault in record.faults],
        "monitor_seconds": [f.monitor_seconds for f in facts],
    }  # fmt: skip


def weights(model: torch.nn.Module) -> list[float]:
    values = [value.full_tensor() if hasattr(value, "full_tensor") else value
              for value in model.state_dict().values()]  # fmt: skip
    return torch.cat([value.detach().flatten() for value in values]).double().tolist()


def checked() -> dict[str, Any]:
    every: dict[str, Any] = {"measure_every": 1}
    first = train("ddp", watched=True, steps=20, **every)
    return {
        "first": first,
        "resumed": train("ddp", watched=True, steps=20, resumed=first["state"], **every),
        "ddp": train("ddp", watched=True, policies=[Plan()], **every),
        "fsdp": train("fsdp", watched=True, policies=[Plan()], **every),
        "one by one": train("ddp", watched=True, policies=[Plan()], exchange_every=1, **every),
        "micro": train("ddp", watched=True, passes=3, micro_batches=True, steps=20, **every),
        "synchronised": train("ddp", watched=True, passes=2, sync=True, steps=10, **every),
        "budget": train("ddp", watched=True, steps=60, overhead=0.1, clock=FixedClock(tick=0.001)),
        "plain ddp": train("ddp", watched=False, steps=60),
        "plain fsdp": train("fsdp", watched=False, steps=20),
        "watched fsdp": train("fsdp", watched=True, steps=20, **every),
    }
