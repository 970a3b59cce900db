"""The critical batch by branches: known truth, and nothing of the training disturbed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import sqrt
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import TensorDataset

from workbench.adaptors.torch.probes import CriticalBatch, critical_batch
from workbench.adaptors.torch.probes.branches import _order
from workbench.errors import ConfigurationError


def classes(count: int = 512, *, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 8, generator=generator)
    noise = 0.5 * torch.randn(count, 3, generator=generator)
    return TensorDataset(inputs, (inputs[:, :3] + noise).argmax(1))


def network(seed: int = 0, *, dropout: float = 0.0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(8, 16),
        torch.nn.BatchNorm1d(16),
        torch.nn.ReLU(),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(16, 3),
    )


def trained(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int = 6) -> None:
    rows = classes(16 * steps, seed=5)
    for inputs, targets in zip(*(torch.split(t, 16) for t in rows.tensors), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def probe(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, **options: Any
) -> CriticalBatch:
    settings: dict[str, Any] = {
        "batch_size": 16,
        "held_out": classes(64, seed=9),
        "samples": 128,
        "repeats": 2,
        "multiples": (2, 4),
        **options,
    }
    return critical_batch(model, optimizer, classes(), F.cross_entropy, **settings)


# Truth ---------------------------------------------------------------------------------------------


class Means(torch.nn.Module):
    """A point ``w``; each sample pulls it towards its own ``c``."""

    def __init__(self, w: torch.Tensor) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(w.clone())

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        return self.w - c


WIDE, SPREAD, CURVATURE = 64, 1.0, 1.0


def centres(count: int = 4096) -> torch.Tensor:
    c = torch.randn(count, WIDE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return SPREAD * (c - c.mean(0)) / c.std(0, correction=0)


def half_squares(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    return 0.5 * CURVATURE * outputs.square().sum(1).mean()


def expected_excess(distance: float, *, batch: int, rate: float, samples: int) -> float:
    """Return ``E ½ a |w_T|²`` of stochastic gradient descent with batches drawn independently."""
    keep, steps = 1.0 - rate * CURVATURE, samples // batch
    square = distance**2
    for _ in range(steps):
        square = keep**2 * square + (rate * CURVATURE) ** 2 * WIDE * SPREAD**2 / batch
    return 0.5 * CURVATURE * square


CASES = {
    # distance |w|, rate, rule; the noise scale is 64 / |w|²
    "far away, root": (8.0, 0.1, "square_root", "worse"),
    "at the bottom, root": (0.0, 0.1, "square_root", "fine"),
    "far away, same rate": (8.0, 0.1, "none", "worse"),
    "at the bottom, same rate": (0.0, 0.1, "none", "fine"),
    "beyond stability, linear": (1.0, 1.6, "linear", "worse"),
    "slow, linear": (0.5, 0.01, "linear", "fine"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_and_the_difference_are_those_of_the_exact_dynamics(name: str) -> None:
    distance, rate, rule, verdict = CASES[name]
    w = torch.full((WIDE,), distance / sqrt(WIDE), dtype=torch.float64)
    model, rows = Means(w), TensorDataset(centres(), torch.zeros(4096))
    found = critical_batch(
        model,
        torch.optim.SGD(model.parameters(), lr=rate),
        rows,
        half_squares,
        batch_size=16,
        held_out=rows,
        multiples=[2],
        samples=512,
        repeats=12,
        tolerance=0.02,
        level=0.999,
        learning_rate_rule=rule,
        micro_batch_size=1024,
    )
    factor = {"square_root": sqrt(2.0), "linear": 2.0, "none": 1.0}[rule]
    after = [
        expected_excess(distance, batch=16, rate=rate, samples=512),
        expected_excess(distance, batch=32, rate=factor * rate, samples=512),
    ]
    truth = after[1] - after[0]
    compared = found.comparisons[0]
    assert compared.verdict == verdict
    assert compared.low <= truth <= compared.high
    assert (truth > 0.02) == (verdict == "worse")


def test_noise_in_the_gradient_raises_the_critical_batch() -> None:
    found = []
    for distance in (12.0, 0.2):  # noise scales of 0.4 and 1,600 samples
        w = torch.full((WIDE,), distance / sqrt(WIDE), dtype=torch.float64)
        model, rows = Means(w), TensorDataset(centres(), torch.zeros(4096))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        found.append(
            critical_batch(
                model,
                optimizer,
                rows,
                half_squares,
                batch_size=8,
                held_out=rows,
                repeats=4,
                micro_batch_size=1024,
            )
        )
    assert found[0].signal().high == 16
    assert found[1].signal().low == 32
    assert found[0].verdict == "below 16"
    assert found[1].verdict == "at least 32"


def test_close_calls_stay_undetermined() -> None:
    model, rows = (
        Means(torch.zeros(WIDE, dtype=torch.float64)),
        TensorDataset(centres(), torch.zeros(4096)),
    )
    found = critical_batch(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        rows,
        half_squares,
        batch_size=16,
        held_out=rows,
        multiples=[2],
        repeats=2,
        tolerance=0.0,
        learning_rate_rule="linear",
    )
    assert found.verdict == "undetermined"
    assert not found.signal().determined


# A branch is a plain training ----------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "AdamW, one by one": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=False),
    "Adam, rate as tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    "Rprop": lambda p: torch.optim.Rprop(p),
    "ASGD": lambda p: torch.optim.ASGD(p),
    "Adafactor": lambda p: torch.optim.Adafactor(p),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_control_is_the_training_gone_on_bit_for_bit(
    kept: Callable[..., Callable[[], bool]], name: str
) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](
        [{"params": model[0].parameters()}, {"params": list(model[1:].parameters()), "lr": 0.02}]  # type: ignore[index]
    )
    trained(model, optimizer)
    as_before = kept(model, optimizer)
    found = probe(model, optimizer, multiples=[2], seed=3)
    assert as_before()

    twin = copy.deepcopy(model)
    memo: dict[int, Any] = {
        id(p): q for p, q in zip(model.parameters(), twin.parameters(), strict=True)
    }
    follower = copy.deepcopy(optimizer, memo)
    inputs, targets = classes().tensors
    for chosen in torch.split(torch.tensor(_order(512, 128, seed=3, repeat=1)), 16):
        follower.zero_grad()
        F.cross_entropy(twin(inputs[chosen]), targets[chosen]).backward()  # type: ignore[no-untyped-call]
        follower.step()
    held, labels = classes(64, seed=9).tensors
    losses = [
        F.cross_entropy(twin.eval().requires_grad_(False)(held[i : i + 16]), labels[i : i + 16])
        for i in range(0, 64, 16)
    ]
    expected = sum(16 * float(loss) for loss in losses) / 64
    assert found.control_losses[1] == expected
    assert found.comparisons[0].losses[1] != expected


def test_branches_of_a_repeat_see_the_same_samples_and_repeats_see_others() -> None:
    seen: list[torch.Tensor] = []

    def step(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if model.training:
            seen.append(batch[2])
        return F.cross_entropy(model(batch[0]), batch[1])

    model, rows = network(dropout=0.2), classes(100)
    indexed = TensorDataset(*rows.tensors, torch.arange(100))
    critical_batch(
        model,
        torch.optim.SGD(model.parameters(), lr=0.01),
        indexed,
        step_function=step,
        batch_size=10,
        held_out=indexed,
        multiples=[2],
        samples=160,
        repeats=2,
        tolerance=1e9,
    )
    branches = torch.cat(seen).view(4, 160)
    assert torch.equal(branches[0], branches[2])
    assert torch.equal(branches[1], branches[3])
    assert not torch.equal(branches[0], branches[1])
    assert sorted(branches[0][:100].tolist()) == list(range(100))
    assert {len(rows) for rows in seen} == {10}, "larger batches come in passes of the same size"


def test_passes_of_another_size_give_the_same_gradient() -> None:
    model = torch.nn.Linear(8, 3).double()
    rows = TensorDataset(classes().tensors[0].double(), classes().tensors[1])
    found = [
        critical_batch(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            rows,
            F.cross_entropy,
            batch_size=16,
            held_out=rows,
            multiples=[2],
            repeats=2,
            max_grad_norm=0.1,
            micro_batch_size=size,
        )
        for size in (None, 5, 32)
    ]
    assert found[1].control_losses == pytest.approx(found[0].control_losses, rel=1e-12)
    assert found[2].comparisons[0].losses == pytest.approx(
        found[0].comparisons[0].losses, rel=1e-12
    )


def test_the_rate_follows_the_rule_and_may_be_that_of_a_job() -> None:
    model = network()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    double = torch.optim.SGD(model.parameters(), lr=0.2)
    assert probe(model, base, learning_rate=0.2) == probe(model, double)
    assert probe(model, base, multiples=[2], learning_rate_rule="linear").comparisons[0].losses == (
        probe(model, double, multiples=[2], learning_rate_rule="none").comparisons[0].losses
    )


def test_a_branch_that_diverges_ends_the_search_and_one_at_the_present_size_says_nothing() -> None:
    model = Means(torch.ones(WIDE))
    rows = TensorDataset(centres().float(), torch.zeros(4096))
    options: dict[str, Any] = {
        "batch_size": 8,
        "held_out": rows,
        "samples": 2048,
        "micro_batch_size": 1024,
        "repeats": 2,
        "multiples": (4, 8),
        "learning_rate_rule": "linear",
    }
    found = critical_batch(
        model, torch.optim.SGD(model.parameters(), lr=1.0), rows, half_squares, **options
    )
    assert [c.verdict for c in found.comparisons] == ["worse"]
    found = critical_batch(
        model, torch.optim.SGD(model.parameters(), lr=2.5), rows, half_squares, **options
    )
    assert found.comparisons == ()
    assert "not finite at the present batch size" in found.signal().reason


# Nothing is disturbed ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 12, 17, 40])
def test_an_interrupted_probe_leaves_everything_as_it_was(
    kept: Callable[..., Callable[[], bool]], error: BaseException, call: int
) -> None:
    model = network(dropout=0.3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trained(model, optimizer)
    as_before, calls = kept(model, optimizer), []

    def breaks(net: torch.nn.Module, batch: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == call:
            raise error
        return F.cross_entropy(net(batch[0]), batch[1])

    with pytest.raises(type(error)):
        critical_batch(
            model,
            optimizer,
            classes(),
            step_function=breaks,
            batch_size=16,
            held_out=classes(64),
            samples=128,
            repeats=2,
        )
    assert len(calls) == call
    assert as_before()


def test_a_scheduler_hooks_and_frozen_weights_stay_as_they_were(
    kept: Callable[..., Callable[[], bool]],
) -> None:
    model = network()
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    plan = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    called: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: called.append("step"))
    next(iter(model[1:].parameters())).register_hook(lambda _: called.append("gradient"))  # type: ignore[index]
    trained(model, optimizer, steps=2)
    plan.step()
    before, as_before = list(called), kept(model, optimizer)
    found = probe(model, optimizer)
    assert as_before()
    assert called == before
    assert len(set(found.control_losses)) == 2
    trained(model, optimizer, steps=1)
    assert len(called) == len(before) + 2


class OwnState(torch.optim.Optimizer):
    """Counts its steps in an attribute of its own, and slows down by it."""

    def __init__(self, parameters: Any, lr: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr})
        self.taken = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        self.taken += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data.sub_(parameter.grad, alpha=group["lr"] / self.taken)


def test_an_optimizer_of_ones_own_is_copied_with_its_attributes() -> None:
    model = network()
    optimizer = OwnState(model.parameters())
    early = probe(model, optimizer)
    optimizer.taken = 10**6
    late = probe(model, optimizer)
    assert optimizer.taken == 10**6
    assert early.control_losses[0] < early.start_loss
    # Only the statistics of batch normalisation move.
    assert abs(late.control_losses[0] - late.control_losses[1]) < 0.2
    assert late.control_losses != early.control_losses


class NoCopy(OwnState):
    """Holds a function that only the original has."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.rate: Callable[[], float] = lambda: 0.1

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        self.rate()


class Outside(torch.nn.Module):
    """Not the model of the optimizer."""


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "batch size": ({"batch_size": 0}, "batch_size is 0"),
    "multiples": ({"multiples": (4, 2)}, r"multiples is \[4, 2\]"),
    "no multiples": ({"multiples": ()}, r"multiples is \[\]"),
    "one repeat": ({"repeats": 1}, "repeats is 1"),
    "tolerance": ({"tolerance": -0.1}, "tolerance is -0.1"),
    "level": ({"level": 1.0}, "level is 1.0"),
    "rule": ({"learning_rate_rule": "cubic"}, "learning_rate_rule is 'cubic'"),
    "samples": ({"samples": 100}, "use samples=128"),
    "rate": ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    "passes": ({"micro_batch_size": 0}, "micro_batch_size is 0"),
    "held out": ({"held_out": []}, "dataset is empty"),
    "both": ({"step_function": lambda m, b: m(b)}, "both of loss_function"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_refused_in_one_line(name: str) -> None:
    options, said = WRONG[name]
    model = network()
    with pytest.raises(ConfigurationError, match=said):
        probe(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_an_optimizer_that_cannot_be_rebuilt_is_refused(
    kept: Callable[..., Callable[[], bool]],
) -> None:
    model = network()
    as_before = kept(model)
    with pytest.raises(ConfigurationError, match="LBFGS"):
        probe(model, torch.optim.LBFGS(model.parameters()))
    with pytest.raises(ConfigurationError, match="NoCopy does not step as a copy"):
        probe(model, NoCopy(model.parameters()))
    with pytest.raises(ConfigurationError, match="parameter that the model does not"):
        probe(model, torch.optim.SGD(network().parameters(), lr=0.1))
    with pytest.raises(ConfigurationError, match="optimizer is a object"):
        probe(model, object())  # type: ignore[arg-type]
    assert as_before()


def test_samples_follow_the_multiples_when_not_given() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert probe(model, optimizer, samples=None).samples == 16 * 64
    assert probe(model, optimizer, samples=None, multiples=(2, 3)).samples % (6 * 16) == 0
