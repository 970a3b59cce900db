"""Public fakes of the lifecycle's ports: a framework that really trains, in numpy, and a watcher."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.codec import to_json
from workbench.decision import Applied, Keep, SetBatchSize
from workbench.errors import Interrupted, NonFiniteError
from workbench.facts import StepFacts
from workbench.record import Record
from workbench.signal import Signals, exact

from .ports import ModelSource, StageResult, Trained, TrainOrder

if TYPE_CHECKING:
    import numpy as np


@dataclass
class FakeFramework:
    """Softmax regression by gradient descent in this process; no worker, no torch in training.

    It writes the records and checkpoints that a real framework writes, stops and resumes, and
    doubles the batch once when the order names a policy other than ``none``.

    Args:
        step_seconds: Rest in each step, to leave time for a test to interrupt.
        nan_at_step: Step whose loss becomes NaN; 0 for none.
        grow_at_step: Step after which the batch doubles.
        trained: Orders trained so far, in this process.
        resumed_at: Step at which each of them began.

    Example:
        >>> FakeFramework(nan_at_step=3).trained
        []
    """

    step_seconds: float = 0.0
    nan_at_step: int = 0
    grow_at_step: int = 5
    trained: list[TrainOrder] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)

    def train(
        self,
        order: TrainOrder,
        *,
        resume: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Trained:
        """Train; see :class:`workbench.lifecycle.ports.Framework`."""
        import numpy as np

        inputs, targets = _flat(np.load(order.inputs)), np.load(order.targets)
        folder = Path(order.folder)
        checkpoint = folder / "checkpoint" / "state.json"
        state = _start(inputs.shape[1], int(targets.max()) + 1, order.batch_size)
        if resume and checkpoint.exists():
            state = json.loads(checkpoint.read_text())
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        self.trained.append(order)
        self.resumed_at.append(state["step"])
        weights = np.array(state["weights"])
        grows = any(part.name != "none" for part in order.policies)
        with (folder / "records.jsonl").open("a") as spool:
            while state["samples"] < order.epochs * len(targets):
                if should_stop():
                    raise Interrupted(f"train: interrupted at step {state['step']}")
                weights, record = self._step(order, state, weights, inputs, targets, grows)
                print(to_json(record), file=spool, flush=True)
                if not record.facts.finite:
                    raise NonFiniteError(
                        f"the loss became NaN at step {state['step']}; the checkpoint of step "
                        f"{state['step'] - 1} is kept; lower the learning rate",
                        step=state["step"],
                    )
                state["weights"] = weights.tolist()
                partial = checkpoint.with_suffix(".partial")
                partial.write_text(json.dumps(state))
                partial.replace(checkpoint)
        _save(weights, folder / "weights.safetensors")
        return Trained(
            weights=folder / "weights.safetensors",
            records=folder / "records.jsonl",
            steps=state["step"],
            samples=state["samples"],
        )

    def predict(self, model: ModelSource, weights: Path, inputs: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """Return logits, shape ``(n, classes)``."""
        import numpy as np

        matrix = _load(weights)
        logits: np.ndarray = (_with_one(_flat(inputs)) @ matrix).astype(np.float32)
        return logits

    def build(self, model: ModelSource, weights: Path) -> Any:  # noqa: ARG002
        """Return the same model as a torch module."""
        import torch

        matrix = torch.from_numpy(_load(weights))
        linear = torch.nn.Linear(matrix.shape[0] - 1, matrix.shape[1])
        with torch.no_grad():
            linear.weight.copy_(matrix[:-1].T)
            linear.bias.copy_(matrix[-1])
        return torch.nn.Sequential(torch.nn.Flatten(), linear).eval()

    def _step(
        self,
        order: TrainOrder,
        state: dict[str, Any],
        weights: np.ndarray,
        inputs: np.ndarray,
        targets: np.ndarray,
        grows: bool,
    ) -> tuple[np.ndarray, Record]:
        import numpy as np

        began = time.perf_counter()
        time.sleep(self.step_seconds)
        rows = _batch(len(targets), state, order.seed)
        rate = float(order.optimizer.options.get("lr", 0.1))
        loss, gradient = _loss(weights, inputs[rows], targets[rows])
        state["step"] += 1
        state["samples"] += len(rows)
        if state["step"] == self.nan_at_step:
            loss = float("nan")
        facts = StepFacts(
            step=state["step"],
            epoch=(state["samples"] - 1) // len(targets),
            samples=state["samples"],
            seconds=time.perf_counter() - began,
            workers=order.workers,
            batch_size_global=len(rows),
            batch_size_target=state["batch"],
            grad_sqnorm_big=float(np.sum(gradient**2)),
            loss=loss,
            learning_rate=rate,
        )
        signals = Signals.of([exact("loss", loss, step=state["step"])])
        decides = grows and state["step"] == self.grow_at_step
        record = Record(
            facts=facts,
            signals=signals,
            decision=SetBatchSize(2 * state["batch"], signals["loss"], "the fake doubles once")
            if decides
            else Keep(),
            outcome=Applied(step=state["step"], detail="batch size doubled") if decides else None,
            policy=order.policies[0].name if decides else "",
            unix_time=time.time(),
        )
        state["batch"] *= 2 if decides else 1
        return weights - rate * gradient, record


@dataclass
class MemoryWatcher:
    """A watcher that keeps what it hears.

    Example:
        >>> watcher = MemoryWatcher()
        >>> watcher.note("the server is down"); watcher.notes
        ['the server is down']
    """

    started: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    results: list[StageResult] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def pipeline_started(self, name: str, run_id: str, run_name: str) -> None:  # noqa: ARG002
        """Keep the run's name."""
        self.started.append(run_name)

    def stage_started(self, name: str) -> None:
        """Keep the stage's name."""
        self.stages.append(name)

    def stage_ended(self, result: StageResult) -> None:
        """Keep the result."""
        self.results.append(result)

    def training(self, record: Record, samples_total: int, epochs: int) -> None:  # noqa: ARG002
        """Keep the record."""
        self.records.append(record)

    def note(self, message: str) -> None:
        """Keep the line."""
        self.notes.append(message)


def _start(features: int, classes: int, batch_size: int) -> dict[str, Any]:
    weights = [[0.0] * classes for _ in range(features + 1)]
    return {"step": 0, "samples": 0, "batch": batch_size, "weights": weights}


def _batch(rows: int, state: dict[str, Any], seed: int) -> np.ndarray:
    import numpy as np

    epoch, at = divmod(state["samples"], rows)
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return order[at : at + state["batch"]]


def _loss(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    import numpy as np

    with_one = _with_one(x)
    logits = with_one @ weights
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = exponent / exponent.sum(axis=1, keepdims=True)
    loss = float(-np.log(probability[np.arange(len(y)), y] + 1e-12).mean())
    probability[np.arange(len(y)), y] -= 1.0
    return loss, with_one.T @ probability / len(y)


def _flat(inputs: np.ndarray) -> np.ndarray:
    return inputs.reshape(len(inputs), -1)


def _with_one(inputs: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)


def _save(weights: np.ndarray, path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"weights": np.ascontiguousarray(weights, dtype=np.float32)}, str(path))


def _load(path: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    weights: np.ndarray = load_file(str(path))["weights"]
    return weights
