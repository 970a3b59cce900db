"""One short branch of training from the present weights, and its loss on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from workbench.adaptors.torch.sampling import Samples, permutation
from workbench.errors import ConfigurationError

from .losses import UNUSED, StepFunction, samples_in, to_device
from .optimizer_copy import copied, scale_rates
from .stand_in import stand_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What all branches share.

    Attributes:
        model: Trained by its stand-in only.
        optimizer: Where each branch's copy comes from.
        step: Mean loss of a batch.
        dataset: Training samples.
        dataset_size: How many there are.
        held_out: Samples that judge.
        held_out_size: How many there are.
        micro_batch_size: Samples in one pass.
        max_grad_norm: Clip the gradient to it; ``None``: do not.
        seed_all: Seeds every generator.
        seed: Of orders and of dropout.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    step: StepFunction
    dataset: Samples
    dataset_size: int
    held_out: Samples
    held_out_size: int
    micro_batch_size: int
    max_grad_norm: float | None
    seed_all: Callable[[int], None]
    seed: int


def train_branch(
    task: Task, *, samples: int, batch_size: int, rate_factor: float, repeat: int
) -> float:
    """Return the held-out loss after ``samples`` samples in batches of ``batch_size``.

    Every branch of one repeat sees the same samples in the same order, in the same micro-batches
    with the same random numbers, so that only the steps between them differ. A batch's gradient is
    the mean over its samples, added up over micro-batches. With no samples: the loss as it is.
    """
    seed = task.seed + 1_000_003 * (repeat + 1)
    with stand_in(task.model) as inside:
        twin = copied(task.optimizer, inside)
        scale_rates(twin, rate_factor)
        task.seed_all(seed)
        order = _order(task.dataset_size, samples, seed=task.seed, repeat=repeat)
        for first in range(0, samples, batch_size):
            chosen = order[first : first + batch_size]
            finite = _accumulate(task, inside.trainable, chosen)
            if not finite:
                return float("inf")
            if task.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(inside.trainable, task.max_grad_norm)
            _step(twin)
        task.seed_all(seed)
        return held_out_loss(task, inside.trainable[0].device)


def held_out_loss(task: Task, device: torch.device) -> float:
    """Return the mean loss over the held-out samples, the model in evaluation mode."""
    task.model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in task.held_out.stream(_split(range(task.held_out_size), task.micro_batch_size)):
            held = samples_in(batch)
            total += held * float(task.step(task.model, to_device(batch, device)))
            count += held
    return total / count


def _accumulate(
    task: Task, parameters: Sequence[torch.nn.Parameter], chosen: Sequence[int]
) -> bool:
    """Put the gradient over the chosen samples into ``.grad``; return whether each loss is finite."""
    gradient: list[torch.Tensor | None] = [None] * len(parameters)
    finite = True
    for batch in task.dataset.stream(_split(chosen, task.micro_batch_size)):
        loss = task.step(task.model, to_device(batch, parameters[0].device))
        if not loss.requires_grad:
            raise ConfigurationError(UNUSED)
        finite = finite and bool(torch.isfinite(loss))
        # Not backward(): it would also reach hooks of originals that the model may hold elsewhere.
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        if all(part is None for part in parts):
            raise ConfigurationError(UNUSED)
        share = samples_in(batch) / len(chosen)
        for place, part in enumerate(parts):
            if part is not None:
                held = gradient[place]
                gradient[place] = part * share if held is None else held.add_(part, alpha=share)
    for parameter, whole in zip(parameters, gradient, strict=True):
        parameter.grad = whole
    return finite


def _step(twin: torch.optim.Optimizer) -> None:
    try:
        twin.step()
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"optimizer {type(twin).__name__} does not step as a copy ({error!r}); allowed: one that "
            "keeps options in its groups and numbers in its state; use one of torch.optim to probe"
        ) from error


def _order(size: int, samples: int, *, seed: int, repeat: int) -> list[int]:
    """Return ``samples`` indices: whole permutations one after another, each sample once in each."""
    order: list[int] = []
    while len(order) < samples:
        epoch = repeat * (1 + samples // size) + len(order) // size
        order += permutation(size, seed=seed + 7_919, epoch=epoch)
    return order[:samples]


def _split(indices: Sequence[int], size: int) -> Iterable[list[int]]:
    for first in range(0, len(indices), size):
        yield list(indices[first : first + size])
