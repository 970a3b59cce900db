"""One line for a loop that owns its data and wraps its model itself: watch each optimizer step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from workbench.arbiter import Limits
from workbench.engine import Engine
from workbench.errors import ConfigurationError
from workbench.learning_rate import learning_rate_factor
from workbench.monitors import DEFAULT_MONITORS, build_monitor
from workbench.monitors.protocol import Monitor
from workbench.policy import AnyPolicy
from workbench.record import Tracker
from workbench.sampling import Sampling, parse_share

from .contract import read_contract
from .group import Group
from .reaction import Clock
from .sources import Source
from .sources.ddp import DDPSource
from .started import policies_of, stopper, trackers_of
from .watched_loop import OnBatchSize, Watch
from .wrapped import is_sharded


def watch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int,
    policies: Sequence[AnyPolicy] = (),
    monitors: Sequence[Monitor | str] = DEFAULT_MONITORS,
    limits: Limits | None = None,
    learning_rate_rule: str = "none",
    on_batch_size: OnBatchSize | None = None,
    grad_scaler: torch.amp.GradScaler | None = None,
    micro_batches: bool = False,
    gradient_divide_factor: float | None = None,
    overhead: float | str = 0.005,
    measure_every: int = 0,
    exchange_every: int = 8,
    dataset_size: int = 0,
    trackers: Sequence[Tracker] = (),
    clock: Clock = time.perf_counter,
    wall_clock: Clock = time.time,
) -> Watch:
    """Watch a loop that owns its data and has wrapped its model in DDP or FSDP2.

    The loop stays as it is, but for ``watch.observe(loss=loss, samples=len(inputs))`` beside
    ``backward()`` and, where a policy may stop it, ``if watch.ended: break`` after the step. Norms
    are taken in the wrapper's own exchange of gradients (:mod:`.sources`), before any clipping, and no
    weight changes by one bit. Every rank watches the same things.

    Monitors get norms, loss, batch size, rate and seconds of each step; one that needs more stays
    undetermined. Facts are of steps that the optimizer took: one that a gradient scaler skips leaves
    no trace, but that the next one's small batches are not measured.

    Args:
        model: In ``DistributedDataParallel``, or after ``fully_shard``; its loss is the *mean* over
            the batch it was given.
        optimizer: Over the model's parameters.
        batch_size: *Global* batch size at the start, samples of an optimizer step over all ranks.
        policies: In order of precedence.
        monitors: Monitors, or names of :data:`workbench.monitors.MONITORS`.
        limits: Bounds and damping of decisions.
        learning_rate_rule: How the rate follows the batch: ``none``, ``linear``, ``square_root``.
        on_batch_size: Called on every rank, at the same step, with the new global batch size; the
            loop draws so many from then on, or returns a sentence why not.
        grad_scaler: The loop's scaler, so that norms are those of the unscaled gradient.
        micro_batches: Under DDP's ``no_sync()``, whether each micro-batch is measured apart.
        gradient_divide_factor: Of FSDP2, if one was set.
        overhead: The share of a step's time that measuring may take, such as ``"1%"``.
        measure_every: Measure each so many-th step instead, whatever it costs; 0: keep the budget.
        exchange_every: Steps whose numbers travel together; a decision falls that much later.
        dataset_size: Samples in the data set, as a bound of the batch size; 0: unknown.
        trackers: Where records go (rank 0 only).
        clock: Monotonic seconds.
        wall_clock: Seconds since 1970.

    Raises:
        ConfigurationError: Something given cannot work; the message says what to do.
    """
    _check(optimizer, batch_size, exchange_every)
    learning_rate_factor(learning_rate_rule, 1, 1)
    contract = read_contract()
    engine = Engine(
        monitors=tuple(build_monitor(m) if isinstance(m, str) else m for m in monitors),
        policies=policies_of(contract, policies),
        limits=limits or Limits(),
        dataset_size=dataset_size,
    )
    source = _source(model, grad_scaler, micro_batches, gradient_divide_factor, clock)
    group = Group(rank=dist.get_rank(source.group), workers=source.workers)
    return Watch(
        optimizer,
        source,
        engine,
        batch_size=batch_size,
        sampling=Sampling(overhead=parse_share(overhead), every=measure_every),
        exchange_every=exchange_every,
        learning_rate_rule=learning_rate_rule,
        on_batch_size=on_batch_size,
        trackers=trackers_of(contract, trackers, group),
        should_stop=stopper(contract),
        clock=clock,
        wall_clock=wall_clock,
    )


def _source(
    model: torch.nn.Module,
    grad_scaler: torch.amp.GradScaler | None,
    micro_batches: bool,
    gradient_divide_factor: float | None,
    clock: Clock,
) -> Source:
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return DDPSource(model, grad_scaler=grad_scaler, micro_batches=micro_batches, clock=clock)
    if is_sharded(model):
        from .sources.fsdp import FSDPSource  # a second to load, which DDP's users need not wait

        if micro_batches:
            raise ConfigurationError(
                "micro_batches is True with FSDP2; allowed: False, FSDP2 shows the sum of a rank's "
                "micro-batches only; leave it out"
            )
        return FSDPSource(
            model,
            grad_scaler=grad_scaler,
            gradient_divide_factor=gradient_divide_factor,
            clock=clock,
        )
    raise ConfigurationError(
        f"model is a {type(model).__name__}, neither in DistributedDataParallel nor sharded by "
        "fully_shard(); allowed: one of the two; for a plain module use attach()"
    )


def _check(optimizer: Any, batch_size: Any, exchange_every: Any) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigurationError(
            f"optimizer is a {type(optimizer).__name__}; allowed: a torch.optim.Optimizer"
        )
    for name, value in (("batch_size", batch_size), ("exchange_every", exchange_every)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(
                f"{name} is {value!r}; allowed: a whole number, 1 or more; set {name}=8"
            )
