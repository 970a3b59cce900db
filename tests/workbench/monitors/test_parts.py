"""S_hat and |G|^2_hat are unbiased, for any sizes of small batches, and exact for size one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from workbench.facts import StepFacts
from workbench.monitors.parts import Parts, split

Array = NDArray[np.float64]


def facts_of(gradients: Array, sizes: Array) -> StepFacts:
    """Facts as an adaptor makes them from the mean gradients of small batches of ``sizes``."""
    batch = int(sizes.sum())
    mean = (sizes[:, None] * gradients).sum(0) / batch
    return StepFacts(
        step=1, epoch=0, samples=batch, seconds=0.1, workers=1, batch_size_global=batch,
        batch_size_target=batch, small_batches=len(sizes),
        grad_sqnorm_small=float((sizes * (gradients**2).sum(1)).sum() / batch),
        grad_sqnorm_big=float((mean**2).sum()), origin="micro-batches",
    )  # fmt: skip


def parts_of(gradients: Array, sizes: Array) -> Parts:
    parts = split(facts_of(gradients, sizes))
    assert parts is not None
    return parts


@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_micro_batches_of_one_give_the_trace_of_the_sample_covariance(
    count: int, dim: int, seed: int
) -> None:
    samples = np.random.default_rng(seed).standard_normal((count, dim)) + 1.0
    parts = parts_of(samples, np.ones(count))
    assert parts.noise == pytest.approx(samples.var(0, ddof=1).sum(), rel=1e-9)


def test_micro_batches_of_one_agree_with_per_sample_gradients_of_torch_func() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
    model.double()
    x, y = torch.randn(24, 5).double(), torch.randn(24, 1).double()
    weights: dict[str, torch.Tensor] = dict(model.named_parameters())

    def loss(
        weights: dict[str, torch.Tensor], row: torch.Tensor, goal: torch.Tensor
    ) -> torch.Tensor:
        out = torch.func.functional_call(model, weights, (row[None],))
        square: torch.Tensor = ((out - goal[None]) ** 2).mean()
        return square

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)
    matrix = torch.cat([part.flatten(1) for part in per_sample.values()], dim=1).detach()
    trace = float(matrix.var(0, correction=1).sum())

    seen = []
    for row, goal in zip(x, y, strict=True):
        model.zero_grad()
        ((model(row[None]) - goal[None]) ** 2).mean().backward()
        grads = [weight.grad for weight in model.parameters()]
        seen.append(torch.cat([grad.flatten() for grad in grads if grad is not None]))
    parts = parts_of(torch.stack(seen).numpy(), np.ones(24))
    assert parts.noise == pytest.approx(trace, rel=1e-10)


@given(st.permutations(range(6)), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_the_order_of_small_batches_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradients, sizes = rng.standard_normal((6, 4)), rng.integers(1, 9, 6).astype(float)
    one, other = parts_of(gradients, sizes), parts_of(gradients[order], sizes[order])
    assert one.noise == pytest.approx(other.noise, rel=1e-9)
    assert one.signal == pytest.approx(other.signal, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (1, 2, 13, 16), (31, 1)])
def test_both_parts_are_unbiased_for_uneven_small_batches(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    spread, mean = np.array([3.0, 1.0, 0.2]), np.array([0.5, 0.0, -0.5])
    each = np.array(sizes, float)
    found = []
    for _ in range(4000):
        gradients = mean + rng.standard_normal((len(sizes), 3)) * spread / np.sqrt(each)[:, None]
        parts = parts_of(gradients, each)
        found.append((parts.noise, parts.signal))
    average, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(4000)
    truth = np.array([(spread**2).sum(), (mean**2).sum()])
    assert (np.abs(average - truth) < 4 * error).all()


def test_a_loss_times_c_scales_both_parts_by_c_squared() -> None:
    rng = np.random.default_rng(6)
    gradients, sizes = rng.standard_normal((4, 5)), np.full(4, 8.0)
    plain, scaled = parts_of(gradients, sizes), parts_of(3.0 * gradients, sizes)
    assert scaled.noise == pytest.approx(9.0 * plain.noise)
    assert scaled.signal == pytest.approx(9.0 * plain.signal)
