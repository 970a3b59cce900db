"""Per-example gradient norms of one step, by hooks that are there for that step only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import disable_saved_tensors_hooks

from workbench.adaptors.torch.ear import Ear

from .coverage import Covered, covered_modules, mixes, mixing
from .pairs import row_sqnorms


@dataclass(slots=True)
class _Round:
    """One armed step: what the hooks hold and have found; places are those of covered modules."""

    rows: int
    check: bool
    handles: list[Any] = field(default_factory=list)
    called: set[int] = field(default_factory=set)
    kept: dict[int, torch.Tensor | None] = field(default_factory=dict)
    found: dict[int, torch.Tensor] = field(default_factory=dict)
    totals: dict[int, torch.Tensor] = field(default_factory=dict)
    refusal: str = ""
    first: int = 0
    spilled: list[torch.Tensor] = field(default_factory=list)

    def refuse(self, sentence: str) -> None:
        """Keep the first reason, and let go of all that is held."""
        self.refusal = self.refusal or sentence
        for held in (self.kept, self.found, self.totals):
            held.clear()


class PerExample:
    r"""Measures ``|g_i|^2`` of every sample ``i`` of a batch in one ordinary backward pass.

    For a mean loss over ``B`` rows, a layer's gradient is the sum of one part for each row, and row
    ``i``'s part is ``g_i / B``. The parts' norms follow from the layer's input and the gradient of
    its output (Goodfellow 2015; Li et al. 2022; Gray et al. 2024): the gradients ``g_i`` themselves
    are never made for the whole batch at once.

    Rows must be independent, in the model and in the loss: output row ``i`` of every covered module
    belongs to sample ``i`` alone. What mixes rows and is not known to (see ``MIXERS``), and a first
    dimension that happens to have ``B`` entries but is not that of the samples, cannot be seen in
    an ordinary pass: ``halved`` shows both. Parameters that the model uses in another way than by
    calling their module, too, cannot be seen: ``arm(..., check=True)`` shows that.

    Nothing is read by the host, no random number is drawn, no gradient is changed. A step that is not
    armed has no hook at all. An armed one holds a reference to the inputs of the covered modules
    until their gradients arrive (``nn.RMSNorm``, and layers whose input autocast converts: a copy).

    Args:
        model: The plain module (not compiled, not wrapped).
        parameters: Its trained parameters.
        kinds: Measure only modules of these kinds.
        clock: Monotonic seconds.

    Attributes:
        seconds: Time that the hooks took inside backward passes so far, on the host.
        refusal: Why the last armed step could not be measured, or empty.
        sqnorms: ``|g_i|^2`` of the last measured step, over the covered parameters: ``(rows,)``,
            float64.
        mismatch: ``|sum of parts - gradient|^2 / |gradient|^2`` of the last step that was armed with
            ``check``, one float64; rounding leaves about 1e-12 in single precision.
        spill: From ``halved``: which share of the squared gradients of outputs fell on rows that
            should have none, one float64; 0 when rows are independent.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> per_example = PerExample(model, list(model.parameters()))
        >>> per_example.complete
        True
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> per_example.arm(2)
        >>> model(inputs).mean().backward()
        >>> per_example.collect()
        tensor(3.5000, dtype=torch.float64)
        >>> per_example.sqnorms
        tensor([2., 5.], dtype=torch.float64)
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[nn.Parameter],
        *,
        kinds: tuple[type[nn.Module], ...] = (nn.Module,),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock, self.seconds = clock, 0.0
        self._parameters = list(parameters)
        self._modules: dict[int, Covered] = dict(
            enumerate(covered_modules(model, parameters, kinds=kinds))
        )
        self._mixing = mixing(model)
        self._seen: set[int] = set()
        self._round: _Round | None = None
        self._recount()
        self.refusal = ""
        self.sqnorms: torch.Tensor | None = None
        self.mismatch: torch.Tensor | None = None
        self.spill: torch.Tensor | None = None

    @property
    def covered(self) -> frozenset[int]:
        """Places of the parameters that are measured.

        It shrinks when a module is found that gets gradients without ever being called.
        """
        return self._covered

    @property
    def complete(self) -> bool:
        """Whether every trained parameter is measured."""
        return len(self._covered) == len(self._parameters)

    def arm(self, rows: int, *, check: bool = False) -> None:
        """Measure the next forward and backward pass.

        Args:
            rows: Samples of the batch, 1 or more; 0: do not measure.
            check: Also compare the sum of the parts with the gradient, at the cost of that gradient
                once more; ``.grad`` must be empty before the backward pass.
        """
        self.disarm()
        self._round = armed = _Round(rows=rows, check=check)
        armed.refusal = self._forbidden(rows)
        if armed.refusal:
            return
        for place, covered in self._modules.items():
            hook = partial(self._called, armed, place)
            armed.handles.append(covered.module.register_forward_hook(Ear(hook)))

    def collect(self) -> torch.Tensor | None:
        """Return ``sum(|g_i|^2) / B`` over the covered parameters, and remove the hooks.

        To be called after the backward pass, before anybody takes ``.grad`` away.

        Returns:
            One float64 on the device of the gradients; ``None`` when ``refusal`` says why not.
        """
        armed = self._round
        self.disarm()
        self.sqnorms = self.mismatch = self.spill = None
        if armed is None:
            self.refusal = "the step was not armed"
            return None
        self.refusal = armed.refusal or self._left_out(armed)
        if self.refusal:
            return None
        if armed.spilled:
            self.spill = (
                torch.stack(armed.spilled[::2]).sum() / torch.stack(armed.spilled[1::2]).sum()
            )
        if armed.check:
            self.mismatch = self._mismatch(armed)
        self.sqnorms = _added(list(armed.found.values())).mul_(float(armed.rows) ** 2)
        return self.sqnorms.mean()

    def disarm(self) -> None:
        """Remove the hooks and forget what was held."""
        if self._round is not None:
            for handle in self._round.handles:
                handle.remove()
            self._round = None

    @contextmanager
    def halved(self, first: int) -> Iterator[None]:
        """Let a backward pass through whose gradient is zero from row ``first`` of the output on.

        For a second pass over the graph of an armed step, before the ordinary one: it is not taken
        for the step's own. Where rows are independent, every gradient that arrives in it is zero from
        row ``first`` on: ``spill`` says how far that is so.
        """
        armed = self._round
        if armed is None:
            yield
            return
        armed.first = first
        try:
            yield
        finally:
            armed.first = 0

    def _forbidden(self, rows: int) -> str:
        if rows < 1:
            return "no rows to measure"
        if not self._modules:
            return "no layer of this model can be measured sample by sample"
        for name, module in self._mixing:
            if mixes(module):
                kind = type(module).__name__
                return f"{kind} {name!r} mixes samples: no sample has a gradient of its own"
        return ""

    def _called(
        self, armed: _Round, place: int, _: nn.Module, inputs: tuple[Any, ...], output: Any
    ) -> None:
        """A covered module was called in an armed step."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or armed.refusal:
            return
        if armed is not self._round or not getattr(output, "requires_grad", True):
            return
        covered = self._modules[place]
        refusal = _unfit(covered, armed.rows, inputs, output)
        if not refusal and place in armed.called:
            refusal = "was called twice"
        if refusal:
            armed.refuse(f"module {covered.name!r} {refusal}")
            return
        armed.called.add(place)
        self._seen.add(place)
        armed.kept[place] = covered.layer.keep(inputs[0], output)
        output.register_hook(partial(self._arrived, armed, place))

    def _arrived(self, armed: _Round, place: int, delta: torch.Tensor) -> None:
        """The gradient of a covered module's output is there."""
        if armed is not self._round or armed.refusal:
            return
        began = self._clock()
        kind = delta.device.type
        if torch.is_grad_enabled() or torch.is_autocast_enabled(kind):
            with torch.no_grad(), torch.autocast(kind, enabled=False):
                self._take(armed, place, delta)
        else:
            self._take(armed, place, delta)
        self.seconds += self._clock() - began

    def _take(self, armed: _Round, place: int, delta: torch.Tensor) -> None:
        if armed.first:
            armed.spilled += [_sum(delta[armed.first :]), _sum(delta)]
        elif place in armed.found:
            name = self._modules[place].name
            armed.refuse(f"module {name!r} got a second gradient: two backward passes")
        else:
            self._measure(armed, place, delta)

    def _measure(self, armed: _Round, place: int, delta: torch.Tensor) -> None:
        covered = self._modules[place]
        kept = armed.kept.pop(place)
        armed.found[place] = covered.layer.sqnorms(kept, delta)
        if armed.check:
            for name, total in covered.layer.totals(kept, delta).items():
                if name in covered.places:
                    armed.totals[covered.places[name]] = total

    def _left_out(self, armed: _Round) -> str:
        """Return why the step is not whole, or empty; stop to cover what is never called."""
        if not armed.found:
            return "no gradient came through a covered module (a compiled model, or no backward)"
        missed = [place for place in self._modules if place not in armed.found]
        reached = [place for place in missed if self._has_gradient(place)]
        if not reached:
            return ""
        name = self._modules[reached[0]].name
        for place in reached:
            if place not in self._seen:
                del self._modules[place]
        self._recount()
        return f"module {name!r} got a gradient without one coming through its output"

    def _has_gradient(self, place: int) -> bool:
        places = self._modules[place].places.values()
        return any(self._parameters[each].grad is not None for each in places)

    def _recount(self) -> None:
        modules = self._modules.values()
        self._covered = frozenset(place for each in modules for place in each.places.values())

    def _mismatch(self, armed: _Round) -> torch.Tensor:
        off, all_ = [], []
        for place, total in armed.totals.items():
            grad = self._parameters[place].grad
            grad = torch.zeros_like(total) if grad is None else grad
            off.append(_sum(total - grad))
            all_.append(_sum(grad))
        return _added(off) / _added(all_)


def _unfit(covered: Covered, rows: int, inputs: tuple[Any, ...], output: Any) -> str:
    """Return why a call cannot be measured, or empty."""
    if (
        not inputs
        or not isinstance(inputs[0], torch.Tensor)
        or not isinstance(output, torch.Tensor)
    ):
        return "was not called with one tensor in the first place"
    given = inputs[0]
    if not covered.layer.fits(given) or given.shape[0] != rows or output.shape[0] != rows:
        return f"was called on shape {tuple(given.shape)}, not on {rows} rows"
    if _saved_elsewhere():
        return "runs under hooks for saved tensors (activation checkpointing or offloading)"
    return ""


def _saved_elsewhere() -> bool:
    """Return whether autograd hands saved tensors to hooks: then inputs may be made again later."""
    try:
        with disable_saved_tensors_hooks("asked whether there are any"):
            return False
    except RuntimeError:
        return True


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares, one double."""
    return row_sqnorms(tensor.reshape(1, -1)).double().sum()


def _added(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of vectors of one shape, as doubles on the first one's device."""
    device = vectors[0].device
    if len({(vector.dtype, vector.device) for vector in vectors}) > 1:
        vectors = [vector.to(device, torch.float64) for vector in vectors]
    return torch.stack(list(vectors)).sum(0, dtype=torch.float64)
