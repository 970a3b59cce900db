"""The pipeline's own training loop: an order in; weights, records and checkpoints out.

The loop is the user's loop of ``attach``, no other::

    for epoch in job.epochs(n):
        for inputs, targets in epoch:
            forward, backward, clip, step
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch

from workbench.arbiter import Limits
from workbench.codec import from_plain
from workbench.errors import ConfigurationError, Interrupted, NonFiniteError
from workbench.lifecycle.ports import Part, TrainOrder
from workbench.monitors import build_monitor
from workbench.parts import resolve, search_path

from . import checkpoint
from .attachment import attach
from .contract import Contract
from .group import join
from .job import Job
from .recipes import build_loss, build_optimizer, build_schedule

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS, RESULT, CHECKPOINTS = "weights.safetensors", "ended.json", "checkpoint"


def run_order(path: Path, contract: Contract, *, resume: bool) -> None:
    """Train as the order file says, as one worker of its job."""
    order: TrainOrder = from_plain(TrainOrder, json.loads(path.read_text()))
    with search_path(order.model.search_path):
        train(order, contract, resume=resume)


def train(order: TrainOrder, contract: Contract, *, resume: bool) -> None:
    """Train; rank 0 leaves ``weights.safetensors`` and ``ended.json`` in ``order.folder``.

    Raises:
        NonFiniteError: The loss or the gradient became NaN or infinite.
        Interrupted: The job was asked to end; a checkpoint was saved.
    """
    torch.manual_seed(order.seed)
    device = _device(contract)
    model = build_model(order.model.call, order.model.options).to(device)
    inputs, targets = load_arrays(order)
    loss_of = build_loss(order.loss, targets)
    optimizer = build_optimizer(order.optimizer, model)
    schedule = build_schedule(order.scheduler)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    precision = _precision(order.precision)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
    group = join(contract, device)
    job = attach(
        model,
        optimizer,
        torch.utils.data.TensorDataset(inputs, targets),
        batch_size=order.batch_size,
        policies=[_policy(part) for part in order.policies],
        monitors=[build_monitor(part.name, dict(part.options)) for part in order.monitors],
        learning_rate_rule=order.learning_rate_rule,
        max_batch_size_per_worker=order.max_batch_size_per_worker,
        grad_scaler=scaler if scaler.is_enabled() else None,
        steps_at_boundary=True,
        limits=Limits(**order.limits),
        overhead=order.overhead,
        measure_every=order.measure_every,
        single_worker=order.single_worker,
        seed=order.seed,
        pin_memory=device.type == "cuda",
    )
    forward: Any = torch.compile(model) if order.compile else model
    parts: dict[str, checkpoint.Stateful] = {
        "model": model,
        "optimizer": optimizer,
        "scaler": scaler,
    }
    folder = Path(order.folder)
    if resume:
        checkpoint.load(folder / CHECKPOINTS, job, parts, group)
    saved_at, total = job.seconds, order.epochs * len(inputs)
    with job:
        for epoch in job.epochs(order.epochs):
            for batch_inputs, batch_targets in epoch:
                due = job.seconds - saved_at >= order.checkpoint_seconds
                # Weights that the last step broke would replace good ones, before a loss tells.
                if job.at_step_start and due and checkpoint.is_finite(model):
                    checkpoint.save(folder / CHECKPOINTS, job, parts, group)
                    saved_at = job.seconds
                with _autocast(device, precision):
                    outputs = forward(batch_inputs.to(device, non_blocking=True))
                    loss = loss_of(outputs, batch_targets.to(device, non_blocking=True))
                job.observe(loss=loss)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                if not job.at_boundary:
                    continue
                if order.clip_grad_norm is not None:
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(model.parameters(), order.clip_grad_norm)
                for parameters, rate in zip(optimizer.param_groups, base_rates, strict=True):
                    parameters["lr"] = rate * schedule(job.samples / total)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        if not checkpoint.is_finite(model):  # broken by the last step: no later loss tells
            raise NonFiniteError(
                f"the weights became NaN or infinite at step {job.step}; allowed: finite numbers; "
                "lower the learning rate, or clip gradients",
                step=job.step,
            )
        checkpoint.save(folder / CHECKPOINTS, job, parts, group)
    if job.interrupted:
        raise Interrupted(f"training was interrupted after step {job.step}; go on with --resume")
    if group.rank == 0:
        _leave_result(folder, model, job)


def build_model(call: str, options: Any) -> torch.nn.Module:
    """Return the module that ``call`` builds.

    Raises:
        ConfigurationError: It does not exist, does not take the options, or returns no module.

    Example:
        >>> build_model("torch.nn:Linear", {"in_features": 2, "out_features": 1}).bias.shape
        torch.Size([1])
    """
    try:
        model = resolve(call, what="train.model")(**dict(options))
    except TypeError as error:
        raise ConfigurationError(
            f"train.model {call} with {dict(options)}: {error}; mend train.model_options"
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise ConfigurationError(
            f"train.model {call} returned {type(model).__name__}; allowed: a torch.nn.Module"
        )
    return model


def load_arrays(order: TrainOrder) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the training rows' inputs and targets as tensors."""
    import numpy as np

    inputs = torch.from_numpy(np.load(order.inputs))
    return inputs, torch.from_numpy(np.load(order.targets))


def _leave_result(folder: Path, model: torch.nn.Module, job: Job) -> None:
    from safetensors.torch import save_model

    draft = folder / (WEIGHTS + ".tmp")
    save_model(model, str(draft))
    draft.replace(folder / WEIGHTS)
    result = {"steps": job.step, "samples": job.samples, "stopped": job.stopped}
    (folder / RESULT).write_text(json.dumps(result))


def _policy(part: Part) -> Any:
    return resolve(part.name, what="policy")(**dict(part.options))


def _device(contract: Contract) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", contract.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _precision(name: str) -> torch.dtype | None:
    if name not in PRECISIONS:
        raise ConfigurationError(
            f"precision is {name!r}; allowed: {', '.join(PRECISIONS)}; use float32"
        )
    return PRECISIONS[name]


def _autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
