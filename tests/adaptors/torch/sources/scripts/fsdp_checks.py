"""Train small models under FSDP2, plain and measured, and tell what came out: one JSON line a rank."""

from __future__ import annotations

import copy
import hashlib
import os
from typing import Any

import torch
import torch.distributed as dist
from ddp_checks import batch, counted, refusal  # type: ignore[import-not-found]
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F  # noqa: N812

from workbench.adaptors.torch.sources.fsdp import FSDPSource
from workbench.adaptors.torch.sources.seen import totals, two_norms

RANK, WORKERS = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


class Model(torch.nn.Module):
    """Odd sizes, so that shards are padded; a frozen layer and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 33), torch.nn.Linear(33, 3)
        self.frozen = torch.nn.Linear(33, 33).requires_grad_(False)
        self.never = torch.nn.Linear(5, 3)
        self.scale = torch.nn.Parameter(torch.ones(3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.frozen(F.relu(self.first(inputs))))
        outputs: torch.Tensor = self.second(hidden)
        return outputs * self.scale


def sharded(
    *, reshard: bool = True, policy: MixedPrecisionPolicy | None = None, whole: bool = False
) -> torch.nn.Module:
    torch.manual_seed(0)
    model, mesh = Model(), init_device_mesh("cpu", (WORKERS,))
    options: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": reshard}
    if policy is not None:
        options["mp_policy"] = policy
    if not whole:
        for layer in (model.first, model.second, model.frozen, model.never):
            fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def train(
    how: str = "plain",
    *,
    steps: int = 6,
    passes: int = 1,
    sync_always: bool = False,
    uneven: bool = False,
    clip: float | None = None,
    scaled: bool = False,
    broken: tuple[int, ...] = (),
    divide: float | None = None,
    sums: bool = False,
    truth: bool = False,
    **options: Any,
) -> dict[str, Any]:
    model = sharded(**options)
    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in modules:
        module.set_force_sum_reduction_for_comms(sums)
        if divide is not None:
            module.set_gradient_divide_factor(divide)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5) if scaled else None
    source = FSDPSource(model, grad_scaler=scaler) if how != "plain" else None
    stepper = torch.optim.AdamW(model.parameters(), lr=0.02)
    told: dict[str, Any] = {"seen": [], "truth": [], "reasons": []}
    for step in range(steps):
        if source is not None:
            source.begin(measure=how != "idle")
        if truth:
            told["truth"].append(true_norms(model, step, passes=passes, uneven=uneven))
        rows = 6 + (RANK if uneven else 0)
        for at in range(passes):
            inputs, targets = batch(step, at, rows)
            if step in broken and RANK == 0:
                inputs = inputs * float("nan")
            modules[0].set_requires_gradient_sync(at == passes - 1 or sync_always)
            loss = F.cross_entropy(model(inputs).float(), targets) / passes
            (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        if source is not None and how != "idle":
            seen = source.collect()
            numbers = totals(seen, rows * passes, torch.device("cpu"))
            dist.all_reduce(numbers)
            norms = two_norms(numbers.tolist())
            pair = norms.norms and [norms.norms.small, norms.norms.big, norms.norms.small_batches]
            told["seen"].append([norms.batch, norms.big, pair])
            told["reasons"].append(seen.reason)
        if scaler is not None:
            scaler.unscale_(stepper)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        if scaler is None:
            stepper.step()
        else:
            scaler.step(stepper)
            scaler.update()
        stepper.zero_grad()
    told["hash"] = hashlib.sha256(
        b"".join(
            value.to_local().detach().contiguous().view(torch.uint8).numpy().tobytes()
            for value in model.state_dict().values()
        )
    ).hexdigest()
    told["seconds"] = source.seconds if source is not None else 0.0
    if source is not None:
        source.close()
    return told


def true_norms(model: torch.nn.Module, step: int, *, passes: int, uneven: bool) -> dict[str, Any]:
    """From an unsharded twin in single precision: every rank's squared norm, and the mean's."""
    twin = Model()
    full = {name: value.full_tensor() for name, value in model.state_dict().items()}
    twin.load_state_dict(full)
    means = []
    for rank in range(WORKERS):
        one = copy.deepcopy(twin)
        for at in range(passes):
            inputs, targets = batch(step, at, 6 + (rank if uneven else 0), rank)
            (F.cross_entropy(one(inputs), targets) / passes).backward()  # type: ignore[no-untyped-call]
        means.append(
            torch.cat([p.grad.flatten().double() for p in one.parameters() if p.grad is not None])
        )
    return {
        "small": sum(float(g.square().sum()) for g in means) / WORKERS,
        "big": float(torch.stack(means).mean(0).square().sum()),
    }


LOW = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
LOWEST = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
HALF = MixedPrecisionPolicy(param_dtype=torch.float16)
CASES: dict[str, dict[str, Any]] = {
    "even": {"truth": True, "steps": 8},
    "uneven": {"truth": True, "uneven": True},
    "accumulating": {"truth": True, "passes": 3},
    "accumulating with sync": {"passes": 2, "sync_always": True},
    "scaled": {"truth": True, "scaled": True, "clip": 0.5},
    "broken": {"scaled": True, "broken": (2,)},
    "sums": {"truth": True, "sums": True},
    "bfloat16": {"truth": True, "policy": LOWEST},
    "float16": {"policy": HALF},
}
RARE: dict[str, dict[str, Any]] = {
    "one module": {"truth": True, "whole": True},
    "kept after forward": {"truth": True, "reshard": False},
    "clipped": {"truth": True, "clip": 0.01},
    "sums, divided": {"truth": True, "sums": True, "divide": 8.0},
    "bfloat16 parameters": {"truth": True, "policy": LOW},
}


def refusals() -> dict[str, str]:
    def replicated() -> None:
        layer = torch.nn.Linear(8, 4)
        mesh = init_device_mesh("cpu", (WORKERS, 1), mesh_dim_names=("a", "b"))
        fully_shard(layer, mesh=mesh)
        FSDPSource(layer)

    def frozen() -> None:
        layer = torch.nn.Linear(8, 4).requires_grad_(False)
        fully_shard(layer, mesh=init_device_mesh("cpu", (WORKERS,)))
        FSDPSource(layer)

    return {
        "plain": refusal(lambda: FSDPSource(torch.nn.Linear(2, 1))),
        "replicated": refusal(replicated),
        "frozen": refusal(frozen),
    }


def reads() -> list[dict[str, int]]:
    """Count for one step without a source and for a measured one."""
    counts = []
    for measure in (False, True):
        model = sharded()
        source = FSDPSource(model) if measure else None
        for step in range(2):
            with counted() as seen:
                if source is not None:
                    source.begin(measure=True)
                inputs, targets = batch(step, 0, 6)
                F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
                if source is not None:
                    found = source.collect()
                    assert found.own is not None, found.reason
                    totals(found, 6, torch.device("cpu"))
        counts.append(seen)
    return counts


def checked(which: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, options in (RARE if which == "fsdp rare" else CASES).items():
        measured = train("measured", **options)
        plain = {key: value for key, value in options.items() if key != "truth"}
        others = [train(how, **plain)["hash"] for how in ("plain", "idle")]
        told[name] = {**measured, "hashes": [measured["hash"], *others]}
    if which == "fsdp":
        told |= {"refusals": refusals(), "reads": reads()}
    return told
