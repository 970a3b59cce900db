"""A small training run whose every gradient is known: facts for the monitors, and the truth beside.

Two layers learn handwritten digits with plain stochastic gradient descent. Each step draws its
batch with replacement, so that the mean and the covariance of the gradient over the whole data set
are the truth that the monitors estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F  # noqa: N812

from workbench.facts import GroupFacts, StepFacts, Successive

SMALL_BATCHES, RATE = 8, 0.05
LAYERS = {"first": ("0.weight", "0.bias"), "second": ("2.weight", "2.bias")}
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What enumeration of all samples says at one step.

    Attributes:
        step: Of which step.
        noise: ``tr(Sigma)``.
        length: ``|G|^2``.
        along: Variance of ``g_i . G``.
        loss: Mean loss.
    """

    step: int
    noise: float
    length: float
    along: float
    loss: float


def batch_size(step: int) -> int:
    """Return the global batch size of a step: 64, from step 401 on 256."""
    return 64 if step <= 400 else 256


def small_run(steps: int = 800, every: int = 25) -> tuple[list[StepFacts], list[Truth]]:
    """Train, and return the facts of every step and the truth of every ``every``-th."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images) / 16.0
    y = torch.tensor(labels)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
    weights = {name: weight.detach().double() for name, weight in model.named_parameters()}

    def loss(weights: Weights, row: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(torch.func.functional_call(model, weights, (row[None],)), goal[None])

    with_loss = torch.func.grad_and_value(loss)
    each = torch.func.vmap(with_loss, in_dims=(None, 0, 0))
    facts: list[StepFacts] = []
    truths: list[Truth] = []
    before: torch.Tensor | None = None
    for step in range(1, steps + 1):
        if step % every == 0:
            truths.append(truth(step, *each(weights, x, y)))
        rows = torch.randint(len(x), (batch_size(step),))
        grads, losses = each(weights, x[rows], y[rows])
        gradient = torch.cat([grad.mean(0).flatten() for grad in grads.values()])
        update = {name: -RATE * grad.mean(0) for name, grad in grads.items()}
        facts.append(facts_of(step, grads, float(losses.mean()), weights, update, before))
        weights = {name: weight + update[name] for name, weight in weights.items()}
        before = gradient
    return facts, truths


def flat(grads: Weights) -> torch.Tensor:
    """Return per-sample gradients as one matrix."""
    return torch.cat([grad.flatten(1) for grad in grads.values()], dim=1)


def truth(step: int, grads: Weights, losses: torch.Tensor) -> Truth:
    """Return what the gradients of all samples say."""
    matrix = flat(grads)
    mean = matrix.mean(0)
    return Truth(
        step=step,
        noise=float((matrix - mean).square().sum(1).mean()),
        length=float(mean.square().sum()),
        along=float((matrix @ mean).var(correction=0)),
        loss=float(losses.mean()),
    )


def facts_of(
    step: int,
    grads: Weights,
    loss: float,
    weights: Weights,
    update: Weights,
    before: torch.Tensor | None,
) -> StepFacts:
    """Return the facts that an adaptor would hand over."""
    matrix = flat(grads)
    batch = len(matrix)
    small = matrix.view(SMALL_BATCHES, batch // SMALL_BATCHES, -1).mean(1)
    big = small.mean(0)
    square = float(big.square().sum())
    products = small @ big - square
    along = float(batch / SMALL_BATCHES * products.square().sum() / (SMALL_BATCHES - 1))
    pair = None
    if before is not None:
        pair = Successive(
            dot=float(big @ before),
            sqnorm=square,
            sqnorm_before=float(before.square().sum()),
            batch_size_before=batch_size(step - 1),
        )
    return StepFacts(
        step=step,
        epoch=0,
        samples=sum(batch_size(earlier) for earlier in range(1, step + 1)),
        seconds=0.01,
        workers=1,
        batch_size_global=batch,
        batch_size_target=batch,
        small_batches=SMALL_BATCHES,
        grad_sqnorm_small=float(small.square().sum(1).mean()),
        grad_sqnorm_big=square,
        loss=loss,
        learning_rate=RATE,
        origin="micro-batches",
        grad_dot_variance=along,
        successive=pair,
        groups=tuple(group(layer, grads, weights, update) for layer in LAYERS),
    )


def group(layer: str, grads: Weights, weights: Weights, update: Weights) -> GroupFacts:
    """Return the facts of one layer."""

    def square(tensors: list[torch.Tensor]) -> float:
        return sum(float(tensor.square().sum()) for tensor in tensors)

    names = LAYERS[layer]
    return GroupFacts(
        name=layer,
        grad_sqnorm=square([grads[name].mean(0) for name in names]),
        weight_sqnorm=square([weights[name] for name in names]),
        update_sqnorm=square([update[name] for name in names]),
    )
