"""The gradient noise scale: the batch size at which noise and signal in the gradient are equal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from workbench.errors import ConfigurationError
from workbench.facts import StepFacts, TwoNorms
from workbench.signal import Signal, undetermined

from .drift import FALSE_ALARM
from .estimate import due, estimate
from .options import check_estimate, check_group
from .parts import Parts, parts_of
from .protocol import GROUP, NORMS, PRECONDITIONED
from .window import Window, merge, push

_NAME, _UNIT = "noise_scale", "samples"
_START = undetermined(_NAME, reason="no step was split yet", unit=_UNIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScaleState:
    """What :class:`NoiseScale` remembers.

    Attributes:
        signal: The last signal; it stands until there is reason for a new one.
        window: Blocks of ``x = S_hat`` and ``y = |G|^2_hat``.
        first_batch: Global batch size of the first split step, whose weight is 1.
        first_small: Number of small batches of that step.
        weigh_at: The noise scale at which steps of other batch sizes are weighed.
        used_steps: Split steps that the signal rests on.
        step: The last split step.
        origin: Where its small batches came from.
    """

    signal: Signal = _START
    window: Window = field(default_factory=Window)
    first_batch: int = 0
    first_small: int = 0
    weigh_at: float = 0.0
    used_steps: int = 0
    step: int = 0
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScale:
    """Estimate ``B_simple = tr(Sigma) / |G|^2`` from gradients seen at two batch sizes.

    With ``k`` small batches in a global batch ``B`` (McCandlish et al. 2018, "An Empirical Model
    of Large-Batch Training", section 2 and appendix A.1), both unbiased:

    ``S_hat = B (small - big) / (k - 1)`` and ``|G|^2_hat = big - S_hat / B``.

    The two are averaged apart over steps and divided afterwards, because the ratio of one step is
    biased and its denominator may be negative. The interval is Fieller's, over a window that
    adapts to drift: see :mod:`.estimate`. A step's weight is its precision for the ratio:
    see :func:`step_weight`.

    The signal ``noise_scale`` is in samples, 0 or more. Its ``reason`` says where the small batches
    came from. ``high`` is infinite while ``|G|^2`` cannot be told from 0; ``low`` is then still
    sure. It is undetermined before ``min_steps`` split steps and while the mean ``|G|^2_hat`` is
    0 or less. Steps without both norms, skipped steps and steps with a NaN or infinite number
    change nothing.

    Adam and its kin follow the noise scale of the gradient that they multiply by a preconditioner
    ``P``: ``tr(P Sigma P) / |P G|^2`` (McCandlish et al. 2018, section 2.2, take the plain one and
    note the difference). ``preconditioned`` reads the norms of ``P g_i`` and ``P g``.

    Attributes:
        level: Confidence of the interval, above 0 and below 1.
        min_steps: Split steps before there is a value, 4 or more.
        false_alarm: Chance of one comparison to shorten the window for nothing.
        group: Of which group of parameters; empty for the whole model. The signal is then named
            ``noise_scale.GROUP``.
        preconditioned: Of the preconditioned gradient. The signal is then named
            ``noise_scale_preconditioned``, and its reason says by what.

    Raises:
        ConfigurationError: An option is out of its range.

    Example:
        >>> monitor = NoiseScale()
        >>> state = monitor.init()
        >>> for step in range(1, 41):
        ...     facts = StepFacts(step=step, epoch=0, samples=64 * step, seconds=0.1, workers=2,
        ...                       batch_size_global=64, batch_size_target=64, small_batches=2,
        ...                       grad_sqnorm_small=3.0 + 0.1 * (step % 3), grad_sqnorm_big=2.0,
        ...                       origin="ranks")
        ...     state, signal = monitor.update(state, facts)
        >>> print(signal)
        noise_scale 78.22 [67.58, 88.62] samples
    """

    level: float = 0.95
    min_steps: int = 8
    false_alarm: float = FALSE_ALARM
    group: str = ""
    preconditioned: bool = False

    def __post_init__(self) -> None:
        check_estimate(_NAME, self.level, self.false_alarm, self.min_steps)
        check_group(_NAME, self.group)
        if not isinstance(self.preconditioned, bool):
            raise ConfigurationError(
                f"monitor {_NAME}: preconditioned is {self.preconditioned!r}; "
                "allowed: true or false; for example preconditioned=true"
            )
        if self.group and self.preconditioned:
            raise ConfigurationError(
                f"monitor {_NAME}: group is {self.group!r} and preconditioned is true; "
                "allowed: one of the two; remove one of them"
            )

    @property
    def name(self) -> str:
        """The name of its signal."""
        if self.preconditioned:
            return f"{_NAME}_preconditioned"
        return f"{_NAME}.{self.group}" if self.group else _NAME

    @property
    def needs(self) -> tuple[str, ...]:
        """The facts it asks for."""
        if self.preconditioned:
            return (PRECONDITIONED,)
        return (GROUP + self.group,) if self.group else (NORMS,)

    def init(self) -> NoiseScaleState:
        """Return the state before the first step."""
        reason = "no step was split yet"
        if self.preconditioned:
            reason = "no preconditioned gradient was measured yet"
        elif self.group:
            reason = f"no gradient of the group {self.group!r} was split yet"
        return NoiseScaleState(signal=undetermined(self.name, reason=reason, unit=_UNIT))

    def update(self, state: NoiseScaleState, facts: StepFacts) -> tuple[NoiseScaleState, Signal]:
        """Return the next state and the signal after ``facts``."""
        norms = self._norms(facts)
        if norms is None or facts.skipped or not facts.finite:
            return state, state.signal
        parts = parts_of(norms, facts.batch_size_global)
        if parts is None:
            return state, state.signal
        grown = _grown(state, facts, norms.small_batches, parts, self._origin(facts))
        if not due(grown.window.steps, grown.used_steps):
            return grown, grown.signal
        done = self._estimated(grown)
        return done, done.signal

    def merge(self, older: NoiseScaleState, newer: NoiseScaleState) -> NoiseScaleState:
        """Return the state after the steps of ``older``, then those of ``newer``.

        The sums are those of one run through all steps (:func:`.window.merge` says what is not
        known); the signal is estimated anew. The state before any step changes nothing.

        Example:
            >>> monitor = NoiseScale()
            >>> monitor.merge(monitor.init(), monitor.init()) == monitor.init()
            True
        """
        if not older.window.steps or not newer.window.steps:
            return newer if newer.window.steps else older
        at = newer.weigh_at or older.weigh_at or float(older.first_batch)
        scale = _weight(older, newer.first_batch, newer.first_small, at)
        window = merge(older.window, newer.window, scale=scale)
        both = replace(
            newer,
            window=window,
            first_batch=older.first_batch,
            first_small=older.first_small,
            weigh_at=at,
        )
        return self._estimated(both)

    def _norms(self, facts: StepFacts) -> TwoNorms | None:
        if self.preconditioned:
            return facts.preconditioned
        if not self.group:
            return facts.norms
        group = facts.group(self.group)
        return None if group is None else group.grad

    def _origin(self, facts: StepFacts) -> str:
        if not self.preconditioned:
            return facts.origin
        return f"{facts.origin}, preconditioned by {facts.preconditioner or 'the optimizer'}"

    def _estimated(self, state: NoiseScaleState) -> NoiseScaleState:
        if state.window.steps < self.min_steps:
            reason = f"{state.window.steps} of {self.min_steps} split steps"
            return replace(state, signal=self._undetermined(reason, state.step))
        found = estimate(state.window, level=self.level, false_alarm=self.false_alarm)
        if not found.value >= 0.0:
            reason = f"the squared gradient is lost in its noise over {found.steps} split steps"
            signal = self._undetermined(reason, state.step)
            return replace(state, signal=signal, used_steps=found.steps)
        signal = Signal(
            name=self.name,
            value=found.value,
            low=max(found.low, 0.0),
            high=found.high,
            level=self.level,
            unit=_UNIT,
            step=state.step,
            reason=state.origin,
        )
        weigh_at = found.value or state.weigh_at
        return replace(state, signal=signal, used_steps=found.steps, weigh_at=weigh_at)

    def _undetermined(self, reason: str, step: int) -> Signal:
        return undetermined(self.name, reason=reason, unit=_UNIT, step=step)


def step_weight(batch: int, small_batches: int, noise_scale: float) -> float:
    """Return the precision of one step's ``S_hat - R |G|^2_hat``, in units that do not matter.

    For Gaussian noise, with ``q = 1 + R / B``: ``Var = 2 S^2 / d_eff (q^2 k / (k - 1) - 1)``,
    because ``S_hat`` and ``|g|^2`` are independent. Few samples or few small batches weigh less:
    ``k - 1`` when ``R << B``, ``B^2 (k - 1) / k`` when ``R >> B``.

    Example:
        >>> round(step_weight(512, 4, 1e6) / step_weight(64, 4, 1e6))
        64
        >>> round(step_weight(512, 4, 1e-6) / step_weight(64, 4, 1e-6))
        1
    """
    q = 1.0 + noise_scale / batch
    return 1.0 / (q * q * small_batches / (small_batches - 1.0) - 1.0)


def _weight(state: NoiseScaleState, batch: int, small: int, at: float) -> float:
    """Return the weight of a step in units of the first split step's of ``state``."""
    if (batch, small) == (state.first_batch, state.first_small):
        return 1.0
    return step_weight(batch, small, at) / step_weight(state.first_batch, state.first_small, at)


def _grown(
    state: NoiseScaleState, facts: StepFacts, small: int, parts: Parts, origin: str
) -> NoiseScaleState:
    batch, weight = facts.batch_size_global, 1.0
    if state.first_batch:
        weight = _weight(state, batch, small, state.weigh_at or float(state.first_batch))
    return NoiseScaleState(
        signal=state.signal,
        window=push(state.window, weight, parts.noise, parts.signal),
        first_batch=state.first_batch or batch,
        first_small=state.first_small or small,
        weigh_at=state.weigh_at,
        used_steps=state.used_steps,
        step=facts.step,
        origin=origin,
    )
