"""Memory: the most that any rank has held."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from workbench.facts import StepFacts
from workbench.signal import Signal, exact, undetermined

from .protocol import RANKS

_NAME, _UNIT = "memory", "bytes"
_START = undetermined(_NAME, reason="no rank told its memory yet", unit=_UNIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryState:
    """The signal of the last step that told the ranks' memory."""

    signal: Signal = _START


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Report the most bytes that a rank has held so far, of the rank that held most: exact.

    The fullest rank is the one that fails first, and names itself in ``reason``. On a rank with an
    accelerator it is the accelerator's memory held by tensors, else that of the process. On a step
    that did not tell it the last value stands, with its step. A rank that tells 0, NaN, an infinite
    or a negative number is left out.

    Example:
        >>> from workbench.facts import RankFacts
        >>> two = (RankFacts(busy_seconds=0.1, memory_bytes=1e9),
        ...        RankFacts(busy_seconds=0.1, memory_bytes=3e9))
        >>> facts = StepFacts(step=1, epoch=0, samples=64, seconds=0.1, workers=2,
        ...                   batch_size_global=64, batch_size_target=64, ranks=two)
        >>> signal = Memory().update(Memory().init(), facts)[1]
        >>> print(signal, signal.reason)
        memory 3000000000 bytes rank 1 of 2
    """

    name = _NAME
    needs = (RANKS,)

    def init(self) -> MemoryState:
        """Return the state before the first step."""
        return MemoryState()

    def update(self, state: MemoryState, facts: StepFacts) -> tuple[MemoryState, Signal]:
        """Return the next state and the signal after ``facts``."""
        held = [
            (rank.memory_bytes, -place)
            for place, rank in enumerate(facts.ranks)
            if isfinite(rank.memory_bytes) and rank.memory_bytes > 0.0
        ]
        if not held:
            return state, state.signal
        most, place = max(held)
        reason = f"rank {-place} of {len(facts.ranks)}"
        signal = exact(_NAME, most, unit=_UNIT, step=facts.step, reason=reason)
        return MemoryState(signal=signal), signal
