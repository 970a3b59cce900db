"""The sharpness: the largest eigenvalue of the Hessian of the loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Any

import torch

from workbench.errors import ConfigurationError
from workbench.signal import Signal, undetermined

from .eigenvalue import Eigenvalue, largest_eigenvalue
from .hessian import Hessian, LossIsNotFinite
from .losses import LossFunction, StepFunction, step_from
from .random_state import own_random_numbers
from .stand_in import check_model, stand_in

_NAME = "sharpness"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharpness:
    """The largest eigenvalue of the Hessian ``H`` over the batches given, and how well it is known.

    Attributes:
        value: ``v . H v`` of the last unit vector ``v``; NaN when not determined.
        residual: ``|H v - value v|`` and the rounding of one product. An eigenvalue of ``H`` lies in
            ``[value - residual, value + residual]``.
        lower_bound: The largest eigenvalue is at least this, up to rounding, converged or not; NaN
            when the loss is not finite.
        by_difference: The curvature along ``v`` from two gradients nearby, without second derivatives.
        products: Products ``H v`` that were taken.
        samples: Samples in the batches.
        parameters: Trainable numbers in the model: the size of ``H``.
        reason: Why it is not determined; else empty.
    """

    value: float
    residual: float
    lower_bound: float
    by_difference: float
    products: int
    samples: int
    parameters: int
    reason: str = ""

    @property
    def edge_learning_rate(self) -> float:
        """``2 / value``: above it gradient descent on a quadratic of this sharpness diverges.

        Infinite when the value is not positive. Source: Cohen et al. 2021, "Gradient Descent on
        Neural Networks Typically Occurs at the Edge of Stability", section 2 (no momentum).
        """
        return inf if self.value <= 0.0 else 2.0 / self.value

    def signal(self, step: int = 0) -> Signal:
        """Return it as a signal; its level is 1, since the interval is no estimate from samples."""
        if self.reason:
            return undetermined(_NAME, reason=self.reason, step=step)
        return Signal(
            name=_NAME,
            value=self.value,
            low=self.value - self.residual,
            high=self.value + self.residual,
            level=1.0,
            step=step,
            reason=f"{self.samples} samples, {self.products} products",
        )


def sharpness(
    model: torch.nn.Module,
    loss_function: LossFunction | None,
    batches: Iterable[Any],
    *,
    step_function: StepFunction | None = None,
    iterations: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Sharpness:
    """Measure the largest eigenvalue of the Hessian of the mean loss over ``batches``.

    ``H v`` is the gradient of ``g . v`` with ``g`` the loss's gradient (Pearlmutter 1994); the
    largest, most positive eigenvalue comes from products alone, even where a negative one is larger
    in magnitude. Source: Yao et al. 2020, "PyHessian: Neural Networks Through the Lens of the
    Hessian", section III-A; how to read it: Cohen et al. 2021, section 2.

    What is promised, of ``H`` over these very batches: an eigenvalue lies within ``residual`` of
    ``value``, and the largest one is not below ``value``. That it *is* the largest is as good as sure,
    since the start is a random vector, but not proven. How ``H`` of other samples would differ is not
    part of the interval: give enough samples.

    Some operations hide their second derivative without an error (a kernel of one's own inside
    ``backward``). So the curvature along ``v`` is measured once more from two gradients nearby; if
    the two are apart by more than half, the sharpness is undetermined.

    The model's mode is used as it is: dropout is drawn once and held (seeded), batch normalisation
    in training mode uses each batch's own statistics. Weights, buffers, ``.grad``, modes and
    random numbers are as before afterwards, whatever happens.

    Cost, as measured on a CPU: a product takes about three backward passes with one batch, and four
    or five with several, whose gradient is computed anew each time; 20 products are usual. Memory:
    one copy of the weights, about eight vectors of their size, and the gradient's graph of one
    batch.

    Args:
        model: On its device, in the mode it is to be measured in.
        loss_function: ``loss_function(outputs, targets)``, the *mean* loss over the batch; ``None``
            with ``step_function``.
        batches: Pairs of inputs and targets; weighted by their number of samples.
        step_function: ``step_function(model, batch)`` for batches of another form.
        iterations: Products allowed, 1 or more.
        tolerance: The residual wanted, relative to the value, above 0.
        seed: Of the starting vector and of dropout.

    Raises:
        ConfigurationError: An argument cannot work, or an operation has no second derivative.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> inputs = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> found = sharpness(model, torch.nn.functional.mse_loss, [(inputs, torch.zeros(2, 1))])
        >>> round(found.value, 4), round(found.edge_learning_rate, 4)
        (9.0, 0.2222)
    """
    check_model(model)
    step, given = step_from(loss_function, step_function), list(batches)
    _check(given, iterations, tolerance)
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        own_random_numbers(model) as seed_all,
        stand_in(model) as inside,
    ):
        hessian = Hessian(model, inside, step, given, seed_all=seed_all, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(hessian.length, dtype=hessian.dtype, generator=generator)
        rounding = 100 * max(torch.finfo(clone.dtype).eps for clone in inside.trainable)
        try:
            found = largest_eigenvalue(
                hessian.product,
                start.to(hessian.device),
                iterations=iterations,
                tolerance=tolerance,
                rounding=rounding,
            )
            beside = hessian.curvature_by_difference(found.vector)
        except LossIsNotFinite as error:
            return _unknown(hessian, str(error))
    reason = _doubts(found, beside, tolerance=tolerance)
    return Sharpness(
        value=nan if reason else found.value,
        residual=found.residual + rounding / 100 * abs(found.value),
        lower_bound=found.value,
        by_difference=beside[0],
        products=found.products,
        samples=hessian.samples,
        parameters=hessian.length,
        reason=reason,
    )


def _check(batches: list[Any], iterations: int, tolerance: float) -> None:
    if not batches:
        raise ConfigurationError("batches is empty; allowed: 1 batch or more; give data")
    if iterations < 1:
        raise ConfigurationError(f"iterations is {iterations}; allowed: 1 or more; 100 is usual")
    if not 0.0 < tolerance < 1.0:
        raise ConfigurationError(
            f"tolerance is {tolerance}; allowed: above 0 and below 1; 1e-3 is usual"
        )


def _unknown(hessian: Hessian, reason: str) -> Sharpness:
    return Sharpness(
        value=nan,
        residual=nan,
        lower_bound=nan,
        by_difference=nan,
        products=0,
        samples=hessian.samples,
        parameters=hessian.length,
        reason=reason,
    )


def _doubts(found: Eigenvalue, beside: tuple[float, float], *, tolerance: float) -> str:
    """Return why the value is not to be told, or nothing."""
    seen, rounding = beside
    if not isfinite(found.value):
        return "the curvature is NaN or infinite"
    # Only far apart is telling: kinks (ReLU) and higher derivatives also part the two.
    if not abs(seen - found.value) <= 0.5 * max(abs(seen), abs(found.value)) + rounding:
        return (
            f"gradients nearby show a curvature of {seen:.4g} where second derivatives say "
            f"{found.value:.4g}; an operation hides its second derivative, or the loss has kinks"
        )
    if found.converged:
        return ""
    return (
        f"the residual is {found.residual:.3g} after {found.products} products, above {tolerance:g} "
        f"of the value; the largest eigenvalue is at least {found.value:.4g}"
    )
