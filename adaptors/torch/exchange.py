"""The numbers of several steps, added over the ranks in one small all-reduce, now and then.

An exchange at each step would make ranks wait for each other where the loop does not. Here the
numbers of ``every`` steps travel together, while the next step is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from workbench.facts import StepFacts

from .reaction import Finished
from .reading import Reading
from .sources.seen import COUNT, Seen, fill, two_norms

LOSS, LOSS_ROWS, SECONDS, MONITOR, STOP = range(5)
HOST = 5
"""The first numbers of a step; those of :func:`.sources.seen.totals` follow."""


class Row(Reading):
    """One step's numbers in an exchange of several.

    Example:
        >>> Row(Reading(torch.tensor([1.0, 2.0, 3.0, 4.0])), 1, 2).values()
        [3.0, 4.0]
    """

    def __init__(self, exchange: Reading, at: int, length: int) -> None:
        self._exchange, self._at, self._length = exchange, at, length

    def values(self) -> list[float]:
        """Return the step's numbers."""
        return self._exchange.values()[self._at * self._length : (self._at + 1) * self._length]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNumbers:
    """One finished step on this rank; nothing of it has been read.

    Attributes:
        finished: The step.
        host: What the host knows, in the order of the sums.
        losses: Mean loss and samples of each micro-batch whose loss was told.
        seen: What was measured.
    """

    finished: Finished
    host: Sequence[float]
    losses: Sequence[tuple[torch.Tensor, int]] = ()
    seen: Seen = field(default_factory=Seen)


class Exchange:
    """Sends the numbers of finished steps and returns those that have arrived.

    Which steps travel together depends on their number alone, so all ranks agree.

    Args:
        group: The ranks.
        device: Where gradients live.
        every: Steps that travel together.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device, *, every: int) -> None:
        self._group, self._device, self._every = group, device, every
        self._lag = 2 if device.type == "cuda" else 1  # steps, so that nobody waits for the device
        self._kept: list[StepNumbers] = []
        self._sent: deque[tuple[int, list[Finished], torch.Tensor, Any]] = deque()

    def add(self, step: StepNumbers) -> None:
        """Keep a step's numbers of this rank; send them with others when it is time."""
        self._kept.append(step)
        if step.finished.step % self._every == 0:
            self.send()

    def send(self) -> None:
        """Send what was kept, without waiting for it."""
        if not self._kept:
            return
        steps, together = [kept.finished for kept in self._kept], self._together()
        self._kept = []
        work: Any = dist.all_reduce(together, group=self._group, async_op=True)
        if together.is_cuda:  # the stream waits, the host does not
            work.wait()
            work = Reading(together.reshape(-1))
        self._sent.append((steps[-1].step, steps, together, work))

    def _together(self) -> torch.Tensor:
        """Return one row for each step that was kept."""
        host = torch.tensor([kept.host for kept in self._kept], dtype=torch.float64)
        together = host.to(self._device, non_blocking=True)
        for row, kept in zip(together, self._kept, strict=True):
            fill(row[HOST:], kept.seen)
        told = [(at, *pair) for at, kept in enumerate(self._kept) for pair in kept.losses]
        if told:
            places, losses, rows = zip(*told, strict=True)
            sizes = torch.tensor(rows, dtype=torch.float64).to(self._device, non_blocking=True)
            at = torch.tensor(places).to(self._device, non_blocking=True)
            together[:, LOSS].index_add_(0, at, torch.stack(losses) * sizes)
        return together

    def arrived(self, step: int) -> list[tuple[Finished, Row]]:
        """Return the steps whose sums are to be read after ``step``, in order."""
        found: list[tuple[Finished, Row]] = []
        while self._sent and self._sent[0][0] + self._lag <= step:
            _, steps, together, work = self._sent.popleft()
            reading = work
            if not isinstance(work, Reading):
                work.wait()
                reading = Reading(together.reshape(-1))
            length = together.shape[1]
            found += [(one, Row(reading, at, length)) for at, one in enumerate(steps)]
        return found

    def rest(self) -> list[tuple[Finished, Row]]:
        """Send and return all that is left; every rank calls it."""
        self.send()
        return self.arrived(self._sent[-1][0] + self._lag) if self._sent else []


class StepSums:
    """Makes facts of a step's sums, in the order of steps.

    Attributes:
        samples: Shown since the start, over all ranks.
    """

    def __init__(self) -> None:
        self.samples = 0

    def read(self, known: Mapping[str, Any], values: Sequence[float]) -> tuple[StepFacts, bool]:
        """Return the facts and whether any rank wants to end.

        Args:
            known: The fields that the host knows.
            values: The step's numbers, summed over the ranks.

        Example:
            >>> known = {"step": 1, "epoch": 0, "workers": 2, "batch_size_target": 64}
            >>> sums = [32.0, 64.0, 0.2, 0.0, 0.0, 6.0, 2.0, 2.0, 64.0, 0.0625, 2.0, 2.0, 2.0]
            >>> facts, stop = StepSums().read(known, sums)
            >>> facts.loss, facts.grad_sqnorm_small, facts.origin, facts.samples
            (0.5, 3.0, 'ranks', 64)
        """
        step = two_norms(values[HOST:])
        self.samples += step.batch
        norms, workers = step.norms, known["workers"]
        return StepFacts(
            **known,
            samples=self.samples,
            batch_size_global=step.batch,
            seconds=values[SECONDS],
            monitor_seconds=values[MONITOR],
            loss=values[LOSS] / values[LOSS_ROWS] if values[LOSS_ROWS] > 0.0 else None,
            small_batches=norms.small_batches if norms else 0,
            grad_sqnorm_small=norms.small if norms else None,
            grad_sqnorm_big=norms.big if norms else step.big,
            origin=_origin(round(values[HOST + COUNT]), workers) if norms else "none",
        ), values[STOP] > 0.0


def _origin(small_batches: int, workers: int) -> str:
    if workers == 1:
        return "micro-batches"
    return "ranks" if small_batches <= workers else "ranks+micro-batches"
