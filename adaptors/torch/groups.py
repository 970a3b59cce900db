"""Groups of parameters by name, and the squared norms of all of them from one fused pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch

from workbench.errors import ConfigurationError

from .norms import sqnorms

SHOWN = 8
"""How many of the names that exist an error message lists."""


def resolve_groups(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, names: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """Return for each name the places of its trained parameters.

    A place is an index into the model's parameters that require a gradient, in the model's order.

    Args:
        model: The plain module.
        optimizer: Its optimizer.
        names: Each a module's dotted name (all its parameters), a parameter's dotted name,
            ``optimizer.N`` (the optimizer's N-th parameter group, from 0), or empty (all).

    Raises:
        ConfigurationError: A name is unknown, or has no trained parameter.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> resolve_groups(model, optimizer, ["1", "0.weight", "optimizer.0"])
        {'1': (2, 3), '0.weight': (0,), 'optimizer.0': (0, 1, 2, 3)}
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    places = {id(parameter): place for place, parameter in enumerate(trained)}
    found = {}
    for name in names:
        members = _members(model, optimizer, name)
        here = tuple(sorted({places[id(each)] for each in members if id(each) in places}))
        if not here:
            raise ConfigurationError(
                f"group {name!r} has no trained parameter; allowed: a group with one or more; "
                "leave it out, or train one of its parameters"
            )
        found[name] = here
    return found


def group_sqnorms(
    tensors: Mapping[int, torch.Tensor], groups: Mapping[str, Sequence[int]]
) -> torch.Tensor:
    """Return ``|t|^2`` over each group's tensors, one double a group, in the order of ``groups``.

    Args:
        tensors: By place, dense; a place that is not there counts as zero.
        groups: Places by name, which may overlap.

    Example:
        >>> tensors = {0: torch.tensor([3.0]), 1: torch.tensor([4.0])}
        >>> group_sqnorms(tensors, {"": (0, 1), "head": (1,), "unused": (2,)})
        tensor([25., 16.,  0.], dtype=torch.float64)
    """
    wanted = sorted({place for places in groups.values() for place in places} & tensors.keys())
    if not wanted:
        device = next((tensor.device for tensor in tensors.values()), torch.device("cpu"))
        return torch.zeros(len(groups), dtype=torch.float64, device=device)
    squares = sqnorms([tensors[place] for place in wanted])
    order = {place: index for index, place in enumerate(wanted)}
    sums = [
        _sum_at(squares, sorted({order[place] for place in places if place in order}))
        for places in groups.values()
    ]
    return torch.stack(sums)


def _sum_at(values: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Return the sum of the values at sorted places; no index travels to the device."""
    if not places:
        return values.new_zeros(())
    start, stop = places[0], places[-1] + 1
    if len(places) == stop - start:
        return values[start:stop].sum()
    return torch.stack([values[place] for place in places]).sum()


def _members(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, name: str
) -> list[torch.nn.Parameter]:
    modules = dict(model.named_modules(remove_duplicate=False))
    if name in modules:
        return list(modules[name].parameters())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if name in parameters:
        return [parameters[name]]
    number = re.fullmatch(r"optimizer\.(\d+)", name)
    if number and int(number[1]) < len(optimizer.param_groups):
        return list(optimizer.param_groups[int(number[1])]["params"])
    raise ConfigurationError(
        f"group {name!r} is unknown; allowed: a module ({_some(list(modules)[1:])}), a parameter "
        f"({_some(list(parameters))}), optimizer.0 to optimizer.{len(optimizer.param_groups) - 1}, "
        "or '' for all; take one of these names"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown}, and {len(names) - SHOWN} more" if len(names) > SHOWN else shown or "none"
