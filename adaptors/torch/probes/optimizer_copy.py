"""A copy of an optimizer, with its state, that steps the clones of a stand-in."""

from __future__ import annotations

import copy
from typing import Any

import torch

from workbench.errors import ConfigurationError

from .stand_in import StandIn

_PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, type(None), torch.Tensor)


def copied(optimizer: torch.optim.Optimizer, inside: StandIn) -> torch.optim.Optimizer:
    """Return an optimizer of the same class, options and state over the stand-in's clones.

    It is made by ``copy.deepcopy``, which for an optimizer takes defaults, groups and state, and
    leaves out every hook and a scheduler's patch of ``step``. Attributes that a class of one's own
    adds are copied when they are plain values.

    Raises:
        ConfigurationError: It holds a parameter that the model does not, or cannot be copied.

    Example:
        >>> from .stand_in import stand_in
        >>> model = torch.nn.Linear(1, 1)
        >>> adam = torch.optim.Adam(model.parameters(), lr=0.1)
        >>> with stand_in(model) as inside:
        ...     copied(adam, inside).param_groups[0]["params"][0] is model.weight
        True
    """
    for group in optimizer.param_groups:
        if any(id(parameter) not in inside.clones for parameter in group["params"]):
            raise ConfigurationError(
                "optimizer holds a parameter that the model does not; allowed: parameters of the "
                "model; give the model that the optimizer was made for"
            )
    memo: dict[int, Any] = dict(inside.clones)
    name = type(optimizer).__name__
    try:
        twin = copy.deepcopy(optimizer, memo)
        for key, value in vars(optimizer).items():
            if key not in vars(twin) and isinstance(value, _PLAIN) and "_hooks" not in key:
                setattr(twin, key, copy.deepcopy(value, memo))
    except Exception as error:
        raise ConfigurationError(
            f"optimizer {name} cannot be copied ({error}); allowed: an optimizer that copy.deepcopy "
            "copies; keep options in its groups and numbers in its state"
        ) from error
    mine = {id(clone) for clone in inside.clones.values()}
    held = [parameter for group in twin.param_groups for parameter in group["params"]]
    if any(id(parameter) not in mine for parameter in (*held, *_tensor_keys(twin))):
        raise ConfigurationError(
            f"optimizer {name} copies to one over other parameters; allowed: an optimizer whose groups "
            "and state hold the parameters themselves, as all of torch.optim do"
        )
    return twin


def check_optimizer(optimizer: Any) -> None:
    """Refuse what cannot run a branch.

    Raises:
        ConfigurationError: No optimizer of torch, one that needs a closure, or a sharded one.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigurationError(
            f"optimizer is a {type(optimizer).__name__}; allowed: a torch.optim.Optimizer; give the "
            "one inside the wrapper"
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigurationError(
            "optimizer is LBFGS, which runs several backward passes in one step; allowed: "
            "optimizers that step once per backward; use SGD or AdamW"
        )
    if type(optimizer).__module__.startswith("torch.distributed"):
        raise ConfigurationError(
            f"optimizer is a {type(optimizer).__name__}, spread over processes; allowed: an optimizer "
            "that holds all its state; a probe runs in one process"
        )


def scale_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the learning rate of every group.

    Example:
        >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.25)
        >>> scale_rates(sgd, 2.0)
        >>> sgd.param_groups[0]["lr"]
        0.5
    """
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor


def _tensor_keys(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [key for key in optimizer.state if isinstance(key, torch.Tensor)]
