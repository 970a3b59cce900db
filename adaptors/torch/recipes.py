"""Losses, optimizers and learning-rate schedules by name, or by ``module:name``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - the field's own abbreviation

from workbench.errors import ConfigurationError
from workbench.lifecycle.ports import Part
from workbench.parts import resolve

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

OPTIMIZERS: Mapping[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}
SCHEDULES = ("constant", "cosine", "linear")
LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "mae")


def build_loss(name: str, targets: torch.Tensor) -> Loss:
    """Return the mean loss of that name, which checks the outputs' shape at each call.

    Args:
        name: One of ``LOSSES``, or ``module:function`` of ``(outputs, targets)``.
        targets: All training targets, shape ``(n,)``.

    Raises:
        ConfigurationError: No such loss, or targets that it cannot take.

    Example:
        >>> loss = build_loss("mse", torch.zeros(4))
        >>> float(loss(torch.ones(4, 1), torch.zeros(4)))
        1.0
    """
    if ":" in name:
        loss: Loss = resolve(name, what="loss")
        return loss
    if name not in LOSSES:
        raise ConfigurationError(
            f"loss is {name!r}; allowed: {', '.join(LOSSES)}, or 'module:function' of your own"
        )
    if name == "cross_entropy":
        return _cross_entropy(int(targets.max()) + 1)
    function: Any = {
        "binary_cross_entropy": F.binary_cross_entropy_with_logits,
        "mse": F.mse_loss,
        "mae": F.l1_loss,
    }[name]
    return lambda outputs, given: function(_column(outputs, given, name), given.to(outputs.dtype))


def build_optimizer(part: Part, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer over the model's trainable parameters.

    Raises:
        ConfigurationError: No such optimizer, or it does not take these options.

    Example:
        >>> part = Part(name="sgd", options={"lr": 0.1})
        >>> type(build_optimizer(part, torch.nn.Linear(1, 1))).__name__
        'SGD'
    """
    if ":" not in part.name and part.name not in OPTIMIZERS:
        raise ConfigurationError(
            f"optimizer is {part.name!r}; allowed: {', '.join(OPTIMIZERS)}, or 'module:Class'"
        )
    for name, value in part.options.items():
        if isinstance(value, float) and not math.isfinite(value):  # torch's own checks let NaN pass
            raise ConfigurationError(
                f"optimizer {part.name}: {name} is {value}; allowed: a finite number; mend {name}"
            )
    kind: Any = OPTIMIZERS.get(part.name) or resolve(part.name, what="optimizer")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        optimizer: torch.optim.Optimizer = kind(trainable, **part.options)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"optimizer {part.name} with {dict(part.options)}: {error}; "
            "see the options of its torch.optim class"
        ) from error
    return optimizer


def build_schedule(part: Part | None) -> Callable[[float], float]:
    """Return the factor on the base rate as a function of progress, 0 to 1, counted in samples.

    Counted in samples, a schedule takes the same course whatever the batch size does. Options:
    ``warm_up`` (fraction of the job over which the rate rises linearly) and ``final`` (factor at
    the end).

    Raises:
        ConfigurationError: No such schedule or option.

    Example:
        >>> rate = build_schedule(Part(name="cosine", options={"warm_up": 0.1}))
        >>> rate(0.05), rate(0.1), round(rate(1.0), 6)
        (0.5, 1.0, 0.0)
    """
    part = part or Part(name="constant")
    unknown = set(part.options) - {"warm_up", "final"}
    if part.name not in SCHEDULES or unknown:
        given = ", ".join(sorted(unknown)) or part.name
        raise ConfigurationError(
            f"scheduler has {given!r}; allowed: {', '.join(SCHEDULES)} with warm_up and final"
        )
    warm_up = float(part.options.get("warm_up", 0.0))
    final = float(part.options.get("final", 1.0 if part.name == "constant" else 0.0))
    if not (0.0 <= warm_up < 1.0 and 0.0 <= final <= 1.0):
        raise ConfigurationError(
            f"scheduler has warm_up {warm_up} and final {final}; allowed: 0 <= warm_up < 1, "
            "0 <= final <= 1"
        )

    def factor(progress: float) -> float:
        if progress < warm_up:
            return progress / warm_up
        done = min(1.0, (progress - warm_up) / (1.0 - warm_up))
        left = (1.0 + math.cos(math.pi * done)) / 2 if part.name == "cosine" else 1.0 - done
        return final + (1.0 - final) * left

    return factor


def _cross_entropy(classes: int) -> Loss:
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        wrong = outputs.dim() < 2 or len(outputs) != len(targets) or outputs.shape[1] < classes
        if wrong:
            raise ConfigurationError(
                f"the model returned shape {tuple(outputs.shape)} for {len(targets)} rows and "
                f"{classes} classes; allowed: ({len(targets)}, {classes}) logits; mend its last layer"
            )
        return F.cross_entropy(outputs, targets)

    return loss


def _column(outputs: torch.Tensor, targets: torch.Tensor, name: str) -> torch.Tensor:
    column = outputs.squeeze(-1) if outputs.dim() == targets.dim() + 1 else outputs
    if column.shape != targets.shape:
        raise ConfigurationError(
            f"the model returned shape {tuple(outputs.shape)} for {len(targets)} rows with {name}; "
            f"allowed: ({len(targets)},) or ({len(targets)}, 1); mend its last layer"
        )
    return column
