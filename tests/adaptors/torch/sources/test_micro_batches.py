"""Each backward pass by itself, without a copy, and off when it is not asked for."""

from __future__ import annotations

import pytest
import torch

from workbench.adaptors.torch.sources.micro_batches import MicroBatches


def passes(model: torch.nn.Module, inputs: list[torch.Tensor], divide: float) -> None:
    for part in inputs:
        (model(part).square().mean() / divide).backward()


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))


def test_squares_are_those_of_each_pass_alone(model: torch.nn.Module) -> None:
    inputs = [torch.randn(6, 4) for _ in range(3)]
    truth = []
    for part in inputs:
        model.zero_grad()
        passes(model, [part], 1.0)
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        truth.append(sum(float(grad.double().square().sum()) for grad in grads))
    model.zero_grad()
    micro = MicroBatches(list(model.parameters()))
    micro.arm(True)
    passes(model, inputs, 3.0)
    found = micro.squares()
    assert found is not None
    assert found.tolist() == pytest.approx(truth, rel=1e-5)


def test_gradients_keep_their_bits_and_hooks_go(model: torch.nn.Module) -> None:
    inputs = [torch.randn(6, 4) for _ in range(2)]
    passes(model, inputs, 2.0)
    plain = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    micro = MicroBatches(list(model.parameters()))
    micro.arm(True)
    passes(model, inputs, 2.0)
    watched = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(watched, plain, strict=True))
    micro.arm(False)
    model.zero_grad()
    passes(model, inputs, 2.0)
    assert micro.squares() is None
    assert micro.refusal == "no backward pass was measured"
    assert micro.seconds == 0.0


def test_a_layer_used_in_some_passes_only_cannot_be_told_apart(model: torch.nn.Module) -> None:
    rare = torch.nn.Linear(4, 1)
    micro = MicroBatches([*model.parameters(), *rare.parameters()])
    micro.arm(True)
    part = torch.randn(6, 4)
    model(part).mean().backward()
    (model(part) + rare(part)).mean().backward()
    assert micro.squares() is None
    assert micro.refusal == "some parameters had a gradient in some micro-batches only"


def test_a_layer_that_is_never_used_does_not_matter(model: torch.nn.Module) -> None:
    micro = MicroBatches([*model.parameters(), *torch.nn.Linear(4, 1).parameters()])
    micro.arm(True)
    passes(model, [torch.randn(6, 4)], 1.0)
    assert micro.squares() is not None


def test_a_sparse_gradient_is_refused() -> None:
    words = torch.nn.Embedding(5, 2, sparse=True)
    micro = MicroBatches(list(words.parameters()))
    micro.arm(True)
    words(torch.tensor([1, 2])).sum().backward()
    assert micro.squares() is None
    assert micro.refusal == "a parameter has a sparse gradient"
