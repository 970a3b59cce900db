"""The factor that a gradient scaler puts on the loss, as a number on the device."""

from __future__ import annotations

import torch


class LossScale:
    """Tells the factor that the loss has in the backward pass under way.

    It is taken *during* the backward pass: before the first one the scaler has none yet, after the
    step ``update()`` may have changed it.

    Args:
        grad_scaler: The loop's scaler, or ``None``.
        device: Where gradients live.

    Example:
        >>> LossScale(None, torch.device("cpu")).factor() is None
        True
        >>> scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        >>> LossScale(scaler, torch.device("cpu")).factor()
        tensor(8.)
    """

    def __init__(self, grad_scaler: torch.amp.GradScaler | None, device: torch.device) -> None:
        scaling = grad_scaler is not None and grad_scaler.is_enabled()
        self._scaler = grad_scaler if scaling else None
        self._one = torch.ones((), device=device)

    def factor(self) -> torch.Tensor | None:
        """Return the factor, 0-d on the device, or ``None`` without a scaler."""
        if self._scaler is None:
            return None
        factor: torch.Tensor = self._scaler.scale(self._one)
        return factor
