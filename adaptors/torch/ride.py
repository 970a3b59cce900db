"""A step's numbers ride over the workers with the gradients of the step that follows."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .group import Group
from .reaction import Finished
from .reading import Reading


class Ride:
    """Brings each step's vector, added over the workers, to who reads it.

    Args:
        group: The workers.
        take: Hears of a finished step and the reading of its summed vector, in order of steps.
        waits: Whether several workers' numbers wait for the next step's gradients; without, they are
            exchanged at once.

    Example:
        >>> heard = []
        >>> ride = Ride(Group(), lambda finished, reading: heard.append(reading.values()), waits=True)
        >>> ride.send(Finished({"step": 1}, measured=False), torch.ones(2))
        >>> heard, ride.vector
        ([[1.0, 1.0]], None)
    """

    def __init__(
        self, group: Group, take: Callable[[Finished, Reading], None], *, waits: bool
    ) -> None:
        self._group, self._take = group, take
        self._waits = waits and group.workers > 1
        self._riding: tuple[Finished, torch.Tensor] | None = None

    @property
    def vector(self) -> torch.Tensor | None:
        """This worker's numbers that wait for a ride."""
        return None if self._riding is None else self._riding[1]

    def send(self, finished: Finished, vector: torch.Tensor) -> None:
        """Take this worker's vector of a finished step."""
        if self._waits:
            self._riding = (finished, vector)
            return
        work = self._group.sum(vector)
        if work is not None:
            work.wait()
        self._take(finished, Reading(vector))

    def arrived(self, sums: torch.Tensor | None) -> None:
        """Hear the sums of the numbers that rode with a step's gradients, if there were gradients."""
        if self._riding is None:
            return
        if sums is None:
            self.settle()
            return
        finished, _ = self._riding
        self._riding = None
        self._take(finished, Reading(sums))

    def settle(self) -> None:
        """Add what waits over the workers now; all of them call it."""
        if self._riding is None:
            return
        finished, vector = self._riding
        self._riding = None
        self._group.sum(vector).wait()
        self._take(finished, Reading(vector))

    def forget(self) -> None:
        """Drop what waits."""
        self._riding = None
