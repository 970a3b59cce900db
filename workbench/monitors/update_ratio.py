"""The update-to-weight ratio: by what share of their length the weights moved in a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, sqrt

from workbench.facts import StepFacts
from workbench.signal import Signal, exact, undetermined

from .options import check_group
from .protocol import UPDATE

_NAME = "update_ratio"


def _start() -> Signal:
    return undetermined(_NAME, reason="no update was measured yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRatioState:
    """The signal of the last step whose update was measured."""

    signal: Signal = field(default_factory=_start)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRatio:
    """Report ``|w_after - w_before| / |w_before|``: exact, of one step.

    Everything that moves the weights is in it: the gradient, the preconditioner, momentum, clipping,
    weight decay and the learning rate. Layers whose ratios differ widely learn at different speeds;
    making the ratio alike in all layers is what layer-wise rates are for (You, Gitman and Ginsburg
    2017, "Large Batch Training of Convolutional Networks", section 4).

    With a ``group`` it speaks of that group's weights, and the signal is called ``update_ratio.`` and
    the group's name. On a step that was not measured the last value stands, with the step it belongs
    to. The signal is undetermined, and the state stays, on a skipped step, for weights that are all
    0 and for norms that are NaN, infinite or negative.

    Attributes:
        group: A module's dotted name or ``optimizer.N``; empty for the whole model.

    Raises:
        ConfigurationError: ``group`` is not text.

    Example:
        >>> from workbench.facts import GroupFacts
        >>> layer = GroupFacts(name="encoder", weight_sqnorm=4.0, update_sqnorm=0.0004)
        >>> facts = StepFacts(step=1, epoch=0, samples=8, seconds=0.1, workers=1,
        ...                   batch_size_global=8, batch_size_target=8, groups=(layer,))
        >>> monitor = UpdateRatio(group="encoder")
        >>> print(monitor.update(monitor.init(), facts)[1])
        update_ratio.encoder 0.01
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
        return (UPDATE + self.group,)

    def init(self) -> UpdateRatioState:
        """Return the state before the first step."""
        start = undetermined(self.name, reason="no update was measured yet")
        return UpdateRatioState(signal=start)

    def update(self, state: UpdateRatioState, facts: StepFacts) -> tuple[UpdateRatioState, Signal]:
        """Return the next state and the signal after ``facts``."""
        group = facts.group(self.group)
        if facts.skipped:
            reason = "the optimizer skipped this step"
            return state, undetermined(self.name, reason=reason, step=facts.step)
        if group is None or group.update_sqnorm is None or group.weight_sqnorm is None:
            return state, state.signal
        reason = _wrong(group.update_sqnorm, group.weight_sqnorm)
        if reason:
            return state, undetermined(self.name, reason=reason, step=facts.step)
        ratio = sqrt(group.update_sqnorm) / sqrt(group.weight_sqnorm)
        signal = exact(self.name, ratio, step=facts.step)
        return UpdateRatioState(signal=signal), signal


def _wrong(update: float, weight: float) -> str:
    """Return why two squared norms give no ratio; empty when they do."""
    for square, what in ((update, "update"), (weight, "weights")):
        if not (isfinite(square) and square >= 0.0):
            return f"the squared norm of the {what} is {square}"
    return "the weights are all 0" if weight == 0.0 else ""
