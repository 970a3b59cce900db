"""Groups are found by the names people use, and their norms come from one pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.adaptors.torch.groups import SHOWN, group_sqnorms, resolve_groups
from workbench.errors import ConfigurationError


def net() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A body with a frozen layer, and a head; two groups of the optimizer."""
    body = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4).requires_grad_(False), nn.LayerNorm(4))
    model = nn.ModuleDict({"body": body, "head": nn.Linear(4, 2)})
    groups = [{"params": model["body"].parameters()}, {"params": model["head"].parameters()}]
    return model, torch.optim.SGD(groups, lr=0.1)


def test_modules_parameters_groups_of_the_optimizer_and_all() -> None:
    model, optimizer = net()
    names = ["", "body", "body.0", "body.2.weight", "head", "optimizer.0", "optimizer.1"]
    assert resolve_groups(model, optimizer, names) == {
        "": (0, 1, 2, 3, 4, 5),
        "body": (0, 1, 2, 3),
        "body.0": (0, 1),
        "body.2.weight": (2,),
        "head": (4, 5),
        "optimizer.0": (0, 1, 2, 3),
        "optimizer.1": (4, 5),
    }
    assert resolve_groups(model, optimizer, []) == {}


def test_a_module_called_optimizer_comes_before_the_groups_of_the_optimizer() -> None:
    model = nn.ModuleDict({"optimizer": nn.Sequential(nn.Linear(1, 1)), "head": nn.Linear(1, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert resolve_groups(model, optimizer, ["optimizer.0"]) == {"optimizer.0": (0, 1)}


def test_a_shared_parameter_is_found_under_each_of_its_names() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = resolve_groups(model, optimizer, ["0", "1.weight", ""])
    assert set(found.values()) == {(0,)}


@pytest.mark.parametrize(
    "name", ["bodi", "body.1x", "optimizer.2", "optimizer.-1", "optimizer.x", "."]
)
def test_an_unknown_name_is_refused_with_what_there_is(name: str) -> None:
    model, optimizer = net()
    with pytest.raises(ConfigurationError) as error:
        resolve_groups(model, optimizer, [name])
    message = str(error.value)
    assert repr(name) in message
    assert "body, body.0" in message
    assert "optimizer.0 to optimizer.1" in message
    assert "\n" not in message


def test_a_long_list_of_names_is_cut() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(40)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigurationError) as error:
        resolve_groups(model, optimizer, ["head"])
    assert f"and {40 - SHOWN} more" in str(error.value)
    assert len(str(error.value)) < 400


def test_a_group_in_which_nothing_is_trained_is_refused() -> None:
    model, optimizer = net()
    for name in ("body.1", "body.1.weight"):
        with pytest.raises(ConfigurationError, match="no trained parameter"):
            resolve_groups(model, optimizer, [name])


@settings(max_examples=100, deadline=None)
@given(
    there=st.sets(st.integers(0, 6)),
    groups=st.lists(st.lists(st.integers(0, 6), max_size=7), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_norms_of_groups_are_the_sums_over_their_tensors(
    there: set[int], groups: list[list[int]], seed: int
) -> None:
    """Any groups: overlapping, out of order, with a place twice, with places that have no tensor."""
    generator = torch.Generator().manual_seed(seed)
    kinds = (torch.float32, torch.float64, torch.bfloat16)
    tensors = {
        place: torch.randn(place + 1, 2, generator=generator).to(kinds[place % 3])
        for place in there
    }
    named = {str(number): places for number, places in enumerate(groups)}
    expected = [
        sum(float(tensors[place].double().square().sum()) for place in set(places) & there)
        for places in groups
    ]
    found = group_sqnorms(tensors, named)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, rel=0.02)


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, and raises when the host asks for a number of a tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norms = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.name().split("::")[1].split(".")[0], kwargs or {}
        moved = name == "_to_copy" and kwargs.get("device") is not None
        if moved or name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"):
            raise AssertionError(f"{func.name()} in a step that is measured")
        self.norms += name == "dot"
        return func(*args, **kwargs)


def test_one_pass_serves_all_groups_and_the_host_reads_nothing() -> None:
    tensors = {place: torch.ones(place + 1) for place in range(6)}
    counting = Counting()
    with counting:
        found = group_sqnorms(tensors, {"": range(6), "a": (0, 1), "b": (1, 4), "none": (9,)})
    assert found.tolist() == pytest.approx([21.0, 3.0, 7.0, 0.0])
    assert counting.norms == len(tensors)  # each is read once, whatever the groups
