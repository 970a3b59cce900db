"""PyTorch as the lifecycle sees it: train in processes, predict, build."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench.codec import to_plain
from workbench.errors import NonFiniteError, StageError
from workbench.lifecycle.ports import SPOOL, ModelSource, Trained, TrainOrder
from workbench.parts import search_path

from .checkpoint import newest_step
from .launch import launch
from .training import CHECKPOINTS, RESULT, WEIGHTS, build_model

if TYPE_CHECKING:
    import numpy as np

ORDER, ROWS_AT_ONCE = "order.json", 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFramework:
    """The torch side of :class:`workbench.lifecycle.ports.Framework`.

    Args:
        policy_path: Turns a policy's name into ``module:Class`` for the workers; by default names
            are taken as they are.
        on_line: Hears what rank 0 prints.
    """

    policy_path: Callable[[str], str] = str
    on_line: Callable[[str], None] | None = None

    def train(
        self,
        order: TrainOrder,
        *,
        resume: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Trained:
        """Train in ``order.workers`` processes; see :class:`workbench.lifecycle.ports.Framework`."""
        folder = Path(order.folder)
        folder.mkdir(parents=True, exist_ok=True)
        named = tuple(replace(p, name=self.policy_path(p.name)) for p in order.policies)
        plain = to_plain(replace(order, policies=named, folder=str(folder.absolute())))
        path = folder / ORDER
        path.write_text(json.dumps(plain, indent=2))
        (folder / RESULT).unlink(missing_ok=True)
        module = ["-m", "workbench.adaptors.torch.worker", "order", str(path)]
        try:
            launch(
                [*module, "--resume"] if resume else module,
                workers=order.workers,
                folder=folder,
                should_stop=should_stop,
                on_line=self.on_line,
            )
        except NonFiniteError as error:
            step = newest_step(folder / CHECKPOINTS)
            kept = (
                f"the checkpoint of step {step:,} is kept" if step else "no checkpoint was due yet"
            )
            raise NonFiniteError(f"{error}; {kept}", step=error.step) from error
        if not (folder / RESULT).exists():
            raise StageError(f"training ended without a result in {folder}", stage="train")
        result = json.loads((folder / RESULT).read_text())
        return Trained(weights=folder / WEIGHTS, records=folder / SPOOL, **result)

    def predict(self, model: ModelSource, weights: Path, inputs: np.ndarray) -> np.ndarray:
        """Return the raw outputs for ``inputs``, shape ``(n, ...)``, float32."""
        module = self.build(model, weights)
        rows = torch.from_numpy(inputs)
        with torch.inference_mode():
            outputs = [
                module(rows[at : at + ROWS_AT_ONCE]) for at in range(0, len(rows), ROWS_AT_ONCE)
            ]
        scores: np.ndarray = torch.cat(outputs).float().numpy()
        return scores

    def build(self, model: ModelSource, weights: Path) -> Any:
        """Return the trained module on the CPU, in evaluation mode."""
        from safetensors.torch import load_model

        with search_path(model.search_path):
            module = build_model(model.call, model.options)
        load_model(module, str(weights))
        return module.eval()
