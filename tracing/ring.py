"""The last spans of one rank, kept in memory at next to no cost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workbench.span import Span


class SpanRing:
    """A ring of spans: the newest ``capacity`` of them; adding one is one append to a deque.

    Args:
        capacity: Spans kept, 1 or more.
        rank: The rank that they belong to.
        clock: Monotonic seconds.

    Example:
        >>> ring = SpanRing(capacity=2)
        >>> for step in (1, 2, 3):
        ...     ring.add("data", float(step), step + 0.5, step)
        >>> [(span.step, span.seconds) for span in ring.spans()], ring.dropped
        ([(2, 0.5), (3, 0.5)], 1)
    """

    def __init__(
        self,
        *,
        capacity: int = 100_000,
        rank: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; allowed: 1 or more; use capacity=100_000")
        self._ring: deque[tuple[str, float, float, int]] = deque(maxlen=capacity)
        self._rank, self._clock = rank, clock
        self._added = 0

    @property
    def dropped(self) -> int:
        """Spans that newer ones have pushed out."""
        return self._added - len(self._ring)

    def add(self, name: str, start: float, stop: float, step: int) -> None:
        """Keep the span ``name`` of ``step``, from ``start`` to ``stop`` in the clock's seconds."""
        self._added += 1
        self._ring.append((name, start, stop, step))

    @contextmanager
    def span(self, name: str, *, step: int = 0) -> Iterator[None]:
        """Keep what happens inside the block as one span, also when it raises.

        Example:
            >>> ring = SpanRing()
            >>> with ring.span("evaluate", step=7):
            ...     pass
            >>> [span.name for span in ring.spans()]
            ['evaluate']
        """
        start = self._clock()
        try:
            yield
        finally:
            self.add(name, start, self._clock(), step)

    def spans(self) -> tuple[Span, ...]:
        """Return the spans that are there, oldest first."""
        return tuple(
            Span(name=name, start=start, seconds=stop - start, step=step, rank=self._rank)
            for name, start, stop, step in tuple(self._ring)
        )
