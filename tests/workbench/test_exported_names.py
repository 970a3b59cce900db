"""What can be imported is a promise: every public name is there, and no other."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

EXPORTED = {
    "workbench": """
        Applied Decision Deferred Keep Outcome Policy Record Refused Resize SetBatchSize
        SetLearningRate SetSync Signal Signals StatefulPolicy StepFacts Stop Tracker View
        __version__
    """,
    "workbench.monitors": """
        DEFAULT_MONITORS MONITORS PHASE_NAMES AdaScaleGain Average Cabs CabsState CosineStepsState
        GradientCosineSteps GradientCosineWorkers GradientNorm GradientNormState
        GradientSnr GradientVariance GradientVarianceState InnerProductTest
        InnerProductTestState Loss LossSmoothed LossSmoothedState LossState Memory
        MemoryState Monitor MonitorShare MonitorShareState NoiseScale NoiseScaleCalibrated
        NoiseScaleCalibratedState NoiseScaleState NoiseScaleSuccessive NoiseScaleSuccessiveState
        NormTest PhaseShare PhaseShareState SnrState StatisticalEfficiency Stragglers
        StragglersState Throughput ThroughputState UpdateRatio UpdateRatioState
        build_monitor
    """,
    "workbench.policies": """
        POLICIES GrowWithNoise Schedule WatchOnly build_policy policy_path
    """,
    "workbench.adaptors.torch": "Epoch Job TorchFramework Watch attach watch",
}


@pytest.mark.parametrize("module", EXPORTED)
def test_the_exported_names_are_these_and_all_are_there(module: str) -> None:
    found = importlib.import_module(module)
    assert sorted(found.__all__) == sorted(EXPORTED[module].split())
    missing = [name for name in found.__all__ if not hasattr(found, name)]
    assert missing == []


def test_the_names_of_the_documented_import_lines_are_there() -> None:
    lines = [
        "from workbench.adaptors.torch import attach",
        "from workbench.policies import GrowWithNoise",
        "from workbench.testing import FixedClock, MemoryTracker, ScriptedAdaptor",
        "from workbench.arbiter import Limits",
        "from workbench import *",
    ]
    done = subprocess.run(
        [sys.executable, "-I", "-c", "\n".join([*lines, "print(View.__name__, Keep().kind)"])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "View keep\n"), done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    import workbench

    assert tuple(map(int, workbench.__version__.split(".")[:2])) >= (0, 1)


def test_an_unknown_name_of_the_lazy_room_is_an_attribute_error() -> None:
    torch_room = importlib.import_module("workbench.adaptors.torch")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        torch_room.nothing  # noqa: B018
