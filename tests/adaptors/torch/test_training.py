"""The pipeline's loop in worker processes: train, resume, predict, and every way to refuse."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench.adaptors.torch.contract import Contract
from workbench.adaptors.torch.framework import TorchFramework
from workbench.adaptors.torch.recipes import (
    LOSSES,
    build_loss,
    build_optimizer,
    build_schedule,
)
from workbench.adaptors.torch.training import CHECKPOINTS, RESULT, WEIGHTS, train
from workbench.codec import from_json
from workbench.errors import ConfigurationError, Interrupted, NonFiniteError
from workbench.lifecycle.ports import ModelSource, Part, TrainOrder
from workbench.policies import policy_path
from workbench.record import Record

MODEL = """
import torch

def build(width=16, outputs=3, dropout=0.0):
    return torch.nn.Sequential(
        torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Dropout(dropout),
        torch.nn.Linear(width, outputs))

def nothing():
    return 3

class Breaking(torch.optim.SGD):
    def __init__(self, parameters, lr, at):
        super().__init__(parameters, lr=lr)
        self.at, self.done = at, 0

    def step(self, closure=None):
        super().step()
        self.done += 1
        if self.done == self.at:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.fill_(torch.inf)
"""


@pytest.fixture
def order(tmp_path: Path) -> TrainOrder:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 600)
    inputs = (rng.normal(size=(600, 8)) + targets[:, None]).astype(np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "targets.npy", targets)
    (tmp_path / "own_model.py").write_text(MODEL)
    return TrainOrder(
        model=ModelSource(call="own_model:build", search_path=(str(tmp_path),)),
        inputs=str(tmp_path / "inputs.npy"),
        targets=str(tmp_path / "targets.npy"),
        folder=str(tmp_path / "job"),
        optimizer=Part(name="adamw", options={"lr": 0.01}),
        batch_size=16,
        epochs=3,
        monitors=(Part(name="loss"), Part(name="noise_scale")),
    )


def here(order: TrainOrder, *, resume: bool = False) -> None:
    """Train in this process."""
    import sys

    sys.modules.pop("own_model", None)
    Path(order.folder).mkdir(exist_ok=True)
    from workbench.parts import search_path

    with search_path(order.model.search_path):
        train(order, Contract(), resume=resume)


def weights_of(order: TrainOrder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(Path(order.folder) / WEIGHTS))


def test_two_processes_train_a_model_that_predicts(order: TrainOrder) -> None:
    framework = TorchFramework(policy_path=policy_path)
    schedule = Part(name="schedule", options={"at": "20:32"})
    order = replace(order, workers=2, policies=(schedule,))
    trained = framework.train(order)
    inputs, targets = np.load(order.inputs), np.load(order.targets)
    outputs = framework.predict(order.model, trained.weights, inputs)
    assert outputs.shape == (600, 3)
    assert outputs.dtype == np.float32
    assert (outputs.argmax(1) == targets).mean() > 0.7
    records = [from_json(Record, line) for line in trained.records.read_text().splitlines()]
    assert [record.facts.step for record in records] == list(range(1, trained.steps + 1))
    assert trained.samples == 3 * 600 == records[-1].facts.samples
    (change,) = [record for record in records if record.outcome is not None]
    assert (change.facts.step, change.policy) == (20, "schedule")
    assert {record.facts.workers for record in records} == {2}
    module = framework.build(order.model, trained.weights)
    with torch.inference_mode():
        again = module(torch.from_numpy(inputs[:5])).numpy()
    np.testing.assert_allclose(again, outputs[:5], atol=1e-6)


def test_an_interrupted_job_goes_on_from_its_checkpoint_to_the_same_weights(
    order: TrainOrder,
) -> None:
    model = replace(order.model, options={"dropout": 0.2})
    whole = replace(order, model=model, folder=order.folder + "-whole")
    here(whole)
    framework = TorchFramework(policy_path=policy_path)
    part = replace(order, model=model, epochs=3, checkpoint_seconds=0.0)
    slow = replace(part, policies=())
    spool = Path(part.folder) / "records.jsonl"

    def should_stop() -> bool:
        return bool(list((Path(part.folder) / CHECKPOINTS).glob("*.pt")))

    with pytest.raises(Interrupted, match="--resume"):
        framework.train(slow, should_stop=should_stop)
    stopped_at = len(spool.read_text().splitlines())
    trained = framework.train(slow, resume=True)
    assert 0 < stopped_at < trained.steps
    assert trained.samples == 3 * 600
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(part)[name]), name


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(order: TrainOrder) -> None:
    here(replace(order, checkpoint_seconds=0.0))
    folder = Path(order.folder) / CHECKPOINTS
    newest, before = sorted(folder.glob("*.pt"), reverse=True)[:2]
    newest.write_bytes(newest.read_bytes()[:1000])
    first = weights_of(order)
    here(order, resume=True)
    assert json.loads((Path(order.folder) / RESULT).read_text())["samples"] == 1800
    assert all(torch.equal(first[name], tensor) for name, tensor in weights_of(order).items())
    assert before.exists() or newest.exists()


def test_only_the_last_two_checkpoints_are_kept(order: TrainOrder) -> None:
    here(replace(order, checkpoint_seconds=0.0))
    folder = Path(order.folder) / CHECKPOINTS
    assert len(list(folder.glob("*.pt"))) == 2
    assert not list(folder.glob("*.tmp"))


def test_nan_stops_training_and_keeps_the_last_good_checkpoint(order: TrainOrder) -> None:
    optimizer = Part(name="sgd", options={"lr": 1e30})
    broken = replace(order, optimizer=optimizer, checkpoint_seconds=0.0)
    with pytest.raises(NonFiniteError, match="NaN or infinite at step") as caught:
        TorchFramework().train(broken)
    assert caught.value.step >= 2
    kept = sorted((Path(order.folder) / CHECKPOINTS).glob("*.pt"))
    last = torch.load(kept[-1], weights_only=True)
    assert last["job"]["step"] < caught.value.step
    assert not (Path(order.folder) / WEIGHTS).exists()
    assert f"the checkpoint of step {last['job']['step']} is kept" in str(caught.value)


@pytest.mark.parametrize(("at", "told_at"), [(7, 8), (114, 114)])
def test_weights_that_a_step_breaks_are_never_a_checkpoint(
    order: TrainOrder, at: int, told_at: int
) -> None:
    optimizer = Part(name="own_model:Breaking", options={"lr": 0.1, "at": at})
    broken = replace(order, optimizer=optimizer, checkpoint_seconds=0.0)
    with pytest.raises(NonFiniteError, match="became NaN or infinite at step") as caught:
        here(broken)
    assert caught.value.step == told_at
    for path in (Path(order.folder) / CHECKPOINTS).glob("*.pt"):
        saved = torch.load(path, weights_only=True)
        assert saved["job"]["step"] < at
        assert all(value.isfinite().all() for value in saved["parts"]["model"].values())


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bfloat16"},
        {"precision": "float16", "max_batch_size_per_worker": 6, "clip_grad_norm": 1.0},
        {
            "scheduler": Part(name="cosine", options={"warm_up": 0.1}),
            "learning_rate_rule": "linear",
        },
        {"optimizer": Part(name="torch.optim:NAdam", options={"lr": 0.002})},
    ],
    ids=["bfloat16", "float16", "cosine", "own optimizer"],
)
def test_precisions_schedules_and_optimizers_learn(order: TrainOrder, settings: Any) -> None:
    order = replace(order, epochs=6, **settings)
    here(order)
    outputs = TorchFramework().predict(
        order.model, Path(order.folder) / WEIGHTS, np.load(order.inputs)
    )
    assert (outputs.argmax(1) == np.load(order.targets)).mean() > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda o: replace(o, model=replace(o.model, call="own_model:missing")),
            "has no 'missing'",
        ),
        (lambda o: replace(o, model=replace(o.model, call="nowhere:build")), "no module 'nowhere'"),
        (lambda o: replace(o, model=replace(o.model, call="own_model:nothing")), "returned int"),
        (lambda o: replace(o, model=replace(o.model, options={"depth": 2})), "model_options"),
        (
            lambda o: replace(o, model=replace(o.model, options={"outputs": 2})),
            r"shape \(16, 2\) for 16 rows and 3 classes",
        ),
        (lambda o: replace(o, loss="hinge"), "cross_entropy"),
        (lambda o: replace(o, loss="mse"), "mend its last layer"),
        (lambda o: replace(o, optimizer=Part(name="sgdd")), "adamw"),
        (lambda o: replace(o, optimizer=Part(name="sgd", options={"rate": 1})), "rate"),
        (lambda o: replace(o, precision="float8"), "float32, bfloat16, float16"),
        (lambda o: replace(o, scheduler=Part(name="cosinus")), "constant, cosine, linear"),
    ],
)
def test_an_impossible_order_gets_one_clear_line(
    order: TrainOrder, change: Callable[[TrainOrder], TrainOrder], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        here(change(order))
    assert "\n" not in str(caught.value)


def test_a_workers_configuration_error_reaches_the_caller_as_such(order: TrainOrder) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match="cross_entropy"):
        TorchFramework().train(replace(order, loss="hinge", workers=2))
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_the_mean_over_the_batch(name: str) -> None:
    classes = name == "cross_entropy"
    targets = torch.tensor([0, 1, 1, 0]) if classes else torch.tensor([0.0, 1.0, 1.0, 0.0])
    outputs = torch.randn(4, 2) if classes else torch.randn(4, 1)
    loss = build_loss(name, targets)
    single = [loss(outputs[at : at + 1], targets[at : at + 1]) for at in range(4)]
    torch.testing.assert_close(loss(outputs, targets), torch.stack(single).mean())


def test_only_trainable_parameters_are_optimized() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 1))
    optimizer = build_optimizer(Part(name="sgd", options={"lr": 0.1}), model)
    assert len(optimizer.param_groups[0]["params"]) == 2


@pytest.mark.parametrize("name", ["constant", "cosine", "linear"])
def test_schedules_start_and_end_where_they_say(name: str) -> None:
    rate = build_schedule(Part(name=name, options={"warm_up": 0.2, "final": 0.1}))
    assert rate(0.0) == 0.0
    assert rate(0.2) == pytest.approx(1.0)
    assert rate(1.0) == pytest.approx(0.1)
    assert all(0.0 <= rate(at / 50) <= 1.0 for at in range(51))
