"""The critical batch size, tried: short branches at larger batches against one at the present."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, isfinite, lcm
from typing import Any

import torch

from workbench.adaptors.torch.sampling import Collate, Samples, dataset_length
from workbench.errors import ConfigurationError
from workbench.learning_rate import RULES, learning_rate_factor

from .branches import Task, train_branch
from .comparison import WORSE, Comparison, CriticalBatch, compare
from .losses import LossFunction, StepFunction, step_from
from .optimizer_copy import check_optimizer
from .random_state import own_random_numbers
from .stand_in import check_model

_STEPS = 16
"""Steps of the largest batch in a branch when ``samples`` is not given."""


def critical_batch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Any,
    loss_function: LossFunction | None = None,
    *,
    batch_size: int,
    held_out: Any,
    step_function: StepFunction | None = None,
    multiples: Sequence[int] = (2, 4),
    samples: int | None = None,
    repeats: int = 5,
    tolerance: float = 0.01,
    level: float = 0.95,
    learning_rate_rule: str = "square_root",
    learning_rate: float | None = None,
    micro_batch_size: int | None = None,
    max_grad_norm: float | None = None,
    collate_fn: Collate | None = None,
    seed: int = 0,
) -> CriticalBatch:
    """Try whether a larger batch would train as well per sample, from where the training is now.

    From the present weights and optimizer state, branches train on the same samples in the same
    order: one at ``B`` (the control) and one at each multiple ``k B``, at the rate that the rule
    gives. At the end each is judged on held-out samples; this is repeated with other samples and
    orders. ``k B`` is *fine* when the interval of the mean paired difference ends within the
    tolerance, *worse* when it begins above it. Multiples above one that is worse are not tried.

    Source: Merrill, Arora, Groeneveld and Hajishirzi 2025, "Critical Batch Size Revisited", section
    3.1 (branched training; a tolerance of 0.01; rates by ``sqrt(k)`` for Adam, by ``k`` for SGD).
    What differs here: held-out loss instead of smoothed training loss; repeats with an interval
    instead of one run; each multiple is compared with the control, not with all smaller ones.

    The caller's model, optimizer, ``.grad`` and random numbers are as before afterwards, bit for
    bit, whatever happens; a job that is attached to them does not notice. No file is written. In
    the branches a scheduler does not move the rate. Memory: one copy of the weights and of the
    optimizer's state, and its gradient. Cost: ``repeats (1 + len(multiples)) samples`` samples of
    training, and the held-out samples once after each branch.

    In a job of several workers each runs the whole probe by itself, on whole batches; the answer
    is the same on all that are given the same arguments.

    Args:
        model: The plain module.
        optimizer: Over its parameters, with the state of the training.
        dataset: Map-style training samples.
        loss_function: ``loss_function(outputs, targets)``, the *mean* loss over the batch.
        batch_size: ``B``, the global batch size of the control.
        held_out: Map-style samples that are not trained on.
        step_function: ``step_function(model, batch)`` for batches that are no pair.
        multiples: Growing integers from 2.
        samples: Samples in a branch: a multiple of each batch that is tried. By default 16 steps of the
            largest. Long enough for the optimizer's averages to forget the old batch.
        repeats: Two or more.
        tolerance: By how much a loss may exceed the control's, in units of the loss; 0 or more.
        level: Confidence of the interval of each comparison.
        learning_rate_rule: ``square_root``, ``linear`` or ``none``.
        learning_rate: Rate of the first group at ``B``, when a job scales it:
            ``job.learning_rate``. By default as the optimizer has it.
        micro_batch_size: Samples in one pass, so that larger batches need no more memory; by
            default ``batch_size``.
        max_grad_norm: Clip the gradient's norm to it, as the training does.
        collate_fn: As of ``torch.utils.data.DataLoader``.
        seed: Of orders, samples and dropout.

    Raises:
        ConfigurationError: Something given cannot work; the message says what to do.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> inputs = torch.randn(1024, 4)
        >>> noisy = inputs.sum(1, keepdim=True) + torch.randn(1024, 1)
        >>> rows = torch.utils.data.TensorDataset(inputs, noisy)
        >>> model = torch.nn.Linear(4, 1)
        >>> found = critical_batch(
        ...     model, torch.optim.SGD(model.parameters(), lr=0.01), rows,
        ...     torch.nn.functional.mse_loss, batch_size=8, held_out=rows, multiples=[2],
        ...     learning_rate_rule="linear",
        ... )
        >>> found.verdict
        'at least 16'
    """
    check_model(model)
    check_optimizer(optimizer)
    step = step_from(loss_function, step_function)
    _check(batch_size, multiples, repeats, tolerance, level, learning_rate_rule, micro_batch_size)
    shown = _samples(samples, [batch_size, *(k * batch_size for k in multiples)])
    base = _base_factor(optimizer, learning_rate)
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        own_random_numbers(model) as seed_all,
    ):
        task = Task(
            model=model,
            optimizer=optimizer,
            step=step,
            dataset=Samples(dataset, collate_fn=collate_fn),
            dataset_size=dataset_length(dataset),
            held_out=Samples(held_out, collate_fn=collate_fn),
            held_out_size=dataset_length(held_out),
            micro_batch_size=micro_batch_size or batch_size,
            max_grad_norm=max_grad_norm,
            seed_all=seed_all,
            seed=seed,
        )

        def losses(batch: int) -> tuple[float, ...]:
            factor = base * learning_rate_factor(learning_rate_rule, batch, batch_size)
            return tuple(
                train_branch(
                    task, samples=shown, batch_size=batch, rate_factor=factor, repeat=repeat
                )
                for repeat in range(repeats)
            )

        start = train_branch(task, samples=0, batch_size=batch_size, rate_factor=1.0, repeat=0)
        control = losses(batch_size)
        finite = isfinite(start) and all(map(isfinite, control))
        tried = _tried(losses, control, multiples, batch_size, tolerance, level) if finite else ()
    return CriticalBatch(
        batch_size=batch_size,
        tolerance=tolerance,
        level=level,
        samples=shown,
        learning_rate_rule=learning_rate_rule,
        start_loss=start,
        control_losses=control,
        comparisons=tried,
        reason="" if finite else "the loss is not finite at the present batch size",
    )


def _tried(
    losses: Callable[[int], tuple[float, ...]],
    control: tuple[float, ...],
    multiples: Sequence[int],
    batch_size: int,
    tolerance: float,
    level: float,
) -> tuple[Comparison, ...]:
    found: list[Comparison] = []
    for multiple in multiples:
        batch = multiple * batch_size
        found.append(
            compare(multiple, batch, losses(batch), control, tolerance=tolerance, level=level)
        )
        if found[-1].verdict == WORSE:
            break
    return tuple(found)


def _check(
    batch_size: int,
    multiples: Sequence[int],
    repeats: int,
    tolerance: float,
    level: float,
    rule: str,
    micro_batch_size: int | None,
) -> None:
    if batch_size < 1:
        raise ConfigurationError(f"batch_size is {batch_size}; allowed: 1 or more; give the job's")
    if not multiples or multiples[0] < 2 or list(multiples) != sorted(set(multiples)):
        raise ConfigurationError(
            f"multiples is {list(multiples)}; allowed: growing integers from 2; (2, 4) is usual"
        )
    if repeats < 2:
        raise ConfigurationError(
            f"repeats is {repeats}; allowed: 2 or more, since the interval comes from their spread; "
            "5 is usual"
        )
    if not tolerance >= 0.0:
        raise ConfigurationError(
            f"tolerance is {tolerance}; allowed: 0 or more, in units of the loss; 0.01 is usual"
        )
    if not 0.0 < level < 1.0:
        raise ConfigurationError(f"level is {level}; allowed: above 0 and below 1; 0.95 is usual")
    if rule not in RULES:
        learning_rate_factor(rule, 1, 1)
    if micro_batch_size is not None and micro_batch_size < 1:
        raise ConfigurationError(
            f"micro_batch_size is {micro_batch_size}; allowed: 1 or more; leave it out for batch_size"
        )


def _samples(given: int | None, batches: list[int]) -> int:
    """Return the samples of a branch: whole batches at each size, so that all see the same ones."""
    whole = lcm(*batches)
    if given is None:
        return whole * ceil(_STEPS * batches[-1] / whole)
    if given < 1 or given % whole:
        raise ConfigurationError(
            f"samples is {given}; allowed: multiples of {whole}, whole batches at each size that is "
            f"tried; use samples={whole * max(1, round(given / whole))}"
        )
    return given


def _base_factor(optimizer: torch.optim.Optimizer, learning_rate: float | None) -> float:
    if learning_rate is None:
        return 1.0
    held = float(optimizer.param_groups[0]["lr"])
    if held <= 0.0 or not learning_rate > 0.0:
        raise ConfigurationError(
            f"learning_rate is {learning_rate} and the optimizer's is {held}; allowed: both above 0; "
            "leave learning_rate out for the optimizer's"
        )
    return learning_rate / held
