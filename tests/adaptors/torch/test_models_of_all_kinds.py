"""Unused parameters, changing graphs, compiled models, mixed precision, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from workbench.adaptors.torch import attach
from workbench.adaptors.torch.leaves import reached, tensors_in
from workbench.errors import NonFiniteError
from workbench.testing import MemoryTracker


class Branching(torch.nn.Module):
    """Uses one of two layers, by turns, and never a third."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.never = (torch.nn.Linear(8, 3) for _ in range(3))
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        branch: torch.Tensor = (self.left if self.calls % 3 else self.right)(inputs)
        return branch


def test_a_graph_that_changes_is_measured_and_clipped_like_a_plain_loop(
    loop: Callable[..., Any], make_rows: Callable[..., Any]
) -> None:
    ran = loop(model=Branching(), clip=0.1, measure_every=2, single_worker="split")
    plain = Branching()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05)
    dataset = make_rows(103)
    for batch in ran.batches:
        inputs, targets, _ = dataset[batch]
        F.cross_entropy(plain(inputs), targets).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
    assert all(map(torch.equal, ran.weights, list(plain.state_dict().values())))
    assert all(record.facts.grad_sqnorm_big for record in ran.tracker.records[::2])
    assert plain.never.weight.grad is None


def test_the_graph_tells_which_parameters_a_backward_pass_will_reach() -> None:
    model = Branching()
    places = {id(parameter): place for place, parameter in enumerate(model.parameters())}
    assert reached(model(torch.ones(1, 8)), places) == frozenset({0, 1})
    assert reached({"a": [model(torch.ones(1, 8))]}, places) == frozenset({0, 1})
    assert reached(torch.ones(1), places) is None
    assert len(list(tensors_in({"a": (torch.ones(1), [torch.ones(1)]), "b": 3}))) == 2


def test_a_model_that_returns_no_single_tensor_is_trained_and_told_about(
    make_mlp: Callable[..., Any], make_rows: Callable[..., Any]
) -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_mlp()

        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self.inner(inputs)
            return outputs, outputs * 2

    model, tracker = Two(), MemoryTracker()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(
        model,
        optimizer,
        make_rows(64),
        batch_size=16,
        measure_every=1,
        single_worker="split",
        trackers=[tracker],
    ) as job:
        for epoch in job.epochs(2):
            for inputs, targets, _ in epoch:
                one, two = model(inputs)
                (F.cross_entropy(one, targets) + F.cross_entropy(two, targets)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
    faults = [fault for record in tracker.records for fault in record.faults]
    assert len(faults) == 1
    assert "not one tensor with 16 rows" in faults[0].error
    assert not tracker.records[-1].signals["noise_scale"].determined
    assert tracker.records[-1].facts.grad_sqnorm_big


def test_a_compiled_model_is_trained_and_measured(
    loop: Callable[..., Any], make_mlp: Callable[..., Any]
) -> None:
    model = make_mlp()
    compiled = torch.compile(model, backend="aot_eager")
    options: dict[str, Any] = {"max_batch_size_per_worker": 8, "single_worker": "none", "epochs": 1}
    ran, eager = loop(model=model, forward=compiled, **options), loop(**options)
    assert ran.losses == pytest.approx(eager.losses, abs=1e-6)
    for one, other in zip(ran.tracker.records, eager.tracker.records, strict=True):
        assert one.facts.grad_sqnorm_big == pytest.approx(other.facts.grad_sqnorm_big, rel=1e-5)
        if one.facts.small_batches:  # not where the short last batch is one micro-batch
            assert one.facts.grad_sqnorm_small == pytest.approx(
                other.facts.grad_sqnorm_small, rel=1e-5
            )


def scaled_loop(
    dataset: Any, model: torch.nn.Module, *, overflow_at: int = -1, largest: int | None = None
) -> MemoryTracker:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    tracker = MemoryTracker()
    with attach(
        model,
        optimizer,
        dataset,
        batch_size=16,
        grad_scaler=scaler,
        measure_every=1,
        single_worker="split",
        trackers=[tracker],
        max_batch_size_per_worker=largest,
        steps_at_boundary=True,
    ) as job:
        for epoch in job.epochs(1):
            for inputs, targets, _ in epoch:
                loss = F.cross_entropy(model(inputs), targets)
                job.observe(loss=loss)
                factor = float("inf") if job.step == overflow_at else 1.0
                (scaler.scale(loss) * factor).backward()  # type: ignore[no-untyped-call]
                if not job.at_boundary:
                    continue
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    return tracker


@pytest.mark.parametrize("largest", [None, 4])
def test_a_gradient_scaler_does_not_change_the_norms(
    loop: Callable[..., Any],
    make_mlp: Callable[..., Any],
    make_rows: Callable[..., Any],
    largest: Any,
) -> None:
    scaled = scaled_loop(make_rows(64), make_mlp(), largest=largest).records
    plain = loop(
        count=64,
        epochs=1,
        measure_every=1,
        single_worker="split",
        max_batch_size_per_worker=largest,
    ).tracker.records
    for one, other in zip(scaled, plain, strict=True):
        assert one.facts.grad_sqnorm_big == pytest.approx(other.facts.grad_sqnorm_big, rel=1e-4)
        assert one.facts.grad_sqnorm_small == pytest.approx(other.facts.grad_sqnorm_small, rel=1e-3)


def test_a_skipped_step_is_told_and_poisons_nothing(
    make_mlp: Callable[..., Any], make_rows: Callable[..., Any]
) -> None:
    records = scaled_loop(make_rows(320), make_mlp(), overflow_at=3).records
    assert [record.facts.step for record in records if record.facts.skipped] == [4]
    assert all(record.facts.finite for record in records if not record.facts.skipped)
    assert records[-1].signals["gradient_norm"].determined


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_training_stops_at_the_step_where_a_number_became_nan(
    make_mlp: Callable[..., Any], make_rows: Callable[..., Any], where: str
) -> None:
    model, tracker = make_mlp(), MemoryTracker()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options: dict[str, Any] = {"batch_size": 16, "measure_every": 1, "trackers": [tracker]}
    job = attach(model, optimizer, make_rows(200), **options)
    with pytest.raises(
        NonFiniteError, match=f"the {where} became NaN or infinite at step 5"
    ) as caught:
        for epoch in job.epochs(1):
            for inputs, targets, _ in epoch:
                loss = F.cross_entropy(model(inputs), targets)
                if job.step == 4:
                    loss = loss * float("nan")
                if where == "loss" or job.step != 4:
                    job.observe(loss=loss)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
    assert caught.value.step == 5
    assert tracker.records[-1].facts.step == 5
    job.close()
