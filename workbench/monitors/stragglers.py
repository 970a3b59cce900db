"""Stragglers: how much longer the slowest rank takes than the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from statistics import median

from workbench.facts import RankFacts, StepFacts
from workbench.signal import Signal, exact, undetermined

from .options import check_count, check_positive
from .protocol import RANKS

_NAME = "stragglers"
_START = undetermined(_NAME, reason="no step told its ranks yet")

RankSeconds = tuple[tuple[float, float], ...]
"""``(busy, data)`` of each rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StragglersState:
    """What :class:`Stragglers` remembers.

    Attributes:
        signal: The last signal.
        steps: ``(busy, data)`` seconds of each rank in the last measured steps, oldest first.
        slow_rank: The rank that was above ``factor`` in the last measured step; -1 for none.
        slow_steps: In how many measured steps in a row.
    """

    signal: Signal = _START
    steps: tuple[RankSeconds, ...] = ()
    slow_rank: int = -1
    slow_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stragglers:
    """Report the slowest rank's seconds over the median of the other ranks': exact.

    In synchronous training each step waits for its slowest rank (Dean and Barroso 2013, "The Tail at
    Scale"; Chen et al. 2016, "Revisiting Distributed Synchronous SGD", section 2). The seconds are
    those that a rank was busy, its wait for other ranks left out; both are sums over the last
    ``window_steps`` measured steps, so that one slow step does not make a straggler. The median is
    of the other ranks, so that a slow one among few does not hide itself.

    When one and the same rank takes more than ``factor`` times the median in each of the last
    ``patience`` measured steps, ``reason`` names it and says whether it loses the time in waiting for
    its data or in computing. Another number of ranks starts the window anew. A step in which a rank
    tells a time that is negative, NaN or infinite is left out.

    The signal ``stragglers`` is a pure number of about 1 or more. With fewer than 2 ranks it is
    undetermined.

    Attributes:
        factor: From which ratio on a rank is slow, above 1 in practice.
        patience: In how many measured steps in a row, 1 or more.
        window_steps: Measured steps in the window, 1 or more.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> ranks = tuple(RankFacts(busy_seconds=busy, data_seconds=busy - 0.1)
        ...               for busy in (0.2, 0.21, 0.19, 0.42))
        >>> monitor = Stragglers()
        >>> state = monitor.init()
        >>> for step in (1, 2):
        ...     facts = StepFacts(step=step, epoch=0, samples=64, seconds=0.5, workers=4,
        ...                       batch_size_global=64, batch_size_target=64, ranks=ranks)
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal, "-", signal.reason)
        stragglers 2.1 - rank 3 takes 2.1x the median of the other 3, in data
    """

    factor: float = 1.5
    patience: int = 2
    window_steps: int = 20
    name = _NAME
    needs = (RANKS,)

    def __post_init__(self) -> None:
        check_positive(self.name, "factor", self.factor)
        check_count(self.name, "patience", self.patience, least=1)
        check_count(self.name, "window_steps", self.window_steps, least=1)

    def init(self) -> StragglersState:
        """Return the state before the first step."""
        return StragglersState()

    def update(self, state: StragglersState, facts: StepFacts) -> tuple[StragglersState, Signal]:
        """Return the next state and the signal after ``facts``."""
        seconds = _seconds(facts.ranks)
        if len(seconds) == 1 or facts.workers < 2:
            alone = undetermined(_NAME, reason="fewer than 2 ranks", step=facts.step)
            return StragglersState(signal=alone), alone
        if state.steps and len(state.steps[-1]) != (len(seconds) or facts.workers):
            state = StragglersState()
        if not seconds:
            return state, state.signal
        state = self._counted(state, seconds)
        done = replace(state, signal=self._signal(state, facts.step))
        return done, done.signal

    def _counted(self, state: StragglersState, seconds: RankSeconds) -> StragglersState:
        """Return the state with one more step, and for how long one rank has been slow."""
        rank, ratio = _slowest([busy for busy, _ in seconds])
        steps = (*state.steps, seconds)[-self.window_steps :]
        if not ratio > self.factor:
            return replace(state, steps=steps, slow_rank=-1, slow_steps=0)
        before = state.slow_steps if rank == state.slow_rank else 0
        return replace(state, steps=steps, slow_rank=rank, slow_steps=before + 1)

    def _signal(self, state: StragglersState, step: int) -> Signal:
        busy = [sum(times) for times in zip(*_column(state.steps, 0), strict=True)]
        rank, ratio = _slowest(busy)
        if not isfinite(ratio):
            return undetermined(_NAME, reason="the other ranks took no time", step=step)
        reason = ""
        if rank == state.slow_rank and state.slow_steps >= self.patience and ratio > self.factor:
            data = [sum(times) for times in zip(*_column(state.steps, 1), strict=True)]
            others = f"the median of the other {len(busy) - 1}" if len(busy) > 2 else "the other"
            where = _where(rank, busy, data)
            reason = f"rank {rank} takes {ratio:.1f}x {others}, in {where}"
        return exact(_NAME, ratio, step=step, reason=reason)


def _seconds(ranks: Sequence[RankFacts]) -> RankSeconds:
    """Return the ranks' seconds, or nothing when one of them cannot be."""
    seconds = tuple((rank.busy_seconds, rank.data_seconds) for rank in ranks)
    sound = all(isfinite(time) and time >= 0.0 for pair in seconds for time in pair)
    return seconds if sound else ()


def _column(steps: tuple[RankSeconds, ...], which: int) -> list[list[float]]:
    return [[rank[which] for rank in step] for step in steps]


def _slowest(busy: Sequence[float]) -> tuple[int, float]:
    """Return the slowest rank and its seconds over the median of the others'."""
    rank = max(range(len(busy)), key=busy.__getitem__)
    others = median([*busy[:rank], *busy[rank + 1 :]])
    return rank, busy[rank] / others if others > 0.0 else inf


def _where(rank: int, busy: Sequence[float], data: Sequence[float]) -> str:
    """Return ``data`` when waiting for data makes up half of what the rank takes longer."""
    longer = busy[rank] - median([*busy[:rank], *busy[rank + 1 :]])
    waited = data[rank] - median([*data[:rank], *data[rank + 1 :]])
    return "data" if waited >= 0.5 * longer else "compute"
