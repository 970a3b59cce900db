"""One step's gradient as the monitors want it: its norms at two batch sizes, on this worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import isfinite

import torch

from .coordinates import CoordinateSample
from .groups import group_sqnorms
from .halves import Halves
from .norms import sqnorm
from .per_example import NORMALISERS, PerExample
from .preconditioner import Preconditioner
from .wanted import Wanted

Places = dict[int, torch.Tensor]
Numbers = dict[str, torch.Tensor]

SPLIT, PER_EXAMPLE, CHECK, NONE = "split", "per-example", "check", "none"

LARGEST_DOUBT, LARGEST_COARSE_DOUBT = 1e-6, 1e-4
"""Of what parts leave out or mix, relative to the squared gradient: rounding in single precision
leaves 1e-12, under autocast 1e-5."""

CHECK_SPLITS, CHECK_EXAMPLES = 16, 64
"""One in so many measured steps checks its way of measuring anew: a penalty in the loss may grow."""

WHOLE, GROUPS, PRECONDITIONED, COVERED = "", "groups", "preconditioned", "covered"


class Measurement:
    """Collects squared norms of a step's small gradients and of its mean; all stay on the device.

    Small batches are this worker's micro-batches; with one worker and one micro-batch the samples
    themselves (:class:`.per_example.PerExample`) or two halves (:class:`.halves.Halves`).

    Args:
        model: The plain module.
        parameters: Its trainable parameters; a *place* is an index into them.
        optimizer: Whose preconditioner is read, if it is wanted.
        wanted: What to take.
        groups: Places of the groups of ``wanted.groups``.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        parameters: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        *,
        wanted: Wanted,
        groups: Mapping[str, Sequence[int]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._parameters, self._wanted = parameters, wanted
        self._groups = {name: tuple(places) for name, places in groups.items()}
        self._examples = PerExample(model, parameters, clock=clock)
        self._layers = _layers(model, parameters, clock) if wanted.covered else None
        self._halves = Halves(model, parameters, around=self._during_halves, clock=clock)
        preconditioner = Preconditioner(optimizer, parameters) if wanted.preconditioned else None
        self._preconditioner = preconditioner
        self._sample = CoordinateSample(parameters) if wanted.successive else None
        self._before: tuple[int, list[torch.Tensor]] | None = None
        self._armed = NONE
        self._by_examples, self._trusted = self._examples.complete, False
        self._refusal = ""
        self._splits = self._exampled = 0
        self._beside = False
        self.reset()

    def reset(self) -> None:
        """Forget what was collected."""
        self._small: Numbers = {}
        self._big: Numbers = {}
        self._extra: Numbers = {}
        self.origin = ""

    def forget(self) -> None:
        """Forget a step that came to no good end, what it armed included."""
        self.reset()
        self._before, self._armed = None, NONE
        self._halves.arm(0)
        self._examples.disarm()
        if self._layers is not None:
            self._layers.disarm()

    @property
    def preconditioner(self) -> str:
        """The name of the preconditioner that is read, or empty."""
        return self._preconditioner.name if self._preconditioner is not None else ""

    @property
    def refusal(self) -> str:
        """Why one worker's batch could not be taken apart, or empty."""
        return self._refusal

    @property
    def hook_seconds(self) -> float:
        """Time that the hooks of this object took inside backward passes so far."""
        layers = self._layers.seconds if self._layers is not None else 0.0
        return self._halves.seconds + self._examples.seconds + layers

    def arm(self, rows: int, how: str = "auto") -> None:
        """Get ready to take one worker's only micro-batch apart.

        Per-example norms are used only after one step in which the sum of their parts was the
        gradient, and a gradient masked to half of the rows reached those rows alone (see
        :meth:`trust`): that step is measured by its halves.

        Args:
            rows: Its samples.
            how: ``auto``, ``per-example``, ``split``, ``covered`` (the covered layers alone) or ``none``.
        """
        self._armed = self._way(rows, how)
        if self._armed in (SPLIT, CHECK):
            self._halves.arm(rows, whole=self._beside or self._splits % CHECK_SPLITS == 0)
            self._splits += 1
        else:
            self._halves.arm(0)
        if self._armed in (PER_EXAMPLE, CHECK):
            self._examples.arm(rows, check=self._armed == CHECK)
        if self._layers is not None and rows > 1 and how != NONE:
            self._layers.arm(rows)

    def trust(self, doubt: float) -> None:
        """Hear how far the checked step's per-example parts were from the gradient."""
        self._trusted = isfinite(doubt) and doubt <= self._largest_doubt
        self._by_examples = self._by_examples and (self._trusted or not isfinite(doubt))

    def beside(self, mismatch: float) -> None:
        """Hear how far a checked split's gradient through the output was from the gradient."""
        self._beside = self._beside or (isfinite(mismatch) and mismatch > self._largest_doubt)

    @property
    def _largest_doubt(self) -> float:
        return LARGEST_COARSE_DOUBT if self._halves.coarse else LARGEST_DOUBT

    def _way(self, rows: int, how: str) -> str:
        if rows < 2 or how in (NONE, COVERED):
            return NONE
        beyond = self._wanted.groups or self._wanted.preconditioned or self._wanted.inner_products
        if how == SPLIT or beyond or not self._by_examples:
            return SPLIT
        self._exampled += 1
        due = self._exampled % CHECK_EXAMPLES == 0
        return PER_EXAMPLE if self._trusted and not due else CHECK

    @property
    def whole_only(self) -> bool:
        """Whether nothing is wanted of a small gradient but the norm of the whole."""
        return not self._groups and self._preconditioner is None

    def own(self, rows: int, *, sqnorm_known: torch.Tensor | None = None) -> None:
        """Take ``.grad`` as the mean gradient of a small batch of ``rows`` samples."""
        if sqnorm_known is not None and self.whole_only:
            self._small[WHOLE] = self._small.get(WHOLE, 0.0) + sqnorm_known * rows
            return
        for name, number in self._numbers(self._gradient()).items():
            weighted = number * rows
            held = self._small.get(name)
            self._small[name] = weighted if held is None else held + weighted

    def mean(self, *, sqnorm_known: torch.Tensor | None = None) -> None:
        """Take ``.grad`` as the mean gradient over the whole global batch."""
        if sqnorm_known is not None and self.whole_only:
            self._big = {WHOLE: sqnorm_known}
            return
        self._big = self._numbers(self._gradient(), sqnorm_known)

    def inner_product(self, dot: torch.Tensor | None, rows: int) -> None:
        """Take ``g_i . g`` of this worker's small batch; :meth:`mean` comes before."""
        if dot is not None and WHOLE in self._big:
            self._extra["dot_variance"] = rows * (dot - self._big[WHOLE]).square()

    def apart(self, rows: int) -> None:
        """Take what the armed parts saw of one worker's only micro-batch; :meth:`mean` before."""
        self._by_layers()
        seen = self._examples.collect() if self._armed in (PER_EXAMPLE, CHECK) else None
        if self._armed in (PER_EXAMPLE, CHECK) and seen is None:
            self._by_examples = False  # from now on by halves
        if self._armed == PER_EXAMPLE:
            if seen is not None:
                self._small, self.origin = {WHOLE: seen * rows}, PER_EXAMPLE
            return
        mismatch, spill = self._examples.mismatch, self._examples.spill
        if self._armed == CHECK and mismatch is not None and spill is not None:
            self._extra["doubt"] = mismatch + spill
        found = self._halves.difference()
        if self._halves.mismatch is not None:
            self._extra["beside"] = self._halves.mismatch
        if found is not None:
            self._by_halves(*found, rows)
        elif self._armed != NONE:
            self._by_examples, self._refusal = False, self._halves.refusal

    def successive(self, step: int) -> None:
        """Take the coordinate sample of the mean gradient; compare it with that of ``step - 1``."""
        if self._sample is None:
            return
        now = self._sample.take([parameter.grad for parameter in self._parameters])
        if self._before is not None and self._before[0] == step - 1:
            self._extra["successive"] = self._sample.compare(now, self._before[1])
        self._before = (step, now)

    def take(self, *, size: int, unscale: torch.Tensor | None) -> Numbers:
        """Return this worker's numbers of the step and start anew.

        Args:
            size: Samples in the global batch.
            unscale: One over the square of the gradient scaler's factor, or ``None``.
        """
        numbers = {f"small{_tail(name)}": value / size for name, value in self._small.items()}
        numbers |= {f"big{_tail(name)}": value for name, value in self._big.items()}
        numbers |= self._extra
        if unscale is not None:
            for name, value in numbers.items():
                if name in ("doubt", "beside"):
                    continue
                power = unscale.square() if name == "dot_variance" else unscale
                numbers[name] = value * power
        return numbers

    def close(self) -> None:
        """Remove the hooks."""
        self._halves.close()
        self._examples.disarm()
        if self._layers is not None:
            self._layers.disarm()

    @contextmanager
    def _during_halves(self, first: int) -> Iterator[None]:
        """Tell per-example hooks that the backward pass to come is not the step's own."""
        with ExitStack() as stack:
            for seer in (self._examples, self._layers):
                if seer is not None:
                    stack.enter_context(seer.halved(first))
            yield

    def _by_layers(self) -> None:
        """Take the per-example norms of the cheapest layers."""
        seen = self._layers.collect() if self._layers is not None else None
        if self._layers is None or seen is None:
            return
        gradient = self._gradient()
        covered = [gradient[place] for place in self._layers.covered if place in gradient]
        if covered:
            self._extra["covered_small"], self._extra["covered_big"] = seen, sqnorm(covered)

    def _by_halves(self, moved: Places, ratio: float, rows: int) -> None:
        self.origin = SPLIT
        for name, number in self._numbers(moved).items():
            self._small[name] = (self._big[name] + ratio * number) * rows
        if self._wanted.inner_products:
            # g_1 . g - |g|² = d . g =: x, and -(b_1 / b_2) x for the other half.
            dots = [
                torch.dot(part.reshape(-1), self._grad(place).reshape(-1)).double()
                for place, part in moved.items()
            ]
            first = rows * ratio / (1.0 + ratio)
            self._extra["dot_variance"] = first * (1.0 + ratio) * torch.stack(dots).sum().square()

    def _numbers(self, tensors: Places, known: torch.Tensor | None = None) -> Numbers:
        """Return the squared norms wanted of one gradient."""
        if not tensors or any(tensor.is_sparse for tensor in tensors.values()):
            return {}
        numbers: Numbers = {}
        numbers[WHOLE] = sqnorm(list(tensors.values())) if known is None else known
        if self._groups:
            numbers[GROUPS] = group_sqnorms(tensors, self._groups)
        if self._preconditioner is not None:
            found = self._preconditioner.sqnorm(tensors)
            if found is not None:
                numbers[PRECONDITIONED] = found
        return numbers

    def _gradient(self) -> Places:
        return {
            place: parameter.grad
            for place, parameter in enumerate(self._parameters)
            if parameter.grad is not None
        }

    def _grad(self, place: int) -> torch.Tensor:
        grad = self._parameters[place].grad
        assert grad is not None  # the halves were taken of parameters that have one
        return grad


def _layers(
    model: torch.nn.Module, parameters: Sequence[torch.nn.Parameter], clock: Callable[[], float]
) -> PerExample:
    """Return what measures the normalisation layers, or where there are none all it can."""
    cheapest = PerExample(model, parameters, kinds=NORMALISERS, clock=clock)
    return cheapest if cheapest.covered else PerExample(model, parameters, clock=clock)


def _tail(name: str) -> str:
    return f"_{name}" if name else ""
