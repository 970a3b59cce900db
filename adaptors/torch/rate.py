"""A factor on the learning rate that the user's scheduler never sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class ScaledRate:
    """Multiplies every group's rate just before the optimizer steps, and puts it back just after.

    So a scheduler, chained or closed-form, composes with the factor exactly. Both hooks are public.

    Args:
        optimizer: The user's optimizer.
        before_step: Called before each step.
        after_step: Called after each step.

    Attributes:
        factor: What every rate is multiplied with.
        steps: How often the optimizer has stepped.
        applied: The first group's rate in the last step; ``None`` before one, and for a rate that is
            a tensor on a GPU (it is not waited for).

    Example:
        >>> layer = torch.nn.Linear(1, 1)
        >>> rate = ScaledRate(torch.optim.SGD(layer.parameters(), lr=0.1), lambda: None)
        >>> rate.factor = 2.0
        >>> rate.learning_rate
        0.2
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        before_step: Callable[[], None],
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._optimizer = optimizer
        self._before_step, self._after_step = before_step, after_step
        self._held: list[Any] = []
        self.factor = 1.0
        self.steps = 0
        self.applied: float | None = None
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    @property
    def learning_rate(self) -> float:
        """The rate of the first group as the next step will apply it."""
        return float(self._optimizer.param_groups[0]["lr"]) * self.factor

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _before(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        self._before_step()
        rate = optimizer.param_groups[0]["lr"]
        on_device = isinstance(rate, torch.Tensor) and rate.device.type != "cpu"
        self.applied = None if on_device else float(rate) * self.factor
        if self.factor == 1.0:
            return
        self._held = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * self.factor

    def _after(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        self.steps += 1
        for group, rate in zip(optimizer.param_groups, self._held, strict=False):
            group["lr"] = rate
        self._held = []
        self._after_step()
