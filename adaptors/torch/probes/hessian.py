"""Products of the Hessian of a mean loss with vectors, by two backward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from workbench.errors import ConfigurationError

from .losses import UNUSED, StepFunction, samples_in, to_device
from .stand_in import StandIn

_NO_SECOND = (
    "is not implemented",
    "once_differentiable",
    "double backward",
    "not compatible with .grad",
)


class LossIsNotFinite(Exception):  # noqa: N818 - a message between two files, never raised to a user
    """The loss of a batch is NaN or infinite."""


class Hessian:
    """``H v`` for the mean loss over all samples of the batches, at the stand-in's weights.

    ``H = sum(n_i H_i) / sum(n_i)`` with ``n_i`` samples in batch ``i``. Random numbers are seeded
    and buffers put back before each pass, so that ``H`` is one and the same matrix in every
    product. With one batch the gradient's graph is kept: a product is then one pass back through
    it. With more it is built anew each time, so that memory does not grow with the batches.

    Args:
        model: The module that the stand-in is in.
        inside: Clones in its place.
        step: Gives the mean loss of a batch.
        batches: One or more.
        seed_all: Seeds every generator.
        seed: Seed of the first batch; the next one has the next.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        inside: StandIn,
        step: StepFunction,
        batches: Sequence[Any],
        *,
        seed_all: Callable[[int], None],
        seed: int,
    ) -> None:
        self._model, self._inside, self._step = model, inside, step
        self._batches, self._seed_all, self._seed = batches, seed_all, seed
        self._kept: Sequence[torch.Tensor | None] | None = None
        sizes = [samples_in(batch) for batch in batches]
        self.samples = sum(sizes)
        if self.samples < 1:
            raise ConfigurationError("batches hold no sample; allowed: 1 or more; give data")
        self._weights = [size / self.samples for size in sizes]
        wide = any(clone.dtype == torch.float64 for clone in inside.trainable)
        self.dtype = torch.float64 if wide else torch.float32
        self.device = inside.trainable[0].device
        self.length = sum(clone.numel() for clone in inside.trainable)

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """Return ``H v``.

        Raises:
            ConfigurationError: An operation has no second derivative.
            LossIsNotFinite: The loss is NaN or infinite.
        """
        total = torch.zeros(self.length, dtype=self.dtype, device=self.device)
        parts = self._shaped(vector)
        for place, weight in enumerate(self._weights):
            with _second_derivatives():
                gradient = self._kept or self._gradient(place, twice=True)
                total.add_(self._flat(self._times(gradient, parts)), alpha=weight)
        return total

    def curvature_by_difference(self, vector: torch.Tensor) -> tuple[float, float]:
        """Return ``v . (g(w + h v) - g(w - h v)) / (2 h)`` and its rounding; afterwards weights moved.

        It needs first derivatives only. The last call on this object: the graph is gone.
        """
        self._kept = None
        eps = max(torch.finfo(kind).eps for kind in self._dtypes())
        weights = self._flat(self._inside.trainable).detach()
        step = eps**0.4 * max(float(weights.norm()), 1e-3)
        slopes, sizes = [], []
        for moved in (step, -step):
            for clone, part in zip(self._inside.trainable, self._shaped(vector), strict=True):
                clone.data.add_(part, alpha=moved if moved > 0.0 else 2.0 * moved)
            whole = torch.zeros_like(weights)
            for place, weight in enumerate(self._weights):
                whole.add_(self._flat(self._gradient(place, twice=False)), alpha=weight)
            slopes.append(float(torch.dot(whole.double(), vector.double())))
            sizes.append(float(whole.norm()))
        return (slopes[0] - slopes[1]) / (2.0 * step), 20.0 * eps * max(sizes) / step

    def _dtypes(self) -> set[torch.dtype]:
        kind = self.device.type
        computed = {torch.get_autocast_dtype(kind)} if torch.is_autocast_enabled(kind) else set()
        return computed | {clone.dtype for clone in self._inside.trainable}

    def _gradient(self, place: int, *, twice: bool) -> Sequence[torch.Tensor | None]:
        """Return the gradient of one batch's loss; ``twice``: with the graph that led to it."""
        self._inside.reset_buffers()
        self._seed_all(self._seed + place)
        loss = self._step(self._model, to_device(self._batches[place], self.device))
        if not bool(torch.isfinite(loss)):
            raise LossIsNotFinite(f"the loss of batch {place} is {loss.item()}")
        if not loss.requires_grad:
            raise ConfigurationError(UNUSED)
        parts: Sequence[torch.Tensor | None] = torch.autograd.grad(
            loss, self._inside.trainable, create_graph=twice, allow_unused=True
        )
        if all(part is None for part in parts):
            raise ConfigurationError(UNUSED)
        if twice and len(self._batches) == 1:
            self._kept = parts
        return parts

    def _times(
        self, gradient: Sequence[torch.Tensor | None], parts: list[torch.Tensor]
    ) -> Sequence[torch.Tensor | None]:
        pairs = [
            (part, along)
            for part, along in zip(gradient, parts, strict=True)
            if part is not None and part.requires_grad
        ]
        if not pairs:  # the loss is linear in the weights
            return [None] * len(parts)
        return torch.autograd.grad(
            [part for part, _ in pairs],
            self._inside.trainable,
            [along for _, along in pairs],
            retain_graph=self._kept is not None,
            allow_unused=True,
        )

    def _shaped(self, vector: torch.Tensor) -> list[torch.Tensor]:
        sizes = [clone.numel() for clone in self._inside.trainable]
        return [
            part.view(clone.shape).to(clone.device, clone.dtype)
            for part, clone in zip(torch.split(vector, sizes), self._inside.trainable, strict=True)
        ]

    def _flat(self, parts: Sequence[torch.Tensor | None]) -> torch.Tensor:
        whole = [
            torch.zeros_like(clone) if part is None else part
            for part, clone in zip(parts, self._inside.trainable, strict=True)
        ]
        return torch.cat([part.reshape(-1).to(self.device, self.dtype) for part in whole])


@contextmanager
def _second_derivatives() -> Iterator[None]:
    """Say what to do when an operation can be differentiated once only."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        said = str(error).strip().partition("\n")[0]
        if not any(mark in str(error) for mark in _NO_SECOND):
            raise
        raise ConfigurationError(
            f"the model has an operation without a second derivative ({said}); allowed: operations "
            "that can be differentiated twice; for fused attention run the probe inside "
            "torch.nn.attention.sdpa_kernel(SDPBackend.MATH), give the module that is not compiled, "
            "and checkpoint with use_reentrant=False"
        ) from error
