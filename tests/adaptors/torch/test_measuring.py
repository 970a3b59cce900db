"""What a job measures, on which steps, and that nothing waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from workbench import Signal, StepFacts
from workbench.adaptors.torch import attach
from workbench.codec import to_plain
from workbench.errors import ConfigurationError
from workbench.monitors import DEFAULT_MONITORS
from workbench.policies import Schedule
from workbench.signal import exact
from workbench.testing import MemoryTracker

EVERYTHING = (
    "norms",
    "inner_products",
    "preconditioned",
    "successive",
    "phases",
    "ranks",
    "group:0",
    "group:optimizer.0",
    "update:",
    "update:4",
)


@dataclass(frozen=True)
class Asks:
    """A monitor that needs what it is told to."""

    needs: tuple[str, ...]
    name: str = "asks"

    def init(self) -> None:
        return None

    def update(self, state: None, facts: StepFacts) -> tuple[None, Signal]:
        return state, exact(self.name, 0.0, step=facts.step)


def gradient(model: torch.nn.Module, dataset: Any, chosen: torch.Tensor) -> list[torch.Tensor]:
    inputs, targets, _ = dataset[chosen]
    loss = F.cross_entropy(model(inputs), targets)
    return list(torch.autograd.grad(loss, list(model.parameters())))


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).double()


def test_what_no_monitor_needs_is_not_measured(loop: Callable[..., Any]) -> None:
    facts = [r.facts for r in loop(monitors=("loss", "throughput"), epochs=1).tracker.records]
    assert all(fact.loss is not None for fact in facts)
    assert all(
        (fact.grad_sqnorm_big, fact.phases, fact.ranks) == (None, None, ()) for fact in facts
    )


def test_a_need_that_nobody_can_meet_is_refused_with_what_there_is(
    loop: Callable[..., Any],
) -> None:
    with pytest.raises(ConfigurationError, match=r"'magic'; allowed: norms, covered"):
        loop(monitors=(Asks(("magic",)),))
    with pytest.raises(ConfigurationError, match="layer9"):
        loop(monitors=(Asks(("group:layer9",)),))


def test_per_example_norms_are_used_after_one_step_that_checked_them(
    loop: Callable[..., Any], make_rows: Callable[..., Any], make_mlp: Callable[..., Any]
) -> None:
    ran = loop(lr=0.0, epochs=1)
    model, dataset, order = make_mlp(), make_rows(103), torch.cat(ran.batches)
    facts = [record.facts for record in ran.tracker.records]
    assert [fact.origin for fact in facts] == ["split"] + ["per-example"] * 6
    assert [fact.small_batches for fact in facts] == [2] + [16] * 5 + [7]
    for at, fact in enumerate(facts[1:], start=1):
        batch = order[16 * at : 16 * at + 16]
        each = [flat(gradient(model, dataset, row[None])).square().sum() for row in batch]
        assert fact.grad_sqnorm_small == pytest.approx(float(sum(each)) / len(batch), rel=1e-5)
        whole = flat(gradient(model, dataset, batch)).square().sum()
        assert fact.grad_sqnorm_big == pytest.approx(float(whole), rel=1e-5)


class Centred(torch.nn.Module):
    """Each row's output depends on all rows, by no module that is known to mix them."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self.inner[0](inputs)  # type: ignore[index]
        rest: torch.Tensor = self.inner[4](torch.relu(first - first.mean(0)))  # type: ignore[index]
        return rest


class TwiceUsed(torch.nn.Module):
    """A weight is used beside its module, too."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.inner(inputs)
        beside: torch.Tensor = self.inner[4].weight  # type: ignore[index]
        return outputs + 0.1 * beside[:, 0]


@pytest.mark.parametrize("kind", [Centred, TwiceUsed, "batch norm"])
def test_a_model_whose_samples_cannot_be_taken_apart_is_split_in_halves(
    loop: Callable[..., Any], make_mlp: Callable[..., Any], kind: Any
) -> None:
    model = make_mlp(normalise=True) if kind == "batch norm" else kind(make_mlp())
    records = loop(model=model, epochs=2).tracker.records
    assert {record.facts.origin for record in records} == {"split"}
    assert all(record.facts.small_batches == 2 for record in records)


def test_a_step_with_nan_leaves_the_way_of_measuring_and_later_numbers_alone() -> None:
    """The scaler finds the overflow, in the very step that checks and in a later one."""
    for overflow_at in (0, 3):
        records = _scaled(overflow_at)
        facts = [record.facts for record in records]
        assert [fact.skipped for fact in facts] == [at == overflow_at for at in range(len(facts))]
        assert facts[-1].origin == "per-example"
        assert records[-1].signals["gradient_norm"].determined
        assert records[-1].signals["noise_scale"].level == 0.95
        assert all(fact.finite for fact in facts if not fact.skipped)


def _scaled(overflow_at: int) -> list[Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    dataset = torch.utils.data.TensorDataset(torch.randn(320, 8), torch.randint(0, 3, (320,)))
    tracker = MemoryTracker()
    options: dict[str, Any] = {"batch_size": 16, "measure_every": 1, "trackers": [tracker]}
    with attach(model, optimizer, dataset, grad_scaler=scaler, **options) as job:
        for epoch in job.epochs(1):
            for inputs, targets in epoch:
                loss = F.cross_entropy(model(inputs), targets)
                if job.step == overflow_at:
                    loss = loss * float("inf")
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    return tracker.records


@contextmanager
def no_host_reads(monkeypatch: pytest.MonkeyPatch, seen: list[str]) -> Iterator[None]:
    class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default:
                seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with monkeypatch.context() as patch, Watching():  # type: ignore[no-untyped-call]
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
            patch.setattr(torch.Tensor, name, lambda *_, _name=name, **__: seen.append(_name))
        yield


@pytest.mark.parametrize("how", ["per-example", "split", "micro-batches"])
@pytest.mark.parametrize("needs", [DEFAULT_MONITORS, EVERYTHING])
def test_nothing_is_read_by_the_host_in_the_step(
    monkeypatch: pytest.MonkeyPatch,
    make_mlp: Callable[..., Any],
    make_rows: Callable[..., Any],
    how: str,
    needs: tuple[str, ...],
) -> None:
    seen: list[str] = []
    model, dataset = make_mlp(), make_rows(96)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    apart = {"single_worker": how} if how != "micro-batches" else {"max_batch_size_per_worker": 8}
    monitors: Any = (Asks(needs),) if needs is EVERYTHING else needs
    tracker = MemoryTracker()
    job = attach(
        model,
        optimizer,
        dataset,
        batch_size=16,
        measure_every=1,
        read_lag=1000,
        shuffle=False,
        monitors=monitors,
        trackers=[tracker],
        **apart,
    )
    for epoch in job.epochs(1):
        batches = iter(epoch)
        while True:
            with no_host_reads(monkeypatch, seen):
                try:
                    inputs, targets, _ = next(batches)
                except StopIteration:
                    break
                loss = F.cross_entropy(model(inputs), targets)
                job.observe(loss=loss)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
    assert seen == []
    job.close()
    assert len(tracker.records) == 6
    assert all(record.facts.grad_sqnorm_big for record in tracker.records)


def test_every_fact_that_is_asked_for_is_what_a_direct_computation_gives(
    loop: Callable[..., Any], make_rows: Callable[..., Any], make_mlp: Callable[..., Any]
) -> None:
    ran = loop(
        monitors=(Asks(EVERYTHING),), optimizer=torch.optim.RMSprop, lr=0.01, epochs=1, count=96
    )
    model, dataset, order = make_mlp(), make_rows(96), torch.cat(ran.batches)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    before: torch.Tensor | None = None
    for at, record in enumerate(ran.tracker.records):
        facts, batch = record.facts, order[16 * at : 16 * at + 16]
        halves = [flat(gradient(model, dataset, half)) for half in (batch[:8], batch[8:])]
        grads = gradient(model, dataset, batch)
        whole = flat(grads)
        assert facts.grad_sqnorm_big == pytest.approx(float(whole.square().sum()), rel=1e-5)
        small = sum(float(half.square().sum()) for half in halves) / 2
        assert facts.grad_sqnorm_small == pytest.approx(small, rel=1e-4)
        spread = sum(8 * float(half @ whole - whole.square().sum()) ** 2 for half in halves)
        assert facts.grad_dot_variance == pytest.approx(spread, rel=1e-2)
        _check_group(
            facts, gradient(model, dataset, batch[:8]), gradient(model, dataset, batch[8:])
        )
        _check_preconditioned(facts, optimizer, model, halves, at)
        if before is None:
            assert facts.successive is None
        else:
            assert facts.successive is not None
            assert facts.successive.dot == pytest.approx(float(whole @ before), rel=1e-3, abs=1e-6)
            assert facts.successive.batch_size_before == 16
        weights = [parameter.detach().clone() for parameter in model.parameters()]
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            parameter.grad = grad
        optimizer.step()
        moved = [p.detach() - w for p, w in zip(model.parameters(), weights, strict=True)]
        group = facts.group("")
        assert group is not None
        assert group.weight_sqnorm == pytest.approx(float(flat(weights).square().sum()), rel=1e-5)
        assert group.update_sqnorm == pytest.approx(float(flat(moved).square().sum()), rel=1e-3)
        assert facts.phases is not None
        assert 0.0 < facts.phases.total <= facts.seconds
        (rank,) = facts.ranks
        assert 0.0 < rank.busy_seconds <= facts.seconds
        assert rank.memory_bytes > 1e6
        before = whole


def _check_group(facts: StepFacts, first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    group = facts.group("0")
    assert group is not None
    assert group.grad is not None
    big = flat([(one + other) / 2 for one, other in zip(first[:2], second[:2], strict=True)])
    small = (flat(first[:2]).square().sum() + flat(second[:2]).square().sum()) / 2
    assert group.grad.big == pytest.approx(float(big.square().sum()), rel=1e-4)
    assert group.grad.small == pytest.approx(float(small), rel=1e-4)
    whole = facts.group("optimizer.0")
    assert whole is not None
    assert whole.grad_sqnorm == pytest.approx(facts.grad_sqnorm_big, rel=1e-6)


def _check_preconditioned(
    facts: StepFacts,
    optimizer: torch.optim.Optimizer,
    model: torch.nn.Module,
    halves: list[torch.Tensor],
    at: int,
) -> None:
    if at == 0:
        assert facts.preconditioned is None
        return
    state = [optimizer.state[parameter]["square_avg"] for parameter in model.parameters()]
    scale = 1.0 / (flat(state).sqrt() + 1e-8)
    small = sum(float((scale * half).square().sum()) for half in halves) / 2
    big = float((scale * (halves[0] + halves[1]) / 2).square().sum())
    assert facts.preconditioner == "rmsprop"
    assert facts.preconditioned is not None
    assert facts.preconditioned.small == pytest.approx(small, rel=1e-3)
    assert facts.preconditioned.big == pytest.approx(big, rel=1e-3)


def test_everything_measured_at_every_step_changes_no_weight(loop: Callable[..., Any]) -> None:
    for options in ({}, {"max_batch_size_per_worker": 5}, {"optimizer": torch.optim.AdamW}):
        plain = loop(monitors=(), clip=1.0, **options)
        watched = loop(monitors=(Asks(EVERYTHING), *DEFAULT_MONITORS), clip=1.0, **options)
        assert all(map(torch.equal, plain.weights, watched.weights))


def test_a_job_that_keeps_a_budget_measures_less_when_measuring_is_dear(
    loop: Callable[..., Any],
) -> None:
    """The clock moves on at each look: a step that is measured looks more often."""
    from workbench.testing import FixedClock

    ran = loop(measure_every=0, overhead="1%", count=1600, epochs=3, clock=FixedClock(tick=0.001))
    facts = [record.facts for record in ran.tracker.records]
    measured = [fact.step for fact in facts if fact.grad_sqnorm_big is not None]
    gaps = [later - earlier for earlier, later in pairwise(measured)]
    assert measured[0] == 1
    assert max(gaps) >= 3 * min(gaps)  # the first are on credit
    assert len(measured) < len(facts) / 5
    assert all(fact.monitor_seconds >= 0.0 for fact in facts)


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize("saved_at", [1, 4, 9])
def test_a_job_saved_and_loaded_goes_on_as_if_it_had_not_been(
    make_mlp: Callable[..., Any], make_rows: Callable[..., Any], lag: int, saved_at: int
) -> None:
    """Decisions under way when it was saved included; saving changes nothing of the run."""

    def run(save: bool) -> tuple[list[Any], list[torch.Tensor]]:
        tracker = MemoryTracker()
        model, optimizer, job = start(tracker)
        batches, saved = 0, None
        while True:
            for epoch in job.epochs(2):
                for inputs, targets, _ in epoch:
                    if save and batches == saved_at:
                        saved = (job.state_dict(), model.state_dict(), optimizer.state_dict())
                        break
                    batches += 1
                    loss = F.cross_entropy(model(inputs), targets)
                    job.observe(loss=loss)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    optimizer.zero_grad()
                if saved is not None:
                    break
            if saved is None:
                job.close()
                return tracker.records, list(model.state_dict().values())
            tracker.records = tracker.records[:]
            model, optimizer, job = start(tracker)
            job.load_state_dict(saved[0])
            model.load_state_dict(saved[1])
            optimizer.load_state_dict(saved[2])
            saved, batches = None, saved_at + 1

    def start(tracker: MemoryTracker) -> tuple[Any, Any, Any]:
        model = make_mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        job = attach(
            model,
            optimizer,
            make_rows(103),
            batch_size=8,
            policies=[Schedule(at={4: 16, 10: 32})],
            measure_every=2,
            single_worker="split",
            read_lag=lag,
            trackers=[tracker],
        )
        return model, optimizer, job

    plain, weights = run(save=False)
    resumed, resumed_weights = run(save=True)
    assert all(map(torch.equal, weights, resumed_weights))
    assert [_lasting(record) for record in resumed] == [_lasting(record) for record in plain]


def _lasting(record: Any) -> Any:
    """A record without what a clock told."""
    facts = {**to_plain(record.facts), "seconds": 0, "monitor_seconds": 0}
    return facts, to_plain(record.decision), to_plain(record.outcome), record.policy


class Residual(torch.nn.Module):
    """Normalisation layers between blocks, and a bare parameter that no layer owns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = torch.nn.Linear(8, 16), torch.nn.Linear(16, 16)
        self.norm, self.last = torch.nn.LayerNorm(16), torch.nn.Linear(16, 3)
        self.shift = torch.nn.Parameter(torch.zeros(16))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs) + self.shift
        outputs: torch.Tensor = self.last(hidden + torch.relu(self.middle(self.norm(hidden))))
        return outputs


def test_normalisation_layers_stand_for_the_model_between_exact_splits(
    loop: Callable[..., Any], make_rows: Callable[..., Any]
) -> None:
    ran = loop(model=Residual(), monitors=("noise_scale_calibrated",), lr=0.0, count=1600, epochs=2)
    facts = [record.facts for record in ran.tracker.records]
    assert all(fact.covered is not None for fact in facts)
    assert [fact.step for fact in facts if fact.splits] == list(range(1, 201, 8))
    model, dataset = Residual(), make_rows(1600)
    order = torch.cat(ran.batches)
    for at in (0, 1, 7, 8):
        batch, covered = order[16 * at : 16 * at + 16], facts[at].covered
        assert covered is not None
        each = [flat(_norm_gradient(model, dataset, row[None])).square().sum() for row in batch]
        assert covered.small == pytest.approx(float(sum(each)) / 16, rel=1e-4)
        whole = flat(_norm_gradient(model, dataset, batch)).square().sum()
        assert covered.big == pytest.approx(float(whole), rel=1e-4)
        assert covered.small_batches == 16
    calibrated = ran.job.signals["noise_scale_calibrated"]
    exact_run = loop(model=Residual(), monitors=("noise_scale",), lr=0.0, count=1600, epochs=2)
    truth = exact_run.job.signals["noise_scale"]
    assert calibrated.determined
    assert calibrated.low <= truth.high
    assert truth.low <= calibrated.high


def _norm_gradient(model: Residual, dataset: Any, chosen: torch.Tensor) -> list[torch.Tensor]:
    inputs, targets, _ = dataset[chosen]
    loss = F.cross_entropy(model(inputs), targets)
    return list(torch.autograd.grad(loss, list(model.norm.parameters())))


@pytest.mark.parametrize("single_worker", ["auto", "split"])
@pytest.mark.parametrize("penalty", [0.003, 0.3])
def test_a_penalty_on_the_weights_is_signal_and_no_noise(
    make_mlp: Callable[..., Any], make_rows: Callable[..., Any], single_worker: str, penalty: float
) -> None:
    def variance(factor: float) -> float:
        model, tracker = make_mlp(), MemoryTracker()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        options: dict[str, Any] = {"measure_every": 1, "single_worker": single_worker}
        job = attach(model, optimizer, make_rows(640), batch_size=16, trackers=[tracker], **options)
        for epoch in job.epochs(4):
            for inputs, targets, _ in epoch:
                squares = sum(weight.square().sum() for weight in model.parameters())
                loss = F.cross_entropy(model(inputs), targets) + factor * squares
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        job.close()
        parts = [
            fact.batch_size_global
            * (fact.grad_sqnorm_small - fact.grad_sqnorm_big)
            / (fact.small_batches - 1)
            for fact in (record.facts for record in tracker.records)
            if fact.grad_sqnorm_small is not None and fact.grad_sqnorm_big is not None
        ]
        return sum(parts) / len(parts)

    assert variance(penalty) == pytest.approx(variance(0.0), rel=0.1)


def test_a_penalty_that_appears_later_is_noticed(
    make_mlp: Callable[..., Any], make_rows: Callable[..., Any]
) -> None:
    model, tracker = make_mlp(), MemoryTracker()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    job = attach(
        model, optimizer, make_rows(640), batch_size=16, measure_every=1, trackers=[tracker]
    )
    for epoch in job.epochs(5):
        for inputs, targets, _ in epoch:
            squares = sum(weight.square().sum() for weight in model.parameters())
            loss = F.cross_entropy(model(inputs), targets)
            loss = loss + (0.3 * squares if job.step >= 40 else 0.0 * squares)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    job.close()
    origins = [record.facts.origin for record in tracker.records]
    assert origins[:40] == ["split"] * 2 + ["per-example"] * 38
    assert set(origins[70:]) == {"split"}
