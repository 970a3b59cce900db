"""Clones in the place of a model's weights while a probe runs; then the originals, untouched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from workbench.errors import ConfigurationError

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class StandIn:
    """A model that holds clones of its weights and buffers for a while.

    Attributes:
        clones: By ``id`` of the original parameter; a shared one has one clone.
        trainable: The clones that need a gradient, in the model's order.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        modules = list(model.modules())
        self._parameters = _places(modules, "named_parameters")
        self._buffers = _places(modules, "named_buffers")
        self.clones: dict[int, torch.nn.Parameter] = {}
        for _, name, original in self._parameters:
            if id(original) not in self.clones:
                self.clones[id(original)] = _clone(name, original)
        self.trainable = [clone for clone in self.clones.values() if clone.requires_grad]

    def enter(self) -> None:
        """Put clones in place of the parameters and buffers."""
        for module, name, original in self._parameters:
            setattr(module, name, self.clones[id(original)])
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Give the model new clones of its buffers, with their values before the probe."""
        fresh = {id(original): original.detach().clone() for _, _, original in self._buffers}
        for module, name, original in self._buffers:
            setattr(module, name, fresh[id(original)])

    def leave(self) -> None:
        """Put the originals back."""
        for module, name, original in (*self._parameters, *self._buffers):
            setattr(module, name, original)


@contextmanager
def stand_in(model: torch.nn.Module) -> Iterator[StandIn]:
    """Let ``model`` work on clones of its weights; afterwards it is as before, bit for bit.

    Inside, hooks that this library put on modules are out of the way, so that a job does not take
    the probe's passes for its own; hooks on parameters stay with the originals. All other hooks run.
    Afterwards every module holds the same parameters, buffers, hooks, training mode and plain
    attributes as before, whatever was raised. What a forward pass changes *inside* a list or
    another object that is an attribute, and attributes of objects that are not modules, stay changed.

    Raises:
        ConfigurationError: A wrapper that communicates, or weights that are no plain tensors.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> weight = model.weight
        >>> with stand_in(model) as inside, torch.no_grad():
        ...     model.weight.zero_()
        Parameter containing:
        tensor([[0., 0.]], requires_grad=True)
        >>> model.weight is weight, bool(weight.any())
        (True, True)
    """
    check_model(model)
    inside = StandIn(model)
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        for module, attributes in before:
            vars(module).update(_without_own_hooks(attributes))
        inside.enter()
        yield inside
    finally:
        inside.leave()
        for module, attributes in before:
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)


def check_model(model: Any) -> None:
    """Refuse what a probe cannot work on.

    Raises:
        ConfigurationError: See :func:`stand_in`.
    """
    if not isinstance(model, torch.nn.Module):
        raise ConfigurationError(
            f"model is a {type(model).__name__}; allowed: a torch.nn.Module; give the module itself"
        )
    if isinstance(model, (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)):
        raise ConfigurationError(
            f"model is wrapped in {type(model).__name__}; allowed: the plain module, since a probe "
            "runs in one process; give model.module"
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ConfigurationError(
            "model has scripted modules, whose weights cannot be replaced; allowed: modules in "
            "Python; probe the model before torch.jit.script"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigurationError(
            "model has no parameter that needs a gradient; allowed: one or more; unfreeze a layer"
        )


def _places(
    modules: list[torch.nn.Module], which: str
) -> list[tuple[torch.nn.Module, str, torch.Tensor]]:
    return [
        (module, name, tensor)
        for module in modules
        for name, tensor in getattr(module, which)(recurse=False, remove_duplicate=False)
    ]


def _clone(name: str, original: torch.Tensor) -> torch.nn.Parameter:
    lazy = torch.nn.parameter.is_lazy(original)
    plain = original if lazy else original.detach()
    if lazy or type(plain) is not torch.Tensor or plain.is_meta:
        kind = "tensor on the meta device" if plain.is_meta else type(plain).__name__
        raise ConfigurationError(
            f"parameter {name} is a {kind}; allowed: whole tensors that hold numbers, not sharded or "
            "lazy ones; run one forward pass first, or probe an unsharded copy of the model"
        )
    with torch.inference_mode(mode=False):
        clone = torch.nn.Parameter(plain.clone(), requires_grad=original.requires_grad)
    vars(clone).update(vars(original))  # marks such as "no weight decay"
    return clone


def _without_own_hooks(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: OrderedDict(
            (key, hook) for key, hook in attributes[name].items() if not _is_ours(hook)
        )
        for name in _HOOKS
    }


def _is_ours(hook: Any) -> bool:
    while isinstance(hook, partial):
        hook = hook.func
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return home.split(".")[0] == "workbench" and ".examples" not in home
