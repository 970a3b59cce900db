"""Load a model from its recipe and its safetensors; MLflow calls this when it scores."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import StageError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

RECIPE_FILE = "recipe.json"
WEIGHTS_FILE = "model.safetensors"


class RebuiltModel:
    """A module that scores arrays.

    Args:
        model: In evaluation mode, on the CPU.

    Example:
        >>> import numpy, torch
        >>> RebuiltModel(torch.nn.Identity()).predict(numpy.ones((1, 2))).tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> npt.NDArray[Any]:
        """Return the model's scores, a row for each row.

        Args:
            rows: An array or a data frame.
            params: Not used; MLflow passes it.
        """
        import numpy as np
        import torch

        del params
        array = rows if isinstance(rows, np.ndarray) else rows.to_numpy(dtype=np.float32)
        with torch.no_grad():
            scores: npt.NDArray[Any] = self._model(torch.from_numpy(np.array(array))).numpy()
        return scores


def load_rebuilt(folder: str | Path) -> nn.Module:
    """Build the model by its recipe and read its weights.

    Args:
        folder: Holds ``recipe.json`` and ``model.safetensors``.

    Raises:
        StageError: The recipe's function does not exist, or builds something else.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import save_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(torch.nn.Linear(2, 1), f"{folder}/{WEIGHTS_FILE}")
        ...     recipe = {"call": "torch.nn:Linear",
        ...               "arguments": {"in_features": 2, "out_features": 1}}
        ...     _ = Path(folder, RECIPE_FILE).write_text(json.dumps(recipe))
        ...     load_rebuilt(folder)
        Linear(in_features=2, out_features=1, bias=True)
    """
    from safetensors.torch import load_model

    recipe = json.loads((Path(folder) / RECIPE_FILE).read_text())
    module_name, _, function_name = recipe["call"].partition(":")
    try:
        build = getattr(importlib.import_module(module_name), function_name)
        model: nn.Module = build(**recipe["arguments"])
        load_model(model, str(Path(folder) / WEIGHTS_FILE))
    except (ImportError, AttributeError, TypeError, RuntimeError) as error:
        raise StageError(
            f"{recipe['call']} does not build this model: {error}; give the function that built "
            "it, and its files as code_paths",
            stage="register",
        ) from error
    return model.eval()


def _load_pyfunc(path: str) -> RebuiltModel:
    return RebuiltModel(load_rebuilt(path))
