"""Two lines in a training script: attach a job to a model, an optimizer and a dataset."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from workbench.arbiter import Limits
from workbench.engine import Engine
from workbench.errors import ConfigurationError
from workbench.monitors import DEFAULT_MONITORS, build_monitor
from workbench.monitors.protocol import Monitor
from workbench.policy import AnyPolicy
from workbench.record import Tracker
from workbench.sampling import Sampling, parse_share
from workbench.span import SpanSink

from .contract import read_contract
from .group import join
from .job import Job
from .sampling import Collate, Samples, dataset_length
from .settings import JobSettings
from .started import policies_of, stopper, trackers_of
from .stopwatch import Clock
from .wrapped import is_sharded


def attach(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Any,
    *,
    batch_size: int,
    policies: Sequence[AnyPolicy] = (),
    monitors: Sequence[Monitor | str] = DEFAULT_MONITORS,
    limits: Limits | None = None,
    learning_rate_rule: str = "none",
    max_batch_size_per_worker: int | None = None,
    grad_scaler: torch.amp.GradScaler | None = None,
    steps_at_boundary: bool = False,
    static_graph: bool = False,
    seed: int = 0,
    shuffle: bool = True,
    collate_fn: Collate | None = None,
    num_workers: int = 0,
    pin_memory: bool = False,
    overhead: float | str = 0.005,
    measure_every: int = 0,
    single_worker: str = "auto",
    read_lag: int | None = None,
    trackers: Sequence[Tracker] = (),
    spans: SpanSink | None = None,
    clock: Clock = time.perf_counter,
    wall_clock: Clock = time.time,
) -> Job:
    """Return a job that feeds the loop, measures its gradients and follows policies.

    The loop stays as it is: forward, ``backward()``, ``optimizer.step()``, ``zero_grad()``. By the
    end of ``backward()`` each ``.grad`` is the mean over the global batch, over all workers and
    micro-batches, so clipping after it is exact. While gradients accumulate, ``.grad`` is ``None``
    when the optimizer is asked to step, and it does nothing. Monitoring changes no weight by one bit.

    Started by ``wb run train.py --workers N`` or ``torchrun``, the processes form one job; started
    alone it is a job of one. Every process must attach the same things.

    Args:
        model: The plain module, on its device; at least one parameter needs a gradient. Its loss is
            the *mean* over the batch it was given.
        optimizer: Over the model's parameters; it must pass over parameters whose gradient is
            ``None`` (all of ``torch.optim`` do).
        dataset: Map-style: length and indexing.
        batch_size: *Global* batch size at the start, samples over all workers.
        policies: In order of precedence.
        monitors: Monitors, or names of :data:`workbench.monitors.MONITORS`; none: measure nothing.
        limits: Bounds and damping of decisions; by default up to the size of the dataset.
        learning_rate_rule: How the rate follows the batch: ``none``, ``linear``, ``square_root``.
        max_batch_size_per_worker: Samples one worker holds at once; beyond, gradients accumulate.
        grad_scaler: The loop's scaler, so that norms are those of the unscaled gradient.
        steps_at_boundary: With a scaler and accumulation: the loop steps only at
            ``job.at_boundary``.
        static_graph: Every step uses the same parameters: the autograd graph is read once, not at
            each step (a microsecond a node).
        seed: Of the epoch's permutations.
        shuffle: Whether to permute.
        collate_fn: As of ``torch.utils.data.DataLoader``.
        num_workers: Processes that load ahead, in each worker.
        pin_memory: As of ``DataLoader``; only with ``num_workers``.
        overhead: The share of a step's time that measuring may take, such as ``0.01`` or ``"1%"``: so
            many steps are measured as fit into it (see :class:`workbench.sampling.Sampling`).
        measure_every: Measure each so many-th step instead, whatever it costs, so that the same run
            takes the same decisions on any machine; 0: keep the budget.
        single_worker: How one worker without accumulation sees its batch at two sizes: by
            ``per-example`` norms where the layers give them nearly free, by a ``split`` (a second
            backward pass), ``auto`` for the first where it covers the model, or ``none``.
        read_lag: Steps between a step and the reaction to it; 1 on the CPU, 2 on a GPU. With 1 or
            more, the numbers of several workers ride along with the next step's gradients and cost
            no exchange of their own; with 0 they are exchanged at once.
        trackers: Where records go (rank 0 only).
        spans: Where the spans ``data``, ``compute`` and ``monitor`` of this rank go, such as a
            ``workbench.tracing.SpanRing``.
        clock: Monotonic seconds.
        wall_clock: Seconds since 1970.

    Raises:
        ConfigurationError: Something given cannot work; the message says what to do.
        InfrastructureError: The processes could not meet.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> dataset = torch.utils.data.TensorDataset(torch.randn(10, 4), torch.randn(10, 1))
        >>> job = attach(model, optimizer, dataset, batch_size=4)
        >>> for epoch in job.epochs(2):
        ...     for inputs, targets in epoch:
        ...         loss = torch.nn.functional.mse_loss(model(inputs), targets)
        ...         loss.backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        >>> job.step, job.samples
        (6, 20)
    """
    _check(model, optimizer)
    contract = read_contract()
    size = dataset_length(dataset)
    device = next(p for p in model.parameters() if p.requires_grad).device
    settings = JobSettings(
        batch_size=batch_size,
        learning_rate_rule=learning_rate_rule,
        max_batch_size_per_worker=max_batch_size_per_worker,
        seed=seed,
        shuffle=shuffle,
        single_worker=single_worker,
        read_lag=_read_lag(read_lag, device),
        steps_at_boundary=steps_at_boundary,
        static_graph=static_graph,
    )
    engine = Engine(
        monitors=tuple(build_monitor(m) if isinstance(m, str) else m for m in monitors),
        policies=policies_of(contract, policies),
        limits=limits or Limits(),
        dataset_size=size,
    )
    group = join(contract, device)
    group.share_start(_start(model))
    return Job(
        model=model,
        optimizer=optimizer,
        samples=Samples(
            dataset, collate_fn=collate_fn, num_workers=num_workers, pin_memory=pin_memory
        ),
        group=group,
        engine=engine,
        settings=settings,
        sampling=Sampling(overhead=parse_share(overhead), every=measure_every),
        grad_scaler=grad_scaler,
        trackers=trackers_of(contract, trackers, group),
        spans=spans,
        should_stop=stopper(contract),
        clock=clock,
        wall_clock=wall_clock,
    )


def _check(model: Any, optimizer: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise ConfigurationError(
            f"model is a {type(model).__name__}; allowed: a torch.nn.Module; give attach() the module"
        )
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        raise ConfigurationError(
            "model is wrapped in DistributedDataParallel; allowed: the plain module, attach() averages "
            "gradients over workers itself; give model.module, or keep your own loop and call watch()"
        )
    if is_sharded(model):
        raise ConfigurationError(
            "model is sharded by FSDP; allowed: the plain module, which attach() holds whole on each "
            "worker; keep your own loop and call watch() (after fully_shard())"
        )
    if isinstance(model, torch.nn.DataParallel):
        raise ConfigurationError(
            "model is wrapped in DataParallel; allowed: the plain module, attach() averages gradients "
            "over workers itself; give model.module"
        )
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigurationError(
            f"optimizer is a {type(optimizer).__name__}; allowed: a torch.optim.Optimizer"
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigurationError(
            "optimizer is LBFGS, which runs several backward passes in one step; allowed: "
            "optimizers that step once per backward; use SGD or AdamW"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigurationError(
            "model has no parameter that needs a gradient; allowed: one or more; unfreeze a layer"
        )


def _read_lag(given: int | None, device: torch.device) -> int:
    if given is not None:
        return given
    return 1 if device.type == "cpu" else 2


def _start(model: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
