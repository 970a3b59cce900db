"""The norm of the gradient as the optimizer saw it, of the whole model or of one group."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, sqrt

from workbench.facts import StepFacts
from workbench.signal import Signal, exact, undetermined

from .options import check_group
from .protocol import GROUP, NORMS

_NAME = "gradient_norm"


def _start() -> Signal:
    return undetermined(_NAME, reason="no step was measured yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNormState:
    """The signal of the last step that was measured."""

    signal: Signal = field(default_factory=_start)


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNorm:
    """Report ``|g|``, the square root of ``grad_sqnorm_big``: exact, of one step.

    Its square exceeds that of the true gradient by ``tr(Sigma) / B`` on average; the noise scale
    takes this off (McCandlish et al. 2018, appendix A.1), this monitor does not. On a step that was
    not measured the last value stands, with the step it belongs to. On a skipped step, or when the
    norm is NaN or infinite, the signal is undetermined and the state stays.

    With a ``group`` it is the norm over that group's weights, and the signal is called
    ``gradient_norm.`` and the group's name. The squares of groups that share no weight add up to
    that of all of them.

    Attributes:
        group: A module's dotted name or ``optimizer.N``; empty for the whole model.

    Raises:
        ConfigurationError: ``group`` is not text.

    Example:
        >>> facts = StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                   batch_size_global=8, batch_size_target=8, grad_sqnorm_big=4.0)
        >>> state, signal = GradientNorm().update(GradientNorm().init(), facts)
        >>> print(signal)
        gradient_norm 2
    """

    group: str = ""

    def __post_init__(self) -> None:
        check_group(_NAME, self.group)

    @property
    def name(self) -> str:
        """The name of its signal."""
        return f"{_NAME}.{self.group}" if self.group else _NAME

    @property
    def needs(self) -> tuple[str, ...]:
        """Which facts it asks for."""
        return (GROUP + self.group,) if self.group else (NORMS,)

    def init(self) -> GradientNormState:
        """Return the state before the first step."""
        start = undetermined(self.name, reason="no step was measured yet")
        return GradientNormState(signal=start)

    def update(
        self, state: GradientNormState, facts: StepFacts
    ) -> tuple[GradientNormState, Signal]:
        """Return the next state and the signal after ``facts``."""
        square = self._square(facts)
        if facts.skipped:
            reason = "the optimizer skipped this step"
            return state, undetermined(self.name, reason=reason, step=facts.step)
        if square is None:
            return state, state.signal
        if not (isfinite(square) and square >= 0.0):
            reason = f"the squared norm is {square}"
            return state, undetermined(self.name, reason=reason, step=facts.step)
        signal = exact(self.name, sqrt(square), step=facts.step)
        return GradientNormState(signal=signal), signal

    def _square(self, facts: StepFacts) -> float | None:
        if not self.group:
            return facts.grad_sqnorm_big
        group = facts.group(self.group)
        if group is None:
            return None
        if group.grad_sqnorm is None and group.grad is not None:
            return group.grad.big
        return group.grad_sqnorm
