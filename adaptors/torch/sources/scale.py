"""The factor that a gradient scaler puts on the loss, as a number on the device."""

from __future__ import annotations

import torch


def loss_scale(
    grad_scaler: torch.amp.GradScaler | None, device: torch.device
) -> torch.Tensor | None:
    """Return the factor of the loss, 0-d on the device, or ``None`` without a scaler in use.

    To be asked *during* the backward pass: before the first one the scaler has none yet, after the
    step ``update()`` may have changed it.

    Example:
        >>> loss_scale(torch.amp.GradScaler("cpu", init_scale=8.0), torch.device("cpu"))
        tensor(8.)
    """
    if grad_scaler is None or not grad_scaler.is_enabled():
        return None
    factor: torch.Tensor = grad_scaler.scale(torch.ones((), device=device))
    return factor


def unscaled(squared: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
    """Return a squared norm as it is without the factor.

    Example:
        >>> unscaled(torch.tensor(64.0), torch.tensor(8.0))
        tensor(1., dtype=torch.float64)
    """
    return squared if factor is None else squared / factor.double().square()
