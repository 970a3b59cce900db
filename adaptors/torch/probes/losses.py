"""The loss of one batch as a probe asks for it, and how many samples the batch holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from workbench.errors import ConfigurationError

LossFunction = Callable[[Any, Any], torch.Tensor]
"""``loss_function(outputs, targets)``: the mean loss over the batch."""

StepFunction = Callable[[torch.nn.Module, Any], torch.Tensor]
"""``step_function(model, batch)``: the same, for batches that are no pair."""


UNUSED = (
    "the loss depends on no trainable weight of the model; allowed: a loss computed from the model's "
    "output with gradients; remove detach() and torch.no_grad() from the forward pass"
)


def step_from(
    loss_function: LossFunction | None, step_function: StepFunction | None
) -> StepFunction:
    """Return the function that gives a batch's mean loss, from the one that was given.

    Raises:
        ConfigurationError: None or both were given; later, a batch or a loss of the wrong form.

    Example:
        >>> step = step_from(torch.nn.functional.mse_loss, None)
        >>> step(torch.nn.Identity(), (torch.ones(4), torch.zeros(4)))
        tensor(1.)
    """
    if (loss_function is None) == (step_function is None):
        given = "neither" if loss_function is None else "both"
        raise ConfigurationError(
            f"{given} of loss_function and step_function given; allowed: one of them; "
            "loss_function(outputs, targets) fits batches that are pairs"
        )

    def loss_of_batch(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if step_function is not None:
            return _scalar(step_function(model, batch))
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            parts = f" of {len(batch)} parts" if isinstance(batch, list | tuple) else ""
            raise ConfigurationError(
                f"a batch is a {type(batch).__name__}{parts}; allowed with loss_function: a pair of "
                "inputs and targets; give step_function(model, batch) instead"
            )
        assert loss_function is not None
        return _scalar(loss_function(model(batch[0]), batch[1]))

    return loss_of_batch


def samples_in(batch: Any) -> int:
    """Return the number of samples: the first dimension of the first tensor in the batch.

    Raises:
        ConfigurationError: There is no such tensor.

    Example:
        >>> samples_in({"ids": torch.zeros(5, 7), "labels": torch.zeros(5)})
        5
    """
    for tensor in _tensors(batch):
        if tensor.dim() > 0:
            return tensor.shape[0]
    raise ConfigurationError(
        f"a batch is a {type(batch).__name__} without a tensor of samples; allowed: tensors whose "
        "first dimension counts samples, in tuples, lists or dicts; change collate_fn"
    )


def to_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with its tensors on ``device``.

    Example:
        >>> to_device([torch.ones(1), "name"], torch.device("cpu"))
        [tensor([1.]), 'name']
    """
    if isinstance(batch, torch.Tensor):
        return (batch.clone() if batch.is_inference() else batch).to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def _tensors(batch: Any) -> list[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        return [tensor for part in batch for tensor in _tensors(part)]
    return []


def _scalar(loss: Any) -> torch.Tensor:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else ""
        raise ConfigurationError(
            f"the loss is a {type(loss).__name__}{shape}; allowed: a tensor with one number, the mean "
            "over the batch; reduce it"
        )
    return loss.reshape(())
