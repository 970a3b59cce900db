"""Which parameters a backward pass will reach, and when it has reached the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from .ear import Ear


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a model's output: a tensor, or tuples, lists, mappings of them.

    Example:
        >>> len(list(tensors_in({"a": torch.ones(1), "b": (torch.ones(1), None)})))
        2
    """
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def reached(outputs: Any, places: Mapping[int, int]) -> frozenset[int] | None:
    """Return the places of the parameters that a backward pass from ``outputs`` will reach.

    The graph is read through ``Node.next_functions``: about a microsecond for each of its nodes.

    Args:
        outputs: What the model returned.
        places: Place of each parameter by its ``id``.

    Returns:
        ``None`` when no output needs a gradient.

    Example:
        >>> layer, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> parameters = [*layer.parameters(), *other.parameters()]
        >>> places = {id(parameter): place for place, parameter in enumerate(parameters)}
        >>> sorted(reached(layer(torch.ones(1, 2)), places))
        [0, 1]
    """
    waiting = [tensor.grad_fn for tensor in tensors_in(outputs) if tensor.grad_fn is not None]
    if not waiting:
        return None
    seen, found = set(waiting), set()
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) in places:
            found.add(places[id(leaf)])
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                waiting.append(child)
    return frozenset(found)


class Arrivals:
    """Tells when the gradient of each parameter, and of the last one of a backward, has arrived.

    Post-accumulate hooks (public API) see each arrival. Which arrival is the last follows from the
    graph, read when the first gradient arrives: the graph of the loss where it was told, else that of
    the model's outputs; where the model's own ``forward`` is not what the loop calls, from what
    arrived the last time.

    Args:
        model: The module whose outputs lead to the loss.
        parameters: Its trainable parameters.
        static_graph: Read the graph once, and trust it.
        on_arrival: Called with a parameter's place when its gradient is in ``.grad``.
        on_last: Called once in a step, when all that were foreseen have arrived.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        parameters: Sequence[torch.nn.Parameter],
        *,
        static_graph: bool,
        on_arrival: Callable[[int], None],
        on_last: Callable[[], None],
    ) -> None:
        self._places = {id(parameter): place for place, parameter in enumerate(parameters)}
        self._static, self._reads = static_graph, True
        self._on_arrival, self._on_last = on_arrival, on_last
        self._foreseen: frozenset[int] | None = None
        self._outputs: list[Any] = []
        self._told = False
        self._arrived: set[int] = set()
        self._missing = 0
        self.complete = False
        self.late = False
        self._handles: list[Any] = [
            parameter.register_post_accumulate_grad_hook(self._hook(place))  # type: ignore[no-untyped-call]
            for place, parameter in enumerate(parameters)
        ]
        self._handles.append(model.register_forward_hook(Ear(self._after_forward)))

    @property
    def any(self) -> bool:
        """Whether a gradient has arrived since :meth:`reset`."""
        return bool(self._arrived)

    @property
    def awaited(self) -> bool:
        """Whether gradients that were foreseen have not arrived."""
        return self._foreseen is not None and self._missing > 0

    def reset(self, *, foresee: bool = True) -> None:
        """Get ready for the next backward pass.

        Args:
            foresee: Whether anybody must know when the last gradient has arrived; without, the
                graph is not read.
        """
        self._reads, self._told, self._outputs = foresee, False, []
        if self._arrived and frozenset(self._arrived) != self._foreseen:
            self._foreseen = frozenset(self._arrived)
        self._arrived = set()
        self._missing = len(self._foreseen or ())
        self.complete = self.late = False

    def tell(self, loss: torch.Tensor) -> None:
        """Hear the loss that the backward pass will start from."""
        if self._reads and not self._arrived and loss.grad_fn is not None:
            self._told, self._outputs = True, [loss]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _after_forward(self, module: torch.nn.Module, inputs: Any, outputs: Any) -> None:  # noqa: ARG002
        if not self._reads or self._told:
            return
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():
            self._outputs.append(outputs)

    def _foresee(self) -> None:
        """Read the graph; what it holds may be freed from here on."""
        outputs, self._outputs = self._outputs, []
        if self._static and self._foreseen is not None:
            return
        seen = reached(outputs, self._places)
        if seen is not None:
            self._foreseen, self._missing = seen, len(seen)

    def _hook(self, place: int) -> Callable[[torch.Tensor], None]:
        def arrived(parameter: torch.Tensor) -> None:  # noqa: ARG001
            self.late = self.late or self.complete
            if self._outputs:
                self._foresee()
            self._on_arrival(place)
            if place in self._arrived:
                return
            self._arrived.add(place)
            if self._foreseen is None or place not in self._foreseen:
                return
            self._missing -= 1
            if self._missing == 0 and not self.complete:
                self.complete = True
                self._on_last()

        return arrived
