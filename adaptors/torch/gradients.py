"""The gradients of one step: weighted, accumulated and added over workers, in the hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from workbench.errors import ConfigurationError

from .group import Group
from .leaves import Arrivals
from .measurement import Measurement, Numbers
from .reduce import Reducer
from .stopwatch import BACKWARD, COMMUNICATION, Stopwatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a micro-batch is to be measured.

    Attributes:
        norms: Whether to take norms at all.
        how: How one worker's only micro-batch is taken apart, as :meth:`.measurement.Measurement.arm`
            names it.
        step: The step, for what is compared with the step before; 0: compare nothing.
        dot: Whether to take inner products with the mean over workers.
    """

    norms: bool = False
    how: str = "none"
    step: int = 0
    dot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was seen of one step's gradient on this worker; tensors stay on their device.

    Attributes:
        numbers: By name; see :meth:`.measurement.Measurement.take`.
        origin: ``split`` or ``per-example`` when one worker's micro-batch was taken apart.
        arrived: A backward pass took place.
        riders: The sums of the numbers that rode along, or ``None``.
    """

    numbers: Numbers
    origin: str
    arrived: bool
    riders: torch.Tensor | None


class Gradients:
    """Makes ``.grad`` the mean over the whole global batch by the end of the last backward pass.

    Before the last micro-batch of a step, each one's gradient is weighted and put aside, and ``.grad``
    is ``None``: an optimizer that is asked to step then has nothing to do.

    Args:
        model: The plain module (not wrapped in DistributedDataParallel).
        parameters: Its trainable parameters.
        group: The workers.
        measurement: Who takes the norms, or ``None``.
        grad_scaler: The loop's ``torch.amp.GradScaler``, or ``None``.
        static_graph: Whether every step uses the same parameters.
        seats: How many numbers may ride along with the gradients.
        watch: The step's stopwatch.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        parameters: list[torch.nn.Parameter],
        group: Group,
        *,
        measurement: Measurement | None,
        grad_scaler: torch.amp.GradScaler | None,
        static_graph: bool,
        seats: int,
        watch: Stopwatch,
    ) -> None:
        self._parameters = parameters
        self._group, self._measurement, self._scaler = group, measurement, grad_scaler
        self._scales = grad_scaler is not None and grad_scaler.is_enabled()
        self._watch = watch
        self._one = torch.ones((), device=parameters[0].device)
        self._reducer = Reducer(parameters, group, seats=seats) if group.workers > 1 else None
        self._stash: dict[int, torch.Tensor] = {}
        self._weight, self._rows, self._last = 1.0, 0, True
        self._asked = Asked()
        self._riders: torch.Tensor | None = None
        self._factor: torch.Tensor | None = None
        self._closed = self._open = False
        self._arrivals = Arrivals(
            model,
            parameters,
            static_graph=static_graph,
            on_arrival=self._arrived,
            on_last=self._close_backward,
        )

    def expect(
        self,
        *,
        weight: float,
        rows: int,
        last: bool,
        asked: Asked,
        riders: torch.Tensor | None = None,
    ) -> None:
        """Get ready for a micro-batch.

        Args:
            weight: Its share of the global mean, 0 for a stand-in.
            rows: Its samples.
            last: Whether the optimizer steps after it.
            asked: What to measure.
            riders: Numbers to be added over the workers together with the gradients.
        """
        alone = last and self._reducer is None and not self._stash
        self._arrivals.reset(foresee=not alone or asked.norms or bool(asked.step))
        self._weight, self._rows, self._last, self._closed = weight, rows, last, False
        self._asked, self._riders, self._open = asked, None, True
        if self._measurement is not None and asked.norms:
            self._measurement.arm(rows, asked.how)
        if last and self._reducer is not None:
            own = asked.norms and self._measurement is not None and self._measurement.whole_only
            self._reducer.begin(weight, self._stash, riders=riders, dot=asked.dot, own=own)

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
            self._close_late()

    def tell(self, loss: torch.Tensor) -> None:
        """Hear the loss that the backward pass will start from."""
        self._arrivals.tell(loss)

    def _close_late(self) -> None:
        """The end of the backward pass was not seen; the loop may have clipped since."""
        alone = self._last and self._reducer is None and not self._stash
        if self._arrivals.awaited and not alone:
            raise ConfigurationError(
                "an output of the model is not used by the loss, so that the end of the backward pass "
                "cannot be seen; allowed with several workers or accumulation when the loss is told "
                "before backward(): call job.observe(loss=loss)"
            )
        if alone:
            self._asked = Asked()  # norms would be of what the loop made of the gradient
        self._close_backward()

    def collect(self, *, size: int) -> Measured:
        """Return what was measured since the last call, in a step of ``size`` samples."""
        numbers: Numbers = {}
        origin = ""
        if self._measurement is not None:
            if self._arrivals.late and self._closed:
                self._measurement.forget()  # more came after what was measured
            numbers = self._measurement.take(size=size, unscale=self._factor)
            origin = self._measurement.origin
            self._measurement.reset()
        riders, self._riders, self._stash = self._riders, None, {}
        self._factor, self._open = None, False
        return Measured(numbers=numbers, origin=origin, arrived=self._closed, riders=riders)

    def forget(self) -> None:
        """Drop what a step left that the loop broke off before its end."""
        if not self._open:
            return
        self._stash, self._riders, self._factor, self._open = {}, None, None, False
        if self._measurement is not None:
            self._measurement.forget()

    def close(self) -> None:
        """Remove all hooks."""
        self._arrivals.close()

    def _arrived(self, place: int) -> None:
        if self._last and self._reducer is not None and not self._closed:
            self._reducer.arrived(place)

    def _close_backward(self) -> None:
        """The last gradient of this micro-batch is in ``.grad``."""
        self._closed = True
        self._watch.mark(BACKWARD)
        if self._last and (self._asked.norms or self._asked.step):
            self._factor = self._unscale()  # now: the loop updates its scaler before collect()
        if not self._last:
            self._measure_own()
            self._put_aside()
        elif self._reducer is not None:
            if not self._reducer.takes_own:
                self._measure_own()
            self._finish_together(self._reducer)
        else:
            self._finish_alone()

    def _measure_own(self) -> None:
        if self._measurement is not None and self._asked.norms and self._weight > 0.0:
            token = self._watch.began_measuring()
            self._measurement.own(self._rows)
            self._watch.ended_measuring(token)

    def _finish_together(self, reducer: Reducer) -> None:
        big = reducer.finish(measure=self._asked.norms)
        self._watch.mark(COMMUNICATION)
        self._riders = reducer.riders
        if self._measurement is None:
            return
        token = self._watch.began_measuring()
        if self._asked.norms:
            if reducer.own is not None:
                self._measurement.own(self._rows, sqnorm_known=reducer.own)
            self._measurement.mean(sqnorm_known=big)
            self._measurement.inner_product(reducer.dot, self._rows)
        if self._asked.step:
            self._measurement.successive(self._asked.step)
        self._watch.ended_measuring(token)

    def _finish_alone(self) -> None:
        accumulated = bool(self._stash)
        if accumulated:
            self._measure_own()
            self._add_stash()
        if self._measurement is None or not (self._asked.norms or self._asked.step):
            return
        token = self._watch.began_measuring()
        if self._asked.norms:
            self._measurement.mean()
            if not accumulated:
                self._measurement.apart(self._rows)
        if self._asked.step:
            self._measurement.successive(self._asked.step)
        self._watch.ended_measuring(token)

    def _put_aside(self) -> None:
        for place, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            grad, parameter.grad = parameter.grad, None
            grad.mul_(self._weight)
            held = self._stash.get(place)
            self._stash[place] = grad if held is None else held.add_(grad)

    def _add_stash(self) -> None:
        for place, parameter in enumerate(self._parameters):
            held = self._stash.get(place)
            if parameter.grad is not None:
                parameter.grad.mul_(self._weight)
            if held is not None:
                parameter.grad = held if parameter.grad is None else parameter.grad.add_(held)

    def _unscale(self) -> torch.Tensor | None:
        """Return one over the square of the gradient scaler's factor, on the device."""
        if self._scaler is None or not self._scales:
            return None
        scale: Any = self._scaler.scale(self._one)
        factor: torch.Tensor = 1.0 / scale.double().square()
        return factor
