"""Run the code of the page on ``watch()`` as it stands there, and hear what ``attach()`` says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ddp_checks import refusal  # type: ignore[import-not-found]
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from workbench.adaptors.torch import attach
from workbench.policies import Schedule
from workbench.testing import MemoryTracker

PAGE = Path(__file__).parents[5] / "docs" / "watch.md"


def batch_of(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 4), torch.randn(rows, 1)


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def names() -> dict[str, Any]:
    model = network()
    return {
        "model": model,
        "layers": [model[0], model[2]],
        "loss_fn": torch.nn.MSELoss(),
        "loader": DataLoader(TensorDataset(*batch_of(64 * 10)), batch_size=64),
        "policies": [],
        "trackers": [MemoryTracker()],
        "batch_of": batch_of,
    }


def block(number: int) -> Any:
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return compile(found[number], f"watch.md, block {number}", "exec", dont_inherit=True)


def ran(number: int) -> dict[str, Any]:
    given = names()
    if number == 2:
        given["model"] = DistributedDataParallel(given["model"])
        given["optimizer"] = torch.optim.SGD(given["model"].parameters(), lr=0.01)
        given["policies"] = [Schedule(at={8: 256})]
    exec(block(number), given)
    eye, records = given["eye"], given["trackers"][0].records
    return {
        "step": eye.step,
        "epoch": eye.epoch,
        "batch_size": eye.batch_size,
        "learning_rate": eye.learning_rate,
        "written": len(records),
        "small_batches": max((record.facts.small_batches for record in records), default=0),
        "saved": given.get("saved", {}).get("batch_size"),
    }


def attach_says(model: torch.nn.Module) -> str:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said: str = refusal(lambda: attach(model, optimizer, TensorDataset(*batch_of(8)), batch_size=4))
    return said


def checked() -> dict[str, Any]:
    sharded = network()
    fully_shard(sharded)
    return {
        "blocks": [ran(number) for number in range(3)] if PAGE.exists() else None,
        "attach": [attach_says(DistributedDataParallel(network())), attach_says(sharded)],
        "workers": dist.get_world_size(),
    }
