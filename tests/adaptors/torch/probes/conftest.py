"""What must be as before after a probe: everything the caller's objects hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch


def _numbers() -> list[Any]:
    kind, words, *rest = np.random.get_state(legacy=True)
    return [torch.get_rng_state(), random.getstate(), kind, torch.as_tensor(words).clone(), *rest]


def _flat(thing: Any) -> list[Any]:
    """Return what a nest of lists, dicts and tensors holds, tensors as copies."""
    if isinstance(thing, torch.Tensor):
        return [thing.detach().clone()]
    if isinstance(thing, dict):
        return [part for key, value in thing.items() for part in (str(key), *_flat(value))]
    if isinstance(thing, list | tuple):
        return [part for value in thing for part in _flat(value)]
    return [thing]


def everything(model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> list[Any]:
    """Return weights, buffers, gradients, objects, hooks, modes, optimizer and random numbers."""
    seen: list[Any] = _flat(_numbers())
    for module in model.modules():
        seen += [module.training, list(module._parameters), list(module._buffers)]
        seen += [list(module._forward_hooks.values()), list(module._forward_pre_hooks.values())]
        seen += [sorted(vars(module))]
    for tensor in (*model.parameters(), *model.buffers()):
        seen += [id(tensor), tensor.detach().clone(), tensor.requires_grad]
        seen += [None if tensor.grad is None else tensor.grad.clone()]
    if optimizer is not None:
        seen += _flat(optimizer.state_dict())
        seen += [len(optimizer._optimizer_step_pre_hooks)]
        seen += [id(key) for key in optimizer.state]
    return seen


def same(one: list[Any], other: list[Any]) -> bool:
    """Return whether two such lists are equal bit for bit."""
    if len(one) != len(other):
        return False
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def kept() -> Callable[..., Callable[[], bool]]:
    """Remember everything; the function returned says whether it is all as it was."""

    def remember(
        model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None
    ) -> Callable[[], bool]:
        before = everything(model, optimizer)
        return lambda: same(before, everything(model, optimizer))

    return remember
