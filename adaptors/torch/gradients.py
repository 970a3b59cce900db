"""The gradients of one step: weighted, accumulated, added over workers and measured, in the hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from workbench.errors import ConfigurationError

from .group import Group
from .halves import Halves
from .leaves import Arrivals
from .norms import sqnorm
from .reduce import Reducer


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was seen of one step's gradient on this worker; tensors stay on their device.

    Attributes:
        small: ``sum(b_i |g_i|²)`` over this worker's small batches, or ``None``.
        big: ``|g|²`` of the mean over all workers, or ``None``.
        split: The first is over two halves of one batch (already divided by its size).
        arrived: A backward pass took place.
    """

    small: torch.Tensor | None
    big: torch.Tensor | None
    split: bool
    arrived: bool


class Gradients:
    """Makes ``.grad`` the mean over the whole global batch by the end of the last backward pass.

    Before the last micro-batch of a step, each one's gradient is weighted and put aside, and ``.grad``
    is ``None``: an optimizer that is asked to step then has nothing to do.

    Args:
        model: The plain module (not wrapped in DistributedDataParallel).
        group: The workers.
        measure: Whether to take norms at all.
        grad_scaler: The loop's ``torch.amp.GradScaler``, or ``None``.
        static_graph: Whether every step uses the same parameters.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        group: Group,
        *,
        measure: bool,
        grad_scaler: torch.amp.GradScaler | None,
        static_graph: bool,
    ) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._group, self._measure, self._scaler = group, measure, grad_scaler
        self._one = torch.ones((), device=self.parameters[0].device)
        self._reducer = Reducer(self.parameters, group) if group.workers > 1 else None
        self._halves = Halves(model, self.parameters) if measure else None
        self._stash: dict[int, torch.Tensor] = {}
        self._weight, self._rows, self._last = 1.0, 0, True
        self._closed = False
        self._small: torch.Tensor | None = None
        self._big: torch.Tensor | None = None
        self._split = False
        self._arrivals = Arrivals(
            model,
            self.parameters,
            static_graph=static_graph,
            on_arrival=self._arrived,
            on_last=self._close_backward,
        )

    @property
    def refusal(self) -> str:
        """Why a batch could not be split on one worker, or empty."""
        return self._halves.refusal if self._halves is not None else ""

    def expect(self, *, weight: float, rows: int, last: bool, split: bool) -> None:
        """Get ready for a micro-batch.

        Args:
            weight: Its share of the global mean, 0 for a stand-in.
            rows: Its samples.
            last: Whether the optimizer steps after it.
            split: Whether to measure its halves (one worker, one micro-batch).
        """
        self._arrivals.reset()
        self._weight, self._rows, self._last, self._closed = weight, rows, last, False
        if self._halves is not None:
            self._halves.arm(rows if split else 0)
        if last and self._reducer is not None:
            self._reducer.begin(weight, self._stash)

    def before_step(self) -> None:
        """Finish a backward pass whose end was not seen (called before the optimizer steps)."""
        if self._arrivals.late and (self._reducer is not None or self._stash or not self._last):
            raise ConfigurationError(
                "a gradient arrived after the backward pass had ended (a second backward in one step, "
                "reentrant checkpointing, or a graph that is not static); allowed with several workers "
                "or accumulation: one backward; add the losses before backward(), use "
                "use_reentrant=False, leave out static_graph"
            )
        if self._arrivals.any and not self._closed:
            self._close_backward()

    def collect(self) -> Measured:
        """Return what was measured since the last call."""
        if self._arrivals.late and self._closed and self._measure:
            self._small, self._big = None, self._sqnorm()
        measured = Measured(
            small=self._small, big=self._big, split=self._split, arrived=self._closed
        )
        self._small = self._big = None
        self._split = False
        self._stash = {}
        return measured

    def close(self) -> None:
        """Remove all hooks."""
        self._arrivals.close()
        if self._halves is not None:
            self._halves.close()

    def _arrived(self, place: int) -> None:
        if self._last and self._reducer is not None and not self._closed:
            self._reducer.arrived(place)

    def _close_backward(self) -> None:
        """The last gradient of this micro-batch is in ``.grad``."""
        self._closed = True
        own = self._sqnorm() if self._measure else None
        if own is not None and self._weight > 0.0:
            small = own * self._rows
            self._small = small if self._small is None else self._small + small
        if not self._last:
            self._put_aside()
        elif self._reducer is not None:
            big = self._reducer.finish(measure=self._measure)
            self._big = None if big is None else self._unscaled(big)
        else:
            self._finish_alone(own)

    def _finish_alone(self, own: torch.Tensor | None) -> None:
        if self._stash:
            self._add_stash()
            self._big = self._sqnorm() if self._measure else None
            return
        self._big = own
        if self._halves is not None and own is not None:
            distance = self._halves.sqdistance()
            if distance is not None:
                self._small, self._split = own + self._unscaled(distance), True

    def _put_aside(self) -> None:
        for place, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            grad, parameter.grad = parameter.grad, None
            grad.mul_(self._weight)
            held = self._stash.get(place)
            self._stash[place] = grad if held is None else held.add_(grad)

    def _add_stash(self) -> None:
        for place, parameter in enumerate(self.parameters):
            held = self._stash.get(place)
            if parameter.grad is not None:
                parameter.grad.mul_(self._weight)
            if held is not None:
                parameter.grad = held if parameter.grad is None else parameter.grad.add_(held)

    def _sqnorm(self) -> torch.Tensor | None:
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if not grads or any(grad.is_sparse for grad in grads):
            return None
        return self._unscaled(sqnorm(grads))

    def _unscaled(self, squared: torch.Tensor) -> torch.Tensor:
        """Return a squared norm as it is without the gradient scaler's factor."""
        if self._scaler is None or not self._scaler.is_enabled():
            return squared
        scale: Any = self._scaler.scale(self._one)
        unscaled: torch.Tensor = squared / scale.double().square()
        return unscaled
