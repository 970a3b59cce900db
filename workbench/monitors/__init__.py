"""Monitors: pure estimators from the facts of a step to a signal with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from workbench.errors import ConfigurationError

from .gradient_norm import GradientNorm, GradientNormState
from .gradient_variance import GradientVariance, GradientVarianceState
from .loss import Loss, LossSmoothed, LossSmoothedState, LossState
from .noise_scale import NoiseScale, NoiseScaleState
from .protocol import Monitor
from .throughput import Throughput, ThroughputState

MONITORS: dict[str, Callable[..., Monitor]] = {
    "noise_scale": NoiseScale,
    "gradient_variance": GradientVariance,
    "gradient_norm": GradientNorm,
    "loss": Loss,
    "loss_smoothed": LossSmoothed,
    "throughput": Throughput,
}
"""Every monitor by the name of its signal."""

DEFAULT_MONITORS = ("noise_scale", "gradient_variance", "gradient_norm", "loss", "throughput")
"""The monitors of a job that names none."""


def build_monitor(name: str, options: Mapping[str, Any] | None = None) -> Monitor:
    """Return the monitor ``name`` with ``options``.

    Args:
        name: A key of ``MONITORS``.
        options: Its attributes by name; those left out keep their defaults.

    Raises:
        ConfigurationError: The name or an option is unknown, or a value is out of its range.

    Example:
        >>> build_monitor("noise_scale", {"level": 0.9})
        NoiseScale(level=0.9, min_steps=8, false_alarm=0.01)
    """
    if name not in MONITORS:
        raise ConfigurationError(
            f"monitor {name!r} does not exist; allowed: {', '.join(MONITORS)}; choose one of these"
        )
    made = MONITORS[name]
    allowed = [item.name for item in fields(made)]  # type: ignore[arg-type]
    given = dict(options or {})
    for option in given:
        if option not in allowed:
            raise ConfigurationError(
                f"monitor {name} has no option {option!r}; "
                f"allowed: {', '.join(allowed) or 'none'}; remove or rename it"
            )
    return made(**given)


__all__ = [
    "DEFAULT_MONITORS",
    "MONITORS",
    "GradientNorm",
    "GradientNormState",
    "GradientVariance",
    "GradientVarianceState",
    "Loss",
    "LossSmoothed",
    "LossSmoothedState",
    "LossState",
    "Monitor",
    "NoiseScale",
    "NoiseScaleState",
    "Throughput",
    "ThroughputState",
    "build_monitor",
]
