"""The norm of the gradient as the optimizer saw it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

from workbench.facts import StepFacts
from workbench.signal import Signal, exact, undetermined

_NAME = "gradient_norm"
_START = undetermined(_NAME, reason="no step was measured yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNormState:
    """The signal of the last step that was measured."""

    signal: Signal = _START


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientNorm:
    """Report ``|g|``, the square root of ``grad_sqnorm_big``: exact, of one step.

    Its square exceeds that of the true gradient by ``tr(Sigma) / B`` on average; the noise scale
    takes this off (McCandlish et al. 2018, appendix A.1), this monitor does not. On a step that was
    not measured the last value stands, with the step it belongs to. On a skipped step, or when the
    norm is NaN or infinite, the signal is undetermined and the state stays.

    Example:
        >>> facts = StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                   batch_size_global=8, batch_size_target=8, grad_sqnorm_big=4.0)
        >>> state, signal = GradientNorm().update(GradientNorm().init(), facts)
        >>> print(signal)
        gradient_norm 2
    """

    name = _NAME

    def init(self) -> GradientNormState:
        """Return the state before the first step."""
        return GradientNormState()

    def update(
        self, state: GradientNormState, facts: StepFacts
    ) -> tuple[GradientNormState, Signal]:
        """Return the next state and the signal after ``facts``."""
        square = facts.grad_sqnorm_big
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
