"""What was measured in one training step: numbers only, the same on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """The facts of one optimizer step, summed or averaged over all ranks.

    The two squared norms are those of one gradient seen at two batch sizes. With ``k`` small
    batches of ``b_i`` samples (one per rank, micro-batch, or half), ``B = sum(b_i)``, mean-loss
    gradients ``g_i`` and ``g = sum(b_i g_i) / B``:

    ``grad_sqnorm_small = sum(b_i |g_i|^2) / B`` and ``grad_sqnorm_big = |g|^2``.

    Attributes:
        step: Optimizer steps taken, this one included; the first step is 1.
        epoch: Epoch this step belongs to, from 0.
        samples: Samples shown since the start over all ranks, this step included.
        seconds: Wall-clock seconds of the step, mean over ranks; 0 or more.
        workers: World size, 1 or more.
        batch_size_global: Samples in this step over all ranks (an epoch may end on fewer).
        batch_size_target: The global batch size in force (what a full step draws).
        small_batches: ``k``, how many small batches were measured; 0 or 1 when none were.
        grad_sqnorm_small: See above; ``None`` when the step was not split.
        grad_sqnorm_big: See above; ``None`` when norms were not measured.
        loss: Mean loss over the global batch; ``None`` when the loop does not tell.
        learning_rate: Rate of the first parameter group as applied in this step.
        skipped: True when the optimizer did not step (a gradient scaler found an overflow).
        origin: Where the small batches came from: ``ranks``, ``micro-batches``,
            ``ranks+micro-batches``, ``split`` (two halves of one worker's batch) or ``none``.

    Example:
        >>> facts = StepFacts(step=1, epoch=0, samples=64, seconds=0.1, workers=2,
        ...                   batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                   grad_sqnorm_small=3.0, grad_sqnorm_big=2.0, loss=0.7,
        ...                   learning_rate=0.1, origin="ranks")
        >>> facts.splits
        True
    """

    step: int
    epoch: int
    samples: int
    seconds: float
    workers: int
    batch_size_global: int
    batch_size_target: int
    small_batches: int = 0
    grad_sqnorm_small: float | None = None
    grad_sqnorm_big: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    skipped: bool = False
    origin: str = "none"

    @property
    def splits(self) -> bool:
        """Whether both norms are there, finite, from at least two small batches."""
        small, big = self.grad_sqnorm_small, self.grad_sqnorm_big
        if small is None or big is None or self.small_batches < 2 or self.skipped:
            return False
        return isfinite(small) and isfinite(big)

    @property
    def finite(self) -> bool:
        """Whether neither the loss nor a measured norm is NaN or infinite."""
        seen = (self.loss, self.grad_sqnorm_small, self.grad_sqnorm_big)
        return all(isfinite(value) for value in seen if value is not None)
