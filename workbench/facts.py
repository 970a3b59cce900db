"""What was measured in one training step: numbers only, the same on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoNorms:
    """One gradient seen at two batch sizes: ``k`` small batches and all of them together.

    Attributes:
        small: ``sum(b_i |g_i|^2) / B``.
        big: ``|g|^2`` of ``g = sum(b_i g_i) / B``.
        small_batches: ``k``, 2 or more.

    Example:
        >>> TwoNorms(small=3.0, big=2.0, small_batches=4).finite
        True
    """

    small: float
    big: float
    small_batches: int

    @property
    def finite(self) -> bool:
        """Whether both norms are finite."""
        return isfinite(self.small) and isfinite(self.big)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """One group of parameters (a layer, or a parameter group of the optimizer) in one step.

    Attributes:
        name: As asked for: a module's dotted name, ``optimizer.N``, or empty for the whole model.
        grad: Its gradient at two batch sizes; ``None`` when the step was not split.
        grad_sqnorm: ``|g|^2`` of its gradient over the global batch.
        weight_sqnorm: ``|w|^2`` before the optimizer's step.
        update_sqnorm: ``|w_after - w_before|^2``.

    Example:
        >>> GroupFacts(name="encoder", weight_sqnorm=4.0, update_sqnorm=0.01).update_sqnorm
        0.01
    """

    name: str
    grad: TwoNorms | None = None
    grad_sqnorm: float | None = None
    weight_sqnorm: float | None = None
    update_sqnorm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Successive:
    """The gradients of this step and of the one before it, on one and the same weights' sample.

    Taken on a fixed sample of coordinates per parameter, scaled to all of them: unbiased over the
    choice of the sample, which is the same in both steps.

    Attributes:
        dot: ``g_t . g_(t-1)``.
        sqnorm: ``|g_t|^2``.
        sqnorm_before: ``|g_(t-1)|^2``.
        batch_size_before: Global batch size of the step before.

    Example:
        >>> Successive(dot=1.0, sqnorm=4.0, sqnorm_before=1.0, batch_size_before=64).dot
        1.0
    """

    dot: float
    sqnorm: float
    sqnorm_before: float
    batch_size_before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSeconds:
    """Where the seconds of a step went, mean over ranks; what is left over belongs to none.

    Attributes:
        data: Waiting for the batch.
        forward: From the batch to the end of the model's forward pass.
        backward: From there to the last gradient, less ``communication``.
        communication: Waiting for gradients of other ranks.
        optimizer: In ``optimizer.step()``.

    Example:
        >>> PhaseSeconds(data=0.1, forward=0.2, backward=0.4).total
        0.7
    """

    data: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    communication: float = 0.0
    optimizer: float = 0.0

    @property
    def total(self) -> float:
        """The sum of all phases."""
        both = self.data + self.forward + self.backward
        return round(both + self.communication + self.optimizer, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFacts:
    """What one rank did and held in one step; its number is its place in ``StepFacts.ranks``.

    Attributes:
        busy_seconds: Its step without waiting for other ranks.
        data_seconds: The part of it spent waiting for the batch.
        memory_bytes: Most memory held so far: of the accelerator if there is one, else of the process.

    Example:
        >>> RankFacts(busy_seconds=0.2, data_seconds=0.1, memory_bytes=1e9).busy_seconds
        0.2
    """

    busy_seconds: float
    data_seconds: float = 0.0
    memory_bytes: float = 0.0


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
            ``ranks+micro-batches``, ``split`` (two halves of one worker's batch), ``per-example``
            (each sample's own gradient) or ``none``.
        monitor_seconds: Time that measuring added to this step, mean over ranks.
        grad_dot_variance: ``sum(b_i (g_i . g - |g|^2)^2) / (k - 1)`` over the small batches:
            estimates the variance of one sample's ``g_i . g``; ``None`` when not measured.
        preconditioned: The norms of ``P g_i`` and ``P g`` with the optimizer's preconditioner of
            the step before; ``None`` when not measured.
        preconditioner: Which one, such as ``adam``; empty when there is none.
        covered: Per-example norms over those layers where they come nearly free (``k = B``), when
            these are not the whole model.
        successive: This step's gradient beside that of the step before.
        phases: Where the seconds went; ``None`` when not measured.
        ranks: One entry a rank; empty when not measured.
        groups: The groups of parameters that were asked for.

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
    monitor_seconds: float = 0.0
    grad_dot_variance: float | None = None
    preconditioned: TwoNorms | None = None
    preconditioner: str = ""
    covered: TwoNorms | None = None
    successive: Successive | None = None
    phases: PhaseSeconds | None = None
    ranks: tuple[RankFacts, ...] = ()
    groups: tuple[GroupFacts, ...] = ()

    @property
    def splits(self) -> bool:
        """Whether both norms are there, finite, from at least two small batches."""
        small, big = self.grad_sqnorm_small, self.grad_sqnorm_big
        if small is None or big is None or self.small_batches < 2 or self.skipped:
            return False
        return isfinite(small) and isfinite(big)

    @property
    def norms(self) -> TwoNorms | None:
        """The two norms as one value; ``None`` when the step was not split or is not finite."""
        small, big = self.grad_sqnorm_small, self.grad_sqnorm_big
        if small is None or big is None or not self.splits:
            return None
        return TwoNorms(small=small, big=big, small_batches=self.small_batches)

    def group(self, name: str) -> GroupFacts | None:
        """Return the facts of the group ``name``, or ``None`` when it was not measured."""
        return next((group for group in self.groups if group.name == name), None)

    @property
    def finite(self) -> bool:
        """Whether neither the loss nor a measured norm is NaN or infinite."""
        seen = (self.loss, self.grad_sqnorm_small, self.grad_sqnorm_big)
        return all(isfinite(value) for value in seen if value is not None)
