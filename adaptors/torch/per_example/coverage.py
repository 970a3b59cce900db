"""Which modules of a model can be measured sample by sample, and which forbid it for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from .convolution import convolution_of
from .dense import Dense
from .embedding import Embedded
from .layers import Layer
from .normalised import group_norm_of, layer_norm_of, rms_norm_of

NORMALISERS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
"""Layers whose per-example norms cost least (Gray et al. 2024)."""

MIXERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Modules that, when they train, let each sample's output depend on all samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """A module that can be measured.

    Attributes:
        name: Its dotted name.
        module: Itself.
        layer: How it is measured.
        places: Place in the list of parameters, by the parameter's name in the module.
    """

    name: str
    module: nn.Module
    layer: Layer
    places: Mapping[str, int]


def covered_modules(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    *,
    kinds: tuple[type[nn.Module], ...] = (nn.Module,),
) -> Iterator[Covered]:
    """Yield the modules of ``model`` whose trained parameters can all be measured.

    Not among them: subclasses and modules with a ``forward`` of their own, parametrised, pruned,
    weight-normed or quantised ones (their parameters have other names or types), sharded
    parameters, and parameters that two modules share.

    Args:
        model: The whole model.
        parameters: Its trained parameters; the places are places in this list.
        kinds: Only modules of these kinds.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.PReLU())
        >>> [(covered.name, covered.places) for covered in
        ...  covered_modules(model, list(model.parameters()))]
        [('0', {'weight': 0, 'bias': 1})]
    """
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    owners = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in dict.fromkeys(module.parameters(recurse=False))
    )
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        here = {key: places[id(value)] for key, value in own.items() if id(value) in places}
        if not here or not own.keys() <= {"weight", "bias"} or "forward" in vars(module):
            continue
        if not all(_plain(value) and owners[id(value)] == 1 for value in own.values()):
            continue
        layer = _layer_of(module, weight="weight" in here, bias="bias" in here)
        if layer is not None and isinstance(module, kinds):
            yield Covered(name=name, module=module, layer=layer, places=here)


def mixing(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules that mix samples when they train, with their names.

    Example:
        >>> [name for name, _ in mixing(nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)))]
        ['1']
    """
    return [(name, module) for name, module in model.named_modules() if isinstance(module, MIXERS)]


def mixes(module: nn.Module) -> bool:
    """Return whether a batch normalisation takes its mean and variance from the batch now.

    Example:
        >>> mixes(nn.BatchNorm1d(2)), mixes(nn.BatchNorm1d(2).eval())
        (True, False)
    """
    return module.training or getattr(module, "running_mean", None) is None


def _plain(parameter: nn.Parameter) -> bool:
    return type(parameter) is nn.Parameter and parameter.is_floating_point()


def _layer_of(module: nn.Module, *, weight: bool, bias: bool) -> Layer | None:
    """Return how to measure a module of exactly one of the known types."""
    kind = type(module)
    if kind is nn.Linear:
        return Dense(weight=weight, bias=bias)
    if kind is nn.Conv1d or kind is nn.Conv2d:
        assert isinstance(module, nn.Conv1d | nn.Conv2d)
        return convolution_of(module, weight=weight, bias=bias)
    if kind is nn.Embedding:
        return _embedding_of(module)
    return _normalised_of(module, weight=weight, bias=bias)


def _normalised_of(module: nn.Module, *, weight: bool, bias: bool) -> Layer | None:
    if isinstance(module, nn.LayerNorm) and type(module) is nn.LayerNorm:
        return layer_norm_of(module, weight=weight, bias=bias)
    if isinstance(module, nn.RMSNorm) and type(module) is nn.RMSNorm:
        return rms_norm_of(module, weight=weight)
    if isinstance(module, nn.GroupNorm) and type(module) is nn.GroupNorm:
        return group_norm_of(module, weight=weight, bias=bias)
    return None


def _embedding_of(module: nn.Module) -> Embedded | None:
    assert isinstance(module, nn.Embedding)
    if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
        return None
    return Embedded(entries=module.num_embeddings, padding=module.padding_idx)
