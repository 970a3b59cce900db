"""A signal: one number computed from facts, with its interval, unit and step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isnan, nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A value with its interval at confidence ``level``.

    An *undetermined* signal has ``value``, ``low`` and ``high`` NaN, so that every comparison with
    it is false: a policy that compares acts only on what is known. ``reason`` says why.
    An exact quantity (throughput, loss) has ``low == value == high``. ``high`` may be infinite.

    Attributes:
        name: Such as ``noise_scale``.
        value: Point estimate, finite, or NaN when undetermined.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Confidence of the interval, between 0 and 1; 1 for an exact quantity.
        unit: Such as ``samples``; empty for a pure number.
        step: The step after which it was computed.
        reason: Why it is undetermined, or how it was obtained (``split``, ``ranks`` ...).

    Example:
        >>> noise = Signal(name="noise_scale", value=812.0, low=640.0, high=1010.0, unit="samples")
        >>> noise.low > 256, str(noise)
        (True, 'noise_scale 812 [640, 1010] samples')
        >>> unknown = undetermined("noise_scale", reason="too few steps")
        >>> unknown.low > 256, unknown.low <= 256, str(unknown)
        (False, False, 'noise_scale undetermined (too few steps)')
    """

    name: str
    value: float
    low: float
    high: float
    level: float = 0.95
    unit: str = ""
    step: int = 0
    reason: str = ""

    @property
    def determined(self) -> bool:
        """Whether there is a value."""
        return not isnan(self.value)

    def __str__(self) -> str:
        if not self.determined:
            return f"{self.name} undetermined" + (f" ({self.reason})" if self.reason else "")
        unit = f" {self.unit}" if self.unit else ""
        if self.low == self.value == self.high:
            return f"{self.name} {_digits(self.value)}{unit}"
        ends = f"[{_digits(self.low)}, {_digits(self.high)}]"
        return f"{self.name} {_digits(self.value)} {ends}{unit}"


def _digits(value: float) -> str:
    """Return four significant digits, large numbers written out: 84710, not 8.471e+04."""
    rounded = f"{value:.4g}"
    return f"{float(rounded):.0f}" if 1e4 <= abs(value) < 1e12 else rounded


def exact(name: str, value: float, *, unit: str = "", step: int = 0, reason: str = "") -> Signal:
    """Return a signal without uncertainty.

    Example:
        >>> str(exact("loss", 0.25))
        'loss 0.25'
    """
    return Signal(
        name=name,
        value=value,
        low=value,
        high=value,
        level=1.0,
        unit=unit,
        step=step,
        reason=reason,
    )


def undetermined(name: str, *, reason: str, unit: str = "", step: int = 0) -> Signal:
    """Return a signal that has no value, and say why.

    Example:
        >>> undetermined("noise_scale", reason="one small batch").determined
        False
    """
    return Signal(name=name, value=nan, low=nan, high=nan, unit=unit, step=step, reason=reason)


@dataclass(frozen=True, slots=True)
class Signals(Mapping[str, Signal]):
    """The signals of one step by name, in the order of their monitors.

    Example:
        >>> signals = Signals.of([exact("loss", 0.5), exact("throughput", 900.0)])
        >>> list(signals), signals["loss"].value
        (['loss', 'throughput'], 0.5)
    """

    items_: tuple[Signal, ...] = ()

    @classmethod
    def of(cls, signals: Iterable[Signal]) -> Signals:
        """Return the signals given."""
        return cls(tuple(signals))

    def __getitem__(self, name: str) -> Signal:
        for signal in self.items_:
            if signal.name == name:
                return signal
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (signal.name for signal in self.items_)

    def __len__(self) -> int:
        return len(self.items_)
