"""Where a job stands in its data: one global cursor over a seeded permutation, cut for workers.

Promise 1 of an elastic job: each epoch shows each sample exactly once, whatever the batch size and
the number of workers do. So position is *one* number for the whole job, a step takes the next
``batch_size`` places of the epoch's permutation, and only then are these shared among workers. The
global batches, and with them the losses, do not depend on the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The next place to draw from.

    Attributes:
        epoch: Epoch, from 0.
        offset: Places of this epoch's permutation already shown, below the data set's size.
        samples: Samples shown since the start of the job.

    Example:
        >>> Cursor().advanced(3, dataset_size=3)
        Cursor(epoch=1, offset=0, samples=3)
    """

    epoch: int = 0
    offset: int = 0
    samples: int = 0

    def advanced(self, shown: int, *, dataset_size: int) -> Cursor:
        """Return the cursor after ``shown`` more samples of this epoch."""
        offset = self.offset + shown
        if offset >= dataset_size:
            return Cursor(epoch=self.epoch + 1, offset=0, samples=self.samples + shown)
        return Cursor(epoch=self.epoch, offset=offset, samples=self.samples + shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What one worker draws in one step.

    Attributes:
        size: Samples of the step over all workers, 1 or more.
        parts: Half-open ranges of places in the permutation, one a micro-batch; never empty.
        idle: True when this worker has no sample of its own: its single part is a stand-in whose
            gradient counts with weight 0.
        small_batches: Micro-batches of all workers that hold at least one sample.

    Example:
        >>> plan_step(Cursor(), 64, dataset_size=1000, rank=1, workers=2).parts
        ((32, 64),)
    """

    size: int
    parts: tuple[tuple[int, int], ...]
    idle: bool
    small_batches: int

    def weight(self, part: tuple[int, int]) -> float:
        """Return the share of the global mean that this part's mean gradient carries."""
        return 0.0 if self.idle else (part[1] - part[0]) / self.size


def share(size: int, rank: int, workers: int) -> tuple[int, int]:
    """Return the half-open range of ``size`` places that belongs to ``rank``.

    Shares differ by one at most; the first ranks have the larger ones.

    Example:
        >>> [share(7, rank, 3) for rank in range(3)]
        [(0, 3), (3, 5), (5, 7)]
    """
    least, extra = divmod(size, workers)
    start = rank * least + min(rank, extra)
    return start, start + least + (rank < extra)


def plan_step(
    cursor: Cursor,
    batch_size: int,
    *,
    dataset_size: int,
    rank: int = 0,
    workers: int = 1,
    largest_part: int | None = None,
) -> StepPlan:
    """Return what ``rank`` draws in the next step.

    Args:
        cursor: Where the job stands, ``cursor.offset < dataset_size``.
        batch_size: Global batch size, 1 or more; the last step of an epoch may have fewer.
        dataset_size: Samples in an epoch, 1 or more.
        rank: This worker, from 0.
        workers: World size.
        largest_part: Samples that a worker can hold at once; ``None`` for no limit.

    Example:
        >>> plan = plan_step(Cursor(), 10, dataset_size=100, largest_part=4)
        >>> plan.parts, plan.small_batches
        (((0, 4), (4, 7), (7, 10)), 3)
    """
    size = min(batch_size, dataset_size - cursor.offset)
    pieces = _pieces(size, workers, largest_part)
    parts = _parts(size, rank, workers, pieces)
    small_batches = sum(len(_parts(size, each, workers, pieces)) for each in range(workers))
    moved = tuple((cursor.offset + start, cursor.offset + stop) for start, stop in parts)
    if not moved:
        stand_in = (cursor.offset, cursor.offset + 1)
        return StepPlan(size=size, parts=(stand_in,), idle=True, small_batches=small_batches)
    return StepPlan(size=size, parts=moved, idle=False, small_batches=small_batches)


def _pieces(size: int, workers: int, largest_part: int | None) -> int:
    largest_share = -(-size // workers)
    return 1 if largest_part is None else -(-largest_share // largest_part)


def _parts(size: int, rank: int, workers: int, pieces: int) -> tuple[tuple[int, int], ...]:
    start, stop = share(size, rank, workers)
    cuts = (share(stop - start, piece, pieces) for piece in range(pieces))
    return tuple((start + low, start + high) for low, high in cuts if high > low)
