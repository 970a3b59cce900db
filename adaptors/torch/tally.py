"""The few numbers of a step: kept on the device, added over workers once, read some steps later."""

from __future__ import annotations

from dataclasses import replace

import torch

from workbench.cursor import StepPlan
from workbench.errors import ConfigurationError
from workbench.facts import StepFacts

from .gradients import Measured
from .group import Group

SMALL, BIG, LOSS, LOSS_WEIGHT, SECONDS, STOP, SEEN_SMALL, SEEN_BIG = range(8)


class Tally:
    """Collects a step's numbers into one vector of eight, summed over the workers.

    Args:
        device: Where gradients live, and so the vector.
        group: The workers.
    """

    def __init__(self, device: torch.device, group: Group) -> None:
        self._device, self._group = device, group
        self._weight = 1.0
        self._loss: torch.Tensor | None = None
        self._loss_weight = 0.0

    def expect(self, weight: float) -> None:
        """Hear the weight of the micro-batch that comes next."""
        self._weight = weight

    def observe(self, loss: torch.Tensor) -> None:
        """Take the mean loss of the current micro-batch."""
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise ConfigurationError(
                f"loss is {shape}; allowed: a tensor with one number, the mean over the batch; "
                "call job.observe(loss=loss)"
            )
        if self._weight > 0.0:
            weighted = loss.detach().reshape(()).double() * self._weight
            self._loss = weighted if self._loss is None else self._loss + weighted
            self._loss_weight += self._weight

    def collect(self, measured: Measured, seconds: float, *, stop: bool, size: int) -> torch.Tensor:
        """Return the step's vector, its sum over workers under way or done."""
        share = 1.0 / self._group.workers
        numbers = [0.0] * 8
        numbers[SECONDS], numbers[STOP] = seconds * share, float(stop)
        numbers[LOSS_WEIGHT] = self._loss_weight
        numbers[SEEN_SMALL] = share * (measured.small is not None)
        numbers[SEEN_BIG] = share * (measured.big is not None)
        vector = torch.tensor(numbers, dtype=torch.float64).to(self._device, non_blocking=True)
        if measured.small is not None:
            vector[SMALL] = measured.small * (1.0 if measured.split else 1.0 / size)
        if measured.big is not None:
            vector[BIG] = measured.big * share
        if self._loss is not None:
            vector[LOSS] = self._loss
        self._loss, self._loss_weight = None, 0.0
        work = self._group.sum(vector)
        if work is not None:
            work.wait()
        return vector

    def read(self, facts: StepFacts, vector: torch.Tensor) -> tuple[StepFacts, bool]:
        """Return the facts with the numbers filled in, and whether any worker wants to stop."""
        values = vector.tolist()
        facts = replace(
            facts,
            seconds=values[SECONDS],
            grad_sqnorm_small=values[SMALL] if values[SEEN_SMALL] > 0 else None,
            grad_sqnorm_big=values[BIG] if values[SEEN_BIG] > 0 else None,
            loss=values[LOSS] / values[LOSS_WEIGHT] if values[LOSS_WEIGHT] > 0 else None,
        )
        return facts, values[STOP] > 0


def origin_of(plan: StepPlan, workers: int, *, split: bool) -> str:
    """Return where the small batches of a step came from, as ``StepFacts.origin`` names it.

    Example:
        >>> origin_of(StepPlan(size=4, parts=((0, 2), (2, 4)), idle=False, small_batches=2), 1,
        ...           split=False)
        'micro-batches'
    """
    if split:
        return "split"
    if plan.small_batches < 2:
        return "none"
    if workers == 1:
        return "micro-batches"
    return "ranks" if plan.small_batches <= workers else "ranks+micro-batches"
