"""Which steps are measured: as many as fit into a budget of time, which the job itself measures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, isfinite
from statistics import median

from workbench.errors import ConfigurationError
from workbench.facts import StepFacts

FIRST_EVERY = 4
"""Until the cost is known well, each so many-th step is measured."""

FIRST_MEASURED = 16
"""So many measured steps are on credit: for them the budget is :data:`CREDIT` times as large."""

CREDIT = 4
"""Without it a signal from rare, dear measurements would take most of a short run to appear."""

MOST_EVERY = 1024
"""However much a measured step costs, there is one in so many."""

REMEMBERED = 15
"""Medians are over so many steps of a kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingState:
    """What :class:`Sampling` remembers.

    Attributes:
        every: Each so many-th step after ``anchor`` is measured.
        anchor: A step that is, or would have been, measured.
        measured: Measured steps so far.
        plain_seconds: Seconds of the last steps, without what monitoring took of them.
        extra_seconds: What monitoring took of the last measured steps.
        always_seconds: What it took of the last steps that were not measured.
    """

    every: int = FIRST_EVERY
    anchor: int = 1
    measured: int = 0
    plain_seconds: tuple[float, ...] = ()
    extra_seconds: tuple[float, ...] = ()
    always_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Measure each ``K``-th step, with the smallest ``K`` that keeps the overhead within a budget.

    With ``t`` the time of a step without monitoring, ``c`` what a measured step costs on top and
    ``a`` what any other step costs, all medians of the job's own clock: measuring takes the share
    ``(c - a) / (K t)``, which is within ``overhead`` from ``K = (c - a) / (overhead t)`` on. ``a``, the
    microseconds in which monitors and policies are asked and the record is written, is there
    at every step and no ``K`` changes it. The first :data:`FIRST_MEASURED` measured steps are on
    credit: four steps apart, or up to a quarter of ``K`` where that is more.

    The facts are the same on every rank, so all ranks measure the same steps. They do depend on a
    clock: where two runs must take the same decisions, give ``every``.

    Attributes:
        overhead: Largest share of a step's time, above 0 and at most 1.
        every: Measure each so many-th step, whatever it costs; 0: keep the budget.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> sampling = Sampling(overhead=0.01)
        >>> state = sampling.init()
        >>> for step in range(1, 200):
        ...     measured = sampling.due(state, step)
        ...     facts = StepFacts(step=step, epoch=0, samples=step, seconds=0.1, workers=1,
        ...                       batch_size_global=1, batch_size_target=1,
        ...                       grad_sqnorm_big=1.0 if measured else None,
        ...                       monitor_seconds=0.008 if measured else 0.0)
        ...     state = sampling.update(state, facts, measured=measured)
        >>> state.every
        8
    """

    overhead: float = 0.005
    every: int = 0

    def __post_init__(self) -> None:
        share = self.overhead
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share <= 1.0:
            raise ConfigurationError(
                f"overhead is {share!r}; allowed: a share of a step's time above 0 and at most 1, "
                "such as 0.01 or 1%; use overhead=0.01"
            )
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 0:
            raise ConfigurationError(
                f"measure_every is {self.every!r}; allowed: a whole number, 1 or more, or 0 to keep "
                "the budget; set measure_every=1 to measure every step"
            )

    def init(self) -> SamplingState:
        """Return the state before the first step."""
        return SamplingState(every=self.every or FIRST_EVERY)

    def due(self, state: SamplingState, step: int) -> bool:
        """Return whether ``step`` is to be measured."""
        return (step - state.anchor) % state.every == 0

    def update(self, state: SamplingState, facts: StepFacts, *, measured: bool) -> SamplingState:
        """Return the state after the facts of one step, which was ``measured`` or not."""
        if self.every or not (isfinite(facts.seconds) and isfinite(facts.monitor_seconds)):
            return state
        plain = _kept(state.plain_seconds, max(facts.seconds - facts.monitor_seconds, 0.0))
        if not measured:
            return SamplingState(  # at every step: four times as fast as dataclasses.replace
                every=state.every,
                anchor=state.anchor,
                measured=state.measured,
                plain_seconds=plain,
                extra_seconds=state.extra_seconds,
                always_seconds=_kept(state.always_seconds, facts.monitor_seconds),
            )
        extra = _kept(state.extra_seconds, facts.monitor_seconds)
        state = replace(
            state, plain_seconds=plain, extra_seconds=extra, measured=state.measured + 1
        )
        wanted = self._interval(state)
        if state.every - max(state.every // 5, 1) < wanted < state.every + max(state.every // 5, 1):
            return state  # a little off: not worth another rhythm
        return replace(state, every=wanted, anchor=facts.step)

    def _interval(self, state: SamplingState) -> int:
        seconds, extra = median(state.plain_seconds), median(state.extra_seconds)
        always = median(state.always_seconds) if state.always_seconds else 0.0
        allowed = self.overhead * seconds
        wanted = ceil((extra - always) / allowed) if allowed > 0.0 else MOST_EVERY
        wanted = min(max(wanted, 1), MOST_EVERY)
        if state.measured >= FIRST_MEASURED:
            return wanted
        return min(wanted, max(FIRST_EVERY, ceil(wanted / CREDIT)))


def parse_share(given: float | str) -> float:
    """Return a share of time given as a number or as text, such as ``1%``.

    Raises:
        ConfigurationError: It is neither.

    Example:
        >>> parse_share("1%"), parse_share(0.02)
        (0.01, 0.02)
    """
    if not isinstance(given, str):
        return given
    text = given.strip()
    try:
        return float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
    except ValueError as error:
        raise ConfigurationError(
            f"overhead is {given!r}; allowed: a share of a step's time such as 0.01 or 1%; "
            "use overhead=1%"
        ) from error


def _kept(values: tuple[float, ...], value: float) -> tuple[float, ...]:
    return (*values, value)[-REMEMBERED:]
