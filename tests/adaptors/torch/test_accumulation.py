"""Past what fits, gradients accumulate, and the loop does not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from workbench.adaptors.torch.recipes import OPTIMIZERS


@pytest.mark.parametrize("largest", [1, 3, 5, 15])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_micro_batches_give_the_weights_of_the_whole_batch(
    loop: Callable[..., Any], largest: int, clip: float | None
) -> None:
    whole = loop(clip=clip)
    parts = loop(clip=clip, max_batch_size_per_worker=largest)
    assert max(len(batch) for batch in parts.batches) <= largest
    assert whole.losses == pytest.approx(parts.losses, abs=1e-6)
    for one, other in zip(whole.weights, parts.weights, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [*OPTIMIZERS.values(), torch.optim.NAdam, torch.optim.RAdam])
def test_an_optimizer_without_gradients_does_nothing(kind: Any) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = kind(layer.parameters(), lr=0.1, weight_decay=0.1)
    before = [weight.clone() for weight in layer.parameters()]
    state = str(optimizer.state_dict())
    optimizer.step()
    assert all(map(torch.equal, before, layer.parameters()))
    assert str(optimizer.state_dict()) == state


def test_micro_batch_norms_are_those_of_each_micro_batch(
    loop: Callable[..., Any], make_rows: Callable[..., Any], make_mlp: Callable[..., Any]
) -> None:
    ran = loop(max_batch_size_per_worker=4, lr=0.0, epochs=1)
    model, dataset = make_mlp(), make_rows(103)
    order = torch.cat(ran.batches)
    facts = ran.tracker.records[0].facts
    small = 0.0
    for part in torch.split(order[:16], 4):
        small += 4 * _sqnorm(model, dataset, part)
    assert facts.small_batches == 4
    assert facts.origin == "micro-batches"
    assert facts.grad_sqnorm_small == pytest.approx(small / 16, rel=1e-5)
    assert facts.grad_sqnorm_big == pytest.approx(_sqnorm(model, dataset, order[:16]), rel=1e-5)


def test_halves_of_one_batch_have_the_norms_that_two_workers_would_measure(
    loop: Callable[..., Any],
    make_rows: Callable[..., Any],
    make_mlp: Callable[..., Any],
) -> None:
    ran = loop(measure_every=3, single_worker="split", lr=0.0, epochs=1, batch_size=15)
    model, dataset = make_mlp(), make_rows(103)
    order = torch.cat(ran.batches)
    for at, record in enumerate(ran.tracker.records):
        facts = record.facts
        batch = order[at * 15 : at * 15 + 15]
        if at % 3:
            assert (facts.grad_sqnorm_big, facts.small_batches, facts.origin) == (None, 0, "none")
            continue
        assert facts.grad_sqnorm_big == pytest.approx(_sqnorm(model, dataset, batch), rel=1e-5)
        first, second = batch[: (len(batch) + 1) // 2], batch[(len(batch) + 1) // 2 :]
        small = sum(len(half) * _sqnorm(model, dataset, half) for half in (first, second))
        assert facts.splits
        assert facts.origin == "split"
        assert facts.grad_sqnorm_small == pytest.approx(small / len(batch), rel=1e-4)


def test_a_gradient_accumulation_of_the_loops_own_is_refused(
    make_rows: Callable[..., Any], make_mlp: Callable[..., Any]
) -> None:
    from workbench.adaptors.torch import attach
    from workbench.errors import ConfigurationError

    model = make_mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    job = attach(model, optimizer, make_rows(40), batch_size=10)
    with pytest.raises(ConfigurationError, match="max_batch_size_per_worker"):
        for epoch in job.epochs(1):
            for inputs, targets, _ in epoch:
                torch.nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
    job.close()


def test_a_second_backward_in_one_step_is_refused_while_accumulating(
    make_rows: Callable[..., Any], make_mlp: Callable[..., Any]
) -> None:
    from workbench.adaptors.torch import attach
    from workbench.errors import ConfigurationError

    model = make_mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    job = attach(model, optimizer, make_rows(40), batch_size=10, max_batch_size_per_worker=5)
    with pytest.raises(ConfigurationError, match="second backward"):
        for epoch in job.epochs(1):
            for inputs, targets, _ in epoch:
                for _ in range(2):
                    torch.nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
    job.close()


def _sqnorm(model: torch.nn.Module, dataset: Any, chosen: torch.Tensor) -> float:
    inputs, targets, _ = dataset[chosen]
    loss = torch.nn.functional.cross_entropy(model(inputs), targets)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return float(sum(grad.double().square().sum() for grad in grads))
