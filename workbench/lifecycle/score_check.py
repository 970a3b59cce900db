"""Load a registered version in a fresh process, score rows, and compare with the trained outputs.

``python -m workbench.lifecycle.score_check MODEL_URI INPUTS.npy OUTPUTS.npy`` is that process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import StageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How the served outputs compare.

    Attributes:
        rows: Rows scored.
        largest_difference: Largest absolute difference of an output.
    """

    rows: int
    largest_difference: float


def check_version(
    *,
    tracking_uri: str,
    model_uri: str,
    folder: Path,
    inputs: Path,
    outputs: Path,
    rows: int,
    tolerance: float,
    timeout_seconds: float,
) -> Checked:
    """Return how a fresh process's outputs compare with those of training.

    An output passes when ``|served - trained| <= tolerance + tolerance * |trained|``.

    Args:
        tracking_uri: Where the registry is.
        model_uri: Such as ``models:/digits/3``.
        folder: For the files exchanged with the process.
        inputs: ``.npy`` of the rows.
        outputs: ``.npy`` of the outputs when trained, row by row.
        rows: Score at most so many.
        tolerance: Absolute and relative, 0 or more.
        timeout_seconds: How long the process may take.

    Raises:
        StageError: The process failed or took too long, or the outputs differ.
    """
    import numpy as np

    given, served = folder / "scored_inputs.npy", folder / "served_outputs.npy"
    np.save(given, np.load(inputs)[:rows])
    trained = np.load(outputs)[:rows]
    _score_in_fresh_process(tracking_uri, model_uri, given, served, timeout_seconds)
    return compare(np.load(served), trained, tolerance, model_uri)


def compare(served: Any, trained: Any, tolerance: float, model_uri: str) -> Checked:
    """Return the comparison of two arrays of outputs.

    Raises:
        StageError: They differ in shape or by more than ``tolerance``.

    Example:
        >>> import numpy as np
        >>> compare(np.array([1.0, 2.0]), np.array([1.0, 2.0]), 0.0, "models:/m/1")
        Checked(rows=2, largest_difference=0.0)
    """
    import numpy as np

    if served.size == trained.size and len(served) == len(trained):
        served = served.reshape(trained.shape)
    if served.shape != trained.shape:
        raise StageError(
            f"{model_uri} served outputs of shape {served.shape}, training gave {trained.shape}; "
            "the alias was not moved",
            stage="deploy",
        )
    difference = np.abs(served.astype(np.float64) - trained.astype(np.float64))
    within = difference <= tolerance + tolerance * np.abs(trained)
    if not within.all():  # a NaN is never within
        wrong = int((~within.reshape(len(within), -1)).any(axis=1).sum())
        raise StageError(
            f"{model_uri} served other outputs than training gave in {wrong:,} of {len(served):,} "
            f"rows (largest difference {float(np.max(difference)):.3g}, tolerance {tolerance:g}); "
            "the alias was not moved",
            stage="deploy",
        )
    return Checked(rows=len(served), largest_difference=float(difference.max(initial=0.0)))


def _score_in_fresh_process(
    tracking_uri: str, model_uri: str, inputs: Path, outputs: Path, timeout_seconds: float
) -> None:
    from workbench.records.mlflow_client import environment

    command = [sys.executable, "-m", __name__, model_uri, str(inputs), str(outputs)]
    # a process's environment is the only way to hand MLflow's loader the registry's address
    variables = {**os.environ, **environment(), "MLFLOW_TRACKING_URI": tracking_uri}
    variables["MLFLOW_REGISTRY_URI"] = tracking_uri
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        raise StageError(
            f"{model_uri} was not loaded and scored within {timeout_seconds:g} s in a fresh "
            "process; raise deploy.timeout_seconds",
            stage="deploy",
        ) from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise StageError(
            f"{model_uri} cannot be loaded and scored in a fresh process: {lines[-1][:300]}",
            stage="deploy",
        )


def main(arguments: list[str]) -> None:
    """Score ``INPUTS`` with the model at ``MODEL_URI`` into ``OUTPUTS``."""
    import numpy as np

    from workbench.records.mlflow_client import mlflow_module

    model_uri, inputs, outputs = arguments
    mlflow_module()
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(model_uri)
    served = model.predict(np.load(inputs))
    np.save(outputs, np.asarray(served))


if __name__ == "__main__":
    main(sys.argv[1:])
