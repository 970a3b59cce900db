"""Train small models under DDP, plain and measured, and tell what came out: one JSON line a rank."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel

from workbench.adaptors.torch.sources.ddp import DDPSource
from workbench.adaptors.torch.sources.seen import totals, two_norms
from workbench.errors import ConfigurationError

RANK, WORKERS = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.set_num_threads(1)


class Model(torch.nn.Module):
    """Layers that are always, sometimes, never used, and one that is frozen."""

    def __init__(self, *, rare: bool = False, sparse: bool = False, width: int = 33) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, width), torch.nn.Linear(width, 3)
        self.frozen = torch.nn.Linear(width, width).requires_grad_(width > 33)
        self.rare = torch.nn.Linear(width, 3) if rare else None
        self.never = torch.nn.Linear(4, 4) if rare else None
        self.words = torch.nn.Embedding(11, width, sparse=True) if sparse else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.frozen(F.relu(self.first(inputs))))
        if self.words is not None:
            hidden = hidden + self.words(inputs[:, 0].abs().long().clamp(max=10))
        outputs: torch.Tensor = self.second(hidden)
        if self.rare is not None and bool(inputs[0, 0] > 0.3):  # some ranks, some steps
            outputs = outputs + self.rare(hidden)
        return outputs


def batch(step: int, micro: int, rows: int, rank: int = RANK) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + 10 * micro + rank)
    inputs = torch.randn(rows, 8, generator=generator)
    return inputs, torch.randint(0, 3, (rows,), generator=generator)


def train(
    how: str = "plain",
    *,
    steps: int = 10,
    optimizer: str = "SGD",
    passes: int = 1,
    sync_always: bool = False,
    rows: int = 6,
    uneven: bool = False,
    set_to_none: bool = True,
    clip: float | None = None,
    scaled: bool = False,
    broken: tuple[int, ...] = (),
    half: bool = False,
    compiled: str = "",
    rare: bool = False,
    sparse: bool = False,
    dtype: torch.dtype = torch.float32,
    width: int = 33,
    truth: bool = False,
    **options: Any,
) -> dict[str, Any]:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"rare": rare, "sparse": sparse, "width": width}
    model = Model(**shape).to(dtype)
    start = model.first.weight.detach().clone()
    wrapped = DistributedDataParallel(model, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5) if scaled else None
    source = None
    if how != "plain":
        micro = how == "micro"
        source = DDPSource(wrapped, grad_scaler=scaler, micro_batches=micro)
    stepper = getattr(torch.optim, optimizer)(model.parameters(), lr=0.05)
    forward = torch.compile(wrapped, backend=compiled) if compiled else wrapped
    told: dict[str, Any] = {"seen": [], "truth": [], "reasons": []}
    for step in range(steps):
        if source is not None:
            source.begin(measure=how != "idle")
        sizes = [rows + (RANK if uneven else 0)] * passes
        if truth:
            told["truth"].append(true_norms(model, step, sizes, uneven=uneven, passes=passes))
        for at, size in enumerate(sizes):
            inputs, targets = batch(step, at, size)
            if step in broken and RANK == 0:
                inputs = inputs * float("nan")
            last = at == passes - 1 or sync_always
            with contextlib.nullcontext() if last else wrapped.no_sync():
                with torch.autocast("cpu", enabled=half):
                    loss = F.cross_entropy(forward(inputs.to(dtype)), targets) / passes
                (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        if source is not None and how != "idle":
            seen = source.collect()
            sums = totals(
                seen,
                sizes if how == "micro" and seen.own is not None else sum(sizes),
                torch.device("cpu"),
            )
            dist.all_reduce(sums)
            norms = two_norms(sums.tolist())
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
        stepper.zero_grad(set_to_none=set_to_none)
    told["hash"] = hashlib.sha256(
        b"".join(
            value.detach().contiguous().view(torch.uint8).numpy().tobytes()
            for value in model.state_dict().values()
        )
    ).hexdigest()
    told["moved"] = not torch.equal(model.first.weight, start)
    told["seconds"] = source.seconds if source is not None else 0.0
    if source is not None:
        source.close()
    return told


def gradient(model: torch.nn.Module, step: int, at: int, size: int, rank: int) -> torch.Tensor:
    twin = copy.deepcopy(model)
    twin.zero_grad()
    inputs, targets = batch(step, at, size, rank)
    F.cross_entropy(twin(inputs), targets).backward()  # type: ignore[no-untyped-call]
    return torch.cat([p.grad.flatten().double() for p in twin.parameters() if p.grad is not None])


def true_norms(
    model: torch.nn.Module, step: int, sizes: list[int], *, uneven: bool, passes: int
) -> dict[str, Any]:
    """From unwrapped twins: the squared norms of every rank's and micro-batch's gradient."""
    own, means = [], []
    for rank in range(WORKERS):
        size = sizes[0] - (RANK if uneven else 0) + (rank if uneven else 0)
        each = [gradient(model, step, at, size, rank) for at in range(passes)]
        own += [float(g.square().sum()) for g in each]
        means.append(torch.stack(each).mean(0))
    ranks = [float(g.square().sum()) for g in means]
    return {
        "micro": sum(own) / len(own),
        "ranks": sum(ranks) / len(ranks),
        "big": float(torch.stack(means).mean(0).square().sum()),
    }


COMMON: dict[str, dict[str, Any]] = {
    "80 steps": {"steps": 80},
    "AdamW": {"optimizer": "AdamW"},
    "views": {"gradient_as_bucket_view": True},
    "views kept": {"gradient_as_bucket_view": True, "set_to_none": False},
    "views kept, accumulating": {
        "gradient_as_bucket_view": True,
        "set_to_none": False,
        "passes": 2,
    },
    "many buckets": {"bucket_cap_mb": 0.0005},
    "double": {"dtype": torch.float64},
}
MORE: dict[str, dict[str, Any]] = {
    "unused": {"rare": True, "find_unused_parameters": True},
    "unused views": {
        "rare": True,
        "find_unused_parameters": True,
        "gradient_as_bucket_view": True,
    },
    "static graph": {"static_graph": True},
    "static graph, views": {"static_graph": True, "gradient_as_bucket_view": True},
    "accumulating": {"passes": 3},
    "accumulating without no_sync": {"passes": 2, "sync_always": True},
    "uneven": {"uneven": True},
    "clipped": {"clip": 0.1},
    "scaled": {"scaled": True, "clip": 0.5},
    "scaled, overflow": {"scaled": True, "broken": (3, 9)},
    "autocast": {"half": True},
    "bfloat16": {"dtype": torch.bfloat16},
    "sparse": {"sparse": True},
    "batched copies": {"batched_grad_copy": True},
}
LONG: dict[str, dict[str, Any]] = {"500 steps": {"steps": 500}}
COMPILED: dict[str, dict[str, Any]] = {
    "compiled": {"compiled": "aot_eager", "steps": 8},
    "compiled, split": {"compiled": "eager", "steps": 8, "bucket_cap_mb": 1, "width": 600},
}


def refusal(make: Any) -> str:
    try:
        make()
    except ConfigurationError as error:
        return str(error)
    return "not refused"


def refusals() -> dict[str, str]:
    def twice() -> None:
        wrapped = DistributedDataParallel(Model())
        DDPSource(wrapped)
        DDPSource(wrapped)

    def mixed() -> None:
        from torch.nn.parallel.distributed import _MixedPrecision

        lower = _MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
        DDPSource(DistributedDataParallel(Model(), mixed_precision=lower))

    def own_hook() -> None:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        wrapped = DistributedDataParallel(Model())
        wrapped.register_comm_hook(None, allreduce_hook)
        DDPSource(wrapped)

    return {
        "twice": refusal(twice),
        "mixed precision": refusal(mixed),
        "own hook": refusal(own_hook),
        "plain": refusal(lambda: DDPSource(Model())),
    }


@contextlib.contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count every way in which a tensor's number comes to the host."""
    counts: dict[str, int] = {}
    names = ["item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "nonzero"]
    kept = {name: getattr(torch.Tensor, name) for name in names}

    def counting(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return kept[name](*arguments, **options)

        return call

    try:
        for name in names:
            setattr(torch.Tensor, name, counting(name))
        yield counts
    finally:
        for name in names:
            setattr(torch.Tensor, name, kept[name])


def reads() -> dict[str, int]:
    wrapped = DistributedDataParallel(Model())
    source = DDPSource(wrapped, grad_scaler=torch.amp.GradScaler("cpu"), micro_batches=True)
    with counted() as counts:
        for step in range(3):
            source.begin(measure=True)
            inputs, targets = batch(step, 0, 6)
            F.cross_entropy(wrapped(inputs), targets).backward()  # type: ignore[no-untyped-call]
            seen = source.collect()
            assert seen.own is not None, seen.reason
            totals(seen, 6, torch.device("cpu"))
            wrapped.zero_grad()
    return counts


def checked(which: str) -> dict[str, Any]:
    cases = {"common": COMMON, "compiled": COMPILED, "long": LONG}.get(which, {**COMMON, **MORE})
    told: dict[str, Any] = {}
    for name, options in cases.items():
        runs = {how: train(how, **options) for how in ("plain", "idle", "measured")}
        if options.get("passes", 1) > 1 and not options.get("sync_always"):
            runs["micro"] = train("micro", **options)
        told[name] = {
            **runs["measured"],
            "hashes": [run["hash"] for run in runs.values()],
            "moved": runs["plain"]["moved"],
        }
    if which == "all":
        told["truth"] = {name: train(**options) for name, options in TRUTH.items()}
        told["refusals"], told["reads"] = refusals(), reads()
    return told


BRIEF: dict[str, dict[str, Any]] = {
    "even": {},
    "uneven": {"uneven": True},
    "scaled": {"scaled": True, "clip": 0.01},
    "views": {"gradient_as_bucket_view": True},
    "accumulating": {"passes": 3},
    "micro": {"how": "micro", "passes": 3},
    "micro, scaled": {"how": "micro", "passes": 3, "scaled": True},
    "broken": {"scaled": True, "broken": (2,), "truth": False},
}
TRUTH = {
    name: {"how": "measured", "steps": 6, "truth": True, **options}
    for name, options in BRIEF.items()
}
