"""What a loop tells of its micro-batches: the loss and the size of each."""

from __future__ import annotations

import torch

from workbench.errors import ConfigurationError


class Told:
    """The micro-batches of one step, in order; nothing is copied to the host.

    Attributes:
        rows: Samples of each.
        losses: Loss, 0-d and double on its device, and samples of each whose loss was told.

    Example:
        >>> told = Told()
        >>> told.add(torch.tensor(0.5), 8)
        >>> told.add(None, 4)
        >>> told.rows, told.losses
        ([8, 4], [(tensor(0.5000, dtype=torch.float64), 8)])
    """

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.losses: list[tuple[torch.Tensor, int]] = []

    def add(self, loss: torch.Tensor | None, samples: int) -> None:
        """Hear of one more micro-batch.

        Args:
            loss: One number, the mean over the micro-batch.
            samples: Of this rank in it.

        Raises:
            ConfigurationError: ``loss`` is not one number, or ``samples`` not a whole one.
        """
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ConfigurationError(
                f"samples is {samples!r}; allowed: a whole number, 1 or more; give len(inputs)"
            )
        if loss is not None and (not isinstance(loss, torch.Tensor) or loss.numel() != 1):
            shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise ConfigurationError(
                f"loss is {shape}; allowed: a tensor with one number, the mean over the micro-batch; "
                "call watch.observe(loss=loss)"
            )
        self.rows.append(samples)
        if loss is not None:
            kept = loss.detach().to(torch.float64, copy=True)  # the loop may divide it in place
            self.losses.append((kept.reshape(()) if kept.dim() else kept, samples))
