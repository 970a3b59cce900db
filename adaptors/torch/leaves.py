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
    graph of the model's output, read at every forward pass; where the model's own ``forward`` is not
    what the loop calls, from what arrived the last time.

    Args:
        model: The module whose outputs lead to the loss.
        parameters: Its trainable parameters.
        static_graph: Read the graph once, at the first forward pass, and trust it.
        on_arrival: Called with a parameter's place when its gradient is in ``.grad``.
        on_last: Called once in a step, when all that were foreseen have arrived, or at the end of the
            backward pass by which all have that did in the step before.
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
        self._fresh = True
        self._arrived: set[int] = set()
        self._missing = 0
        self._usual: frozenset[int] | None = None
        self._at_once = self._asked = False
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

    def reset(self, *, foresee: bool = True, at_once: bool = False) -> None:
        """Get ready for the next backward pass.

        Args:
            foresee: Whether anybody must know when the last gradient has arrived; without, the
                graph is not read.
            at_once: While nothing is known of earlier steps, take the first backward pass for the
                only one.
        """
        self._reads, self._at_once, self._asked = foresee, at_once, False
        if self._arrived:
            self._usual = frozenset(self._arrived)
        if self._arrived and frozenset(self._arrived) != self._foreseen:
            self._foreseen = frozenset(self._arrived)
        self._arrived = set()
        self._fresh = True
        self._missing = len(self._foreseen or ())
        self.complete = self.late = False

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _after_forward(self, module: torch.nn.Module, inputs: Any, outputs: Any) -> None:  # noqa: ARG002
        if not self._reads or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        if self._foreseen is None or not self._static:
            seen = reached(outputs, self._places)
            if seen is not None:
                before = frozenset() if self._fresh else self._foreseen or frozenset()
                self._foreseen, self._fresh = seen | before, False
                self._missing = len(self._foreseen)

    def _listen(self) -> None:
        """Ask the engine, once in a backward pass, to tell its end.

        An output that the loss does not use leads to parameters that never arrive: only the end tells
        that all are there. The call is the one that torch's own FSDP makes.
        """
        if self._reads and not self._asked and not self.complete:
            self._asked = True
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(self._ended)

    def _ended(self) -> None:
        """A backward pass is over: the last one, when all have arrived that did in the step before."""
        self._asked = False
        whole = self._at_once if self._usual is None else self._usual <= self._arrived
        if whole and not self.complete:
            self.complete = True
            self._on_last()

    def _hook(self, place: int) -> Callable[[torch.Tensor], None]:
        def arrived(parameter: torch.Tensor) -> None:  # noqa: ARG001
            self.late = self.late or self.complete
            self._listen()
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
