"""Monitors: pure estimators from the facts of a step to a signal with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from workbench.errors import ConfigurationError

from .adascale_gain import AdaScaleGain
from .average import Average
from .cabs import Cabs, CabsState
from .calibrated import NoiseScaleCalibrated, NoiseScaleCalibratedState
from .gradient_cosine import CosineStepsState, GradientCosineSteps, GradientCosineWorkers
from .gradient_norm import GradientNorm, GradientNormState
from .gradient_snr import GradientSnr
from .gradient_variance import GradientVariance, GradientVarianceState
from .inner_product_test import InnerProductTest, InnerProductTestState
from .loss import Loss, LossSmoothed, LossSmoothedState, LossState
from .memory import Memory, MemoryState
from .monitor_share import MonitorShare, MonitorShareState
from .noise_scale import NoiseScale, NoiseScaleState
from .norm_test import NormTest
from .phase_share import PHASE_NAMES, PhaseShare, PhaseShareState
from .protocol import Monitor
from .sample_snr import SnrState
from .statistical_efficiency import StatisticalEfficiency
from .stragglers import Stragglers, StragglersState
from .successive import NoiseScaleSuccessive, NoiseScaleSuccessiveState
from .throughput import Throughput, ThroughputState
from .update_ratio import UpdateRatio, UpdateRatioState

MONITORS: dict[str, Callable[..., Monitor]] = {
    "noise_scale": NoiseScale,
    "noise_scale_calibrated": NoiseScaleCalibrated,
    "noise_scale_successive": NoiseScaleSuccessive,
    "gradient_variance": GradientVariance,
    "gradient_norm": GradientNorm,
    "gradient_snr": GradientSnr,
    "gradient_cosine_workers": GradientCosineWorkers,
    "gradient_cosine_steps": GradientCosineSteps,
    "norm_test": NormTest,
    "inner_product_test": InnerProductTest,
    "cabs": Cabs,
    "adascale_gain": AdaScaleGain,
    "statistical_efficiency": StatisticalEfficiency,
    "update_ratio": UpdateRatio,
    "loss": Loss,
    "loss_smoothed": LossSmoothed,
    "throughput": Throughput,
    **{f"share_{phase}": partial(PhaseShare, phase=phase) for phase in PHASE_NAMES},
    "monitor_share": MonitorShare,
    "memory": Memory,
    "stragglers": Stragglers,
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
        NoiseScale(level=0.9, ...)
    """
    if name not in MONITORS:
        raise ConfigurationError(
            f"monitor {name!r} does not exist; allowed: {', '.join(MONITORS)}; choose one of these"
        )
    made = MONITORS[name]
    allowed = _options(made)
    given = dict(options or {})
    for option in given:
        if option not in allowed:
            raise ConfigurationError(
                f"monitor {name} has no option {option!r}; "
                f"allowed: {', '.join(allowed) or 'none'}; remove or rename it"
            )
    return made(**given)


def _options(made: Callable[..., Monitor]) -> list[str]:
    """Return the names of the options, less those that the name in ``MONITORS`` has settled."""
    kind: Any = made.func if isinstance(made, partial) else made
    settled = made.keywords if isinstance(made, partial) else {}
    return [item.name for item in fields(kind) if item.name not in settled]


__all__ = [
    "DEFAULT_MONITORS",
    "MONITORS",
    "PHASE_NAMES",
    "AdaScaleGain",
    "Average",
    "Cabs",
    "CabsState",
    "CosineStepsState",
    "GradientCosineSteps",
    "GradientCosineWorkers",
    "GradientNorm",
    "GradientNormState",
    "GradientSnr",
    "GradientVariance",
    "GradientVarianceState",
    "InnerProductTest",
    "InnerProductTestState",
    "Loss",
    "LossSmoothed",
    "LossSmoothedState",
    "LossState",
    "Memory",
    "MemoryState",
    "Monitor",
    "MonitorShare",
    "MonitorShareState",
    "NoiseScale",
    "NoiseScaleCalibrated",
    "NoiseScaleCalibratedState",
    "NoiseScaleState",
    "NoiseScaleSuccessive",
    "NoiseScaleSuccessiveState",
    "NormTest",
    "PhaseShare",
    "PhaseShareState",
    "SnrState",
    "StatisticalEfficiency",
    "Stragglers",
    "StragglersState",
    "Throughput",
    "ThroughputState",
    "UpdateRatio",
    "UpdateRatioState",
    "build_monitor",
]
