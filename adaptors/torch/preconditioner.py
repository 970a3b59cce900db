"""What an adaptive optimizer divides gradients by, read from its own state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

LARGEST_BYTES = 64 * 2**20
"""The most that the temporaries may take at once; a tensor larger than that is cut along its first
dimension, and one slice of it may take more."""

NAMES: Mapping[type, str] = {
    torch.optim.Adam: "adam",
    torch.optim.AdamW: "adamw",
    torch.optim.NAdam: "nadam",
    torch.optim.RAdam: "radam",
    torch.optim.RMSprop: "rmsprop",
    torch.optim.Adagrad: "adagrad",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Denominator:
    """One parameter's ``P = gain / (sqrt(square - mean^2) * scale + eps) + plain``.

    The last three numbers are tensors without dimensions, or ``None`` for 1, 1 and 0.
    """

    square: torch.Tensor
    mean: torch.Tensor | None
    eps: float
    scale: torch.Tensor | None = None
    gain: torch.Tensor | None = None
    plain: torch.Tensor | None = None


class Preconditioner:
    r"""The diagonal ``P`` by which an optimizer multiplies a gradient, up to the learning rate.

    ``P = diag(1 / (sqrt(v) + eps))`` with the running mean ``v`` of squared gradients in the state that
    is there now, that is before the step to come, so that ``P`` does not depend on the gradient it
    multiplies. ``v`` is corrected for its start as the optimizer does it. For the noise scale of the
    preconditioned gradient see McCandlish et al. 2018, appendix A.2: with ``g`` of mean ``G`` and
    covariance ``S``, ``P g`` has mean ``P G`` and covariance ``P S P``; no root is taken.

    ========= ==================================================================================
    adam      ``1 / (sqrt(v / (1 - b2^t)) + eps)`` (Kingma and Ba 2015); adamw, nadam: the same
    amsgrad   the same with the largest ``v`` so far (Reddi et al. 2018); for Adam and AdamW
    radam     ``r sqrt(1 - b2^t) / (sqrt(v) + eps)`` with the rectification ``r``, or 1 while the
              length of the average is at most 5 (Liu et al. 2020)
    rmsprop   ``1 / (sqrt(v) + eps)``; centred: ``v`` less the square of the mean gradient
    adagrad   ``1 / (sqrt(sum) + eps)`` (Duchi et al. 2011)
    ========= ==================================================================================

    ``t`` is the number of steps taken. Weight decay, momentum and the groups' rates are left out.

    Args:
        optimizer: Only its public ``state`` and ``param_groups`` are read.
        parameters: The trained parameters, in the order of places.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = torch.optim.Adam([weight], lr=0.1)
        >>> preconditioner = Preconditioner(optimizer, [weight])
        >>> gradient = {0: torch.tensor([3.0, -4.0])}
        >>> print(preconditioner.name, preconditioner.sqnorm(gradient))
        adam None
        >>> weight.grad = gradient[0].clone()
        >>> optimizer.step()
        >>> preconditioner.sqnorm(gradient)
        tensor(2.0000, dtype=torch.float64)
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]
    ) -> None:
        self._optimizer, self._parameters = optimizer, list(parameters)
        self._stepped = False
        if type(optimizer) is torch.optim.Adagrad:  # its state is there before the first step
            self._handle = optimizer.register_step_post_hook(self._after_step)

    @property
    def name(self) -> str:
        """Which one it is; empty when the optimizer has none or is not known."""
        name = NAMES.get(type(self._optimizer), "")
        groups = self._optimizer.param_groups
        return "amsgrad" if any(group.get("amsgrad") for group in groups) and name else name

    def sqnorm(self, tensors: Mapping[int, torch.Tensor]) -> torch.Tensor | None:
        """Return ``|P g|^2``, one double on the device of the first tensor.

        Args:
            tensors: ``g`` by place. A place whose parameter the optimizer does not have counts as
                zero, since it will not move.

        Returns:
            ``None`` without a known preconditioner, before a parameter's first step (for Adagrad:
            before the first one since this object was made), and for sparse or complex tensors.
        """
        denominators = self._denominators(tensors)
        if not denominators:
            return None
        sums = []
        for chunk in _chunks(denominators, tensors):
            norms = torch._foreach_norm(_products(chunk))
            sums += [norm.double().square_() for norm in norms]
        first = sums[0].device
        return torch.stack([each.to(first) for each in sums]).sum()

    def _after_step(self, *_: Any) -> None:
        self._stepped = True
        self._handle.remove()

    def _denominators(self, tensors: Mapping[int, torch.Tensor]) -> dict[int, _Denominator]:
        """Return what is known of each place; empty when one of them lacks it."""
        name = NAMES.get(type(self._optimizer), "")
        if not name or (name == "adagrad" and not self._stepped):
            return {}
        groups = {
            id(parameter): group
            for group in self._optimizer.param_groups
            for parameter in group["params"]
        }
        found = {}
        for place, tensor in tensors.items():
            parameter = self._parameters[place]
            if id(parameter) not in groups:
                continue
            if tensor.is_sparse or tensor.is_complex() or not self._optimizer.state.get(parameter):
                return {}
            state = self._optimizer.state[parameter]
            found[place] = _denominator(name, state, groups[id(parameter)])
        return found


def _denominator(name: str, state: Mapping[str, Any], group: Mapping[str, Any]) -> _Denominator:
    """Return one parameter's denominator from its state."""
    eps = float(group["eps"])
    if name == "adagrad":
        return _Denominator(square=state["sum"], mean=None, eps=eps)
    if name == "rmsprop":
        mean = state["grad_avg"] if group["centered"] else None
        return _Denominator(square=state["square_avg"], mean=mean, eps=eps)
    square = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    beta = group["betas"][1]
    steps = state["step"].double()
    corrected = (1.0 - beta**steps).sqrt_()
    if name != "radam":
        return _Denominator(square=square, mean=None, eps=eps, scale=corrected.reciprocal())
    gain, plain = _rectified(steps, beta)
    return _Denominator(square=square, mean=None, eps=eps, gain=gain * corrected, plain=plain)


def _rectified(steps: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return RAdam's factor (0 while it does not adapt) and 1 while it does not, else 0."""
    longest = 2.0 / (1.0 - beta) - 1.0
    power = beta**steps
    length = longest - 2.0 * steps * power / (1.0 - power)
    factor = (
        (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length)
    )
    adapts = length > 5.0
    nothing = torch.zeros_like(length)
    return torch.where(adapts, factor, nothing).sqrt(), (~adapts).double()


Piece = tuple[_Denominator, torch.Tensor]


def _pieces(
    denominators: Mapping[int, _Denominator], tensors: Mapping[int, torch.Tensor]
) -> Iterator[Piece]:
    """Yield denominators with their gradients; large ones cut along the first dimension."""
    for place, denominator in denominators.items():
        tensor = tensors[place]
        parts = -(-tensor.numel() * 4 // LARGEST_BYTES)
        if parts <= 1 or tensor.dim() == 0:
            yield denominator, tensor
            continue
        rows = max(1, tensor.shape[0] // parts)
        for start in range(0, tensor.shape[0], rows):
            yield _cut(denominator, slice(start, start + rows)), tensor[start : start + rows]


def _cut(whole: _Denominator, rows: slice) -> _Denominator:
    mean = None if whole.mean is None else whole.mean[rows]
    return _Denominator(
        square=whole.square[rows],
        mean=mean,
        eps=whole.eps,
        scale=whole.scale,
        gain=whole.gain,
        plain=whole.plain,
    )


def _chunks(
    denominators: Mapping[int, _Denominator], tensors: Mapping[int, torch.Tensor]
) -> Iterator[list[Piece]]:
    """Yield pieces of one kind of denominator whose temporaries stay below ``LARGEST_BYTES``."""
    held: list[Piece] = []
    size = 0
    for piece in _pieces(denominators, tensors):
        numbers = piece[1].numel() * 4
        if held and (size + numbers > LARGEST_BYTES or _kind(piece) != _kind(held[0])):
            yield held
            held, size = [], 0
        held.append(piece)
        size += numbers
    if held:
        yield held


def _kind(piece: Piece) -> tuple[object, ...]:
    """Return what pieces that are computed in one go have in common."""
    it, tensor = piece
    parts = (it.mean, it.scale, it.gain, it.plain)
    return (it.eps, tensor.device, *(part is None for part in parts))


def _products(chunk: Sequence[Piece]) -> list[torch.Tensor]:
    """Return ``P g`` of pieces of one kind, in new tensors."""
    first = chunk[0][0]
    squares = [_wide(each.square) for each, _ in chunk]
    if first.mean is None:
        found = list(torch._foreach_sqrt(squares))
    else:
        means = [_wide(each.mean) for each, _ in chunk if each.mean is not None]
        found = list(torch._foreach_addcmul(squares, means, means, value=-1.0))
        torch._foreach_sqrt_(found)
    scales = [each.scale for each, _ in chunk if each.scale is not None]
    if scales:
        torch._foreach_mul_(found, scales)
    torch._foreach_add_(found, first.eps)
    torch._foreach_reciprocal_(found)
    gains = [each.gain for each, _ in chunk if each.gain is not None]
    plains = [each.plain for each, _ in chunk if each.plain is not None]
    if gains and plains:
        torch._foreach_mul_(found, gains)
        torch._foreach_add_(found, plains)
    torch._foreach_mul_(found, [tensor for _, tensor in chunk])
    return found


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return numbers of half precision as single ones; others as they are."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
