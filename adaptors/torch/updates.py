"""How far one optimizer step moves the weights: a copy before it, the distance after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .groups import group_sqnorms


class Updates:
    """Measures ``|w|²`` before and ``|w_after - w_before|²`` after a step, by groups of parameters.

    It works with every optimizer, since it looks at weights alone. The copy of the weights asked for
    lives from just before the step to just after it, on measured steps only.

    Args:
        parameters: Trainable parameters.
        groups: Places of the parameters of each group, by name.

    Example:
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> updates = Updates(list(layer.parameters()), {"": (0,)})
        >>> updates.before(); _ = layer.weight.data.add_(2.0); updates.after()
        >>> updates.take()[1]
        tensor([4.], dtype=torch.float64)
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        groups: Mapping[str, Sequence[int]],
    ) -> None:
        self._parameters = parameters
        self._groups = groups
        self._places = sorted({place for places in groups.values() for place in places})
        self._copies: dict[int, torch.Tensor] = {}
        self._weights: torch.Tensor | None = None
        self._moved: torch.Tensor | None = None

    def before(self) -> None:
        """Take the copy."""
        weights = [self._parameters[place].detach() for place in self._places]
        self._copies = dict(zip(self._places, torch._foreach_mul(weights, 1.0), strict=True))
        self._weights, self._moved = self._sqnorms(self._copies), None

    def after(self) -> None:
        """Take the distance; does nothing without :meth:`before`."""
        if not self._copies:
            return
        weights = [self._parameters[place].detach() for place in self._places]
        torch._foreach_sub_(list(self._copies.values()), weights)
        self._moved = self._sqnorms(self._copies)
        self._copies = {}

    def take(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return ``|w|²`` and the squared distance, one double a group; ``None`` without a step."""
        weights, moved = self._weights, self._moved
        self._copies, self._weights, self._moved = {}, None, None
        if weights is None or moved is None:
            return None
        return weights, moved

    def _sqnorms(self, tensors: Mapping[int, torch.Tensor]) -> torch.Tensor:
        return group_sqnorms(tensors, self._groups)
