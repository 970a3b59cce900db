"""What an adaptive optimizer divides gradients by, read from its own state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .norms import sqnorm

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
        >>> round(float(preconditioner.sqnorm(gradient)), 4)
        2.0
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
        total: torch.Tensor | None = None
        for chunk in _chunks(denominators, tensors):
            squared = sqnorm(_products(chunk))
            total = squared if total is None else total + squared.to(total.device)
        return total

    def _after_step(self, *_: Any) -> None:
        self._stepped = True
        self._handle.remove()

    def _denominators(self, tensors: Mapping[int, torch.Tensor]) -> dict[int, _Denominator]:
        """Return what is known of each place; empty when one of them lacks it."""
        name = NAMES.get(type(self._optimizer), "")
        if not name or (name == "adagrad" and not self._stepped):
            return {}
        places = {id(self._parameters[place]): place for place in tensors}
        found: dict[int, _Denominator] = {}
        for group in self._optimizer.param_groups:
            here = [each for each in group["params"] if id(each) in places]
            states = [self._optimizer.state.get(parameter) for parameter in here]
            if not all(states) or not all(_dense(tensors[places[id(each)]]) for each in here):
                return {}
            of_group = _group_denominators(name, states, group)
            found.update(zip((places[id(each)] for each in here), of_group, strict=True))
        return found


def _dense(tensor: torch.Tensor) -> bool:
    return not tensor.is_sparse and not tensor.is_complex()


def _group_denominators(
    name: str, states: Sequence[Any], group: Mapping[str, Any]
) -> list[_Denominator]:
    """Return the denominators of some parameters of one group from their states."""
    eps = float(group["eps"])
    if name == "adagrad":
        return [_Denominator(square=state["sum"], mean=None, eps=eps) for state in states]
    if name == "rmsprop":
        means = [state["grad_avg"] if group["centered"] else None for state in states]
        squares = [state["square_avg"] for state in states]
        return [
            _Denominator(square=square, mean=mean, eps=eps)
            for square, mean in zip(squares, means, strict=True)
        ]
    key = "max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"
    make = _radam if name == "radam" else _adam
    numbers = _for_each_step([state["step"] for state in states], group["betas"][1], make)
    return [
        _Denominator(square=state[key], mean=None, eps=eps, **each)
        for state, each in zip(states, numbers, strict=True)
    ]


def _for_each_step(
    steps: Sequence[torch.Tensor], beta: Any, make: Callable[[Any, Any], dict[str, torch.Tensor]]
) -> list[dict[str, torch.Tensor]]:
    """Return ``make`` of each number of steps, computed at once on each device they are on."""
    found: list[dict[str, torch.Tensor]] = [{} for _ in steps]
    for device in {step.device for step in steps}:
        here = [place for place, step in enumerate(steps) if step.device == device]
        vectors = make(torch.stack([steps[place] for place in here]).double(), beta)
        for name, vector in vectors.items():
            for place, number in zip(here, vector.unbind(), strict=True):
                found[place][name] = number
    return found


def _adam(steps: torch.Tensor, beta: Any) -> dict[str, torch.Tensor]:
    return {"scale": (1.0 - beta**steps).rsqrt_()}


def _radam(steps: torch.Tensor, beta: Any) -> dict[str, torch.Tensor]:
    """Return RAdam's factor (0 while it does not adapt), and 1 while it does not, else 0."""
    longest = 2.0 / (1.0 - beta) - 1.0
    power = beta**steps
    length = longest - 2.0 * steps * power / (1.0 - power)
    rectified = (length - 4.0) * (length - 2.0) * longest
    rectified = rectified / ((longest - 4.0) * (longest - 2.0) * length)
    adapts = length > 5.0
    gain = torch.where(adapts, rectified * (1.0 - power), torch.zeros_like(length))
    return {"gain": gain.sqrt_(), "plain": (~adapts).double()}


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
