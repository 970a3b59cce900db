"""Sharpness against exact Hessians, and what it does with models and losses of all kinds."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from workbench.adaptors.torch.probes import Sharpness, sharpness
from workbench.errors import ConfigurationError

Batch = tuple[torch.Tensor, torch.Tensor]


def batch(rows: int, *, seed: int = 0, wide: int = 8, classes: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rows, wide, generator=generator),
        torch.randint(0, classes, (rows,), generator=generator),
    )


def network(seed: int = 0, *, middle: torch.nn.Module | None = None) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(8, 6), middle or torch.nn.Identity(), torch.nn.Tanh(), torch.nn.Linear(6, 3)
    )


def exact(
    model: torch.nn.Module, batches: list[Batch], loss: Any = F.cross_entropy
) -> torch.Tensor:
    """Return all eigenvalues of the Hessian of the mean over all samples, by full enumeration."""
    trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    total = sum(len(targets) for _, targets in batches)

    def of_vector(vector: torch.Tensor) -> torch.Tensor:
        sizes = [value.numel() for value in trained.values()]
        parts = dict(zip(trained, torch.split(vector, sizes), strict=True))
        shaped = {name: part.view(trained[name].shape) for name, part in parts.items()}
        losses = [
            len(targets) * loss(torch.func.functional_call(model, shaped, (inputs,)), targets)
            for inputs, targets in batches
        ]
        return torch.stack(losses).sum() / total

    flat = torch.cat([value.reshape(-1) for value in trained.values()])
    matrix: torch.Tensor = torch.autograd.functional.hessian(of_vector, flat)  # type: ignore[no-untyped-call]
    spectrum: torch.Tensor = torch.linalg.eigvalsh(matrix.double())
    return spectrum


class Quadratic(torch.nn.Module):
    """Outputs ``½ wᵀ A w`` for every row."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.w = torch.nn.Parameter(torch.randn(len(matrix), dtype=matrix.dtype))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return 0.5 * (self.w @ self.matrix @ self.w) + 0.0 * rows.sum()  # type: ignore[operator]


def mean(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    return outputs.mean()


@pytest.mark.parametrize("seed", range(4))
def test_a_network_has_the_sharpness_of_its_exact_hessian(seed: int) -> None:
    model, batches = network(seed), [batch(40, seed=seed), batch(17, seed=seed + 50)]
    found = sharpness(model, F.cross_entropy, batches, tolerance=1e-4)
    largest = float(exact(model, batches)[-1])
    assert found.signal(7).low - 1e-5 <= largest <= found.signal(7).high + 1e-3 * largest
    assert found.value == pytest.approx(largest, rel=1e-3)
    assert (found.samples, found.parameters) == (57, 75)


def test_batches_are_weighted_by_their_samples() -> None:
    model, (inputs, targets) = network(1), batch(60)
    whole = sharpness(model, F.cross_entropy, [(inputs, targets)], tolerance=1e-5)
    uneven = [(inputs[:7], targets[:7]), (inputs[7:], targets[7:])]
    parts = sharpness(model, F.cross_entropy, uneven, tolerance=1e-5)
    assert parts.value == pytest.approx(whole.value, rel=1e-4)


@pytest.mark.parametrize(
    ("spectrum", "largest"),
    [([-40.0, -3.0, 0.5, 2.0], 2.0), ([4.0, 4.0, 4.0, 1.0], 4.0), ([-5.0, -2.0], -2.0)],
)
def test_a_quadratic_has_the_largest_number_of_its_spectrum(
    spectrum: list[float], largest: float
) -> None:
    model = Quadratic(torch.diag(torch.tensor(spectrum, dtype=torch.float64)))
    found = sharpness(model, mean, [batch(4)], tolerance=1e-6)
    assert found.value == pytest.approx(largest, rel=1e-5)
    assert found.edge_learning_rate == (2.0 / found.value if largest > 0 else float("inf"))


def test_a_loss_that_is_linear_in_the_weights_has_no_sharpness() -> None:
    model = torch.nn.Linear(8, 1)
    found = sharpness(model, mean, [batch(4)])
    assert str(found.signal(3)) == "sharpness 0"
    assert found.signal(3).low == found.signal(3).high == 0.0


@pytest.mark.parametrize(
    ("bad", "said"), [(float("nan"), "batch 1 is nan"), (float("inf"), "NaN or infinite")]
)
def test_a_loss_or_curvature_that_is_not_finite_leaves_it_undetermined(
    bad: float, said: str
) -> None:
    inputs, targets = batch(4)
    inputs[2, 3] = bad
    found = sharpness(network(), F.cross_entropy, [batch(9), (inputs, targets)])
    signal = found.signal(5)
    assert not signal.determined
    assert signal.step == 5
    assert said in signal.reason


def test_without_enough_products_it_is_undetermined_and_a_bound_is_told() -> None:
    model = network()
    found = sharpness(model, F.cross_entropy, [batch(30)], iterations=2, tolerance=1e-6)
    assert not found.signal().determined
    assert found.products == 2
    assert found.lower_bound <= float(exact(model, [batch(30)])[-1]) + 1e-6
    assert "2 products" in found.reason
    assert f"at least {found.lower_bound:.4g}" in found.reason


def test_frozen_weights_are_no_part_of_the_hessian() -> None:
    model = network(2)
    model[0].requires_grad_(False)  # type: ignore[index]
    found = sharpness(model, F.cross_entropy, [batch(50)], tolerance=1e-5)
    assert found.parameters == 21
    assert found.value == pytest.approx(float(exact(model, [batch(50)])[-1]), rel=1e-3)


class Tied(torch.nn.Module):
    """One matrix, used twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 8, bias=False)
        self.second = torch.nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.second(torch.tanh(self.first(inputs)))


def test_a_shared_weight_counts_once(kept: Callable[..., Callable[[], bool]]) -> None:
    torch.manual_seed(0)
    model = Tied()
    as_before = kept(model)
    found = sharpness(model, F.cross_entropy, [batch(30)], tolerance=1e-5)
    assert found.parameters == 64
    assert found.value == pytest.approx(float(exact(model, [batch(30)])[-1]), rel=1e-3)
    assert model.first.weight is model.second.weight
    assert as_before()


class Draws(torch.nn.Module):
    """Dropout, batch normalisation, and all the ways to draw a number."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(6)
        self.drop = torch.nn.Dropout(0.4)
        self.calls = 0
        self.seen: torch.Tensor | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.late = self.calls
        scale = 1.0 + 0.01 * (random.random() + float(np.random.rand()))
        self.seen = scale * self.drop(self.norm(inputs))
        return self.seen


def test_dropout_and_batch_normalisation_give_one_matrix_and_leave_no_trace(
    kept: Callable[..., Callable[[], bool]],
) -> None:
    model = network(3, middle=Draws())
    batches = [batch(20), batch(12, seed=9)]
    sum_of_squares = model(batches[0][0]).square().sum()
    sum_of_squares.backward()
    optimizer = torch.optim.Adam(model.parameters())
    as_before = kept(model, optimizer)
    one = sharpness(model, F.cross_entropy, batches, tolerance=1e-5)
    assert as_before()
    torch.manual_seed(99)
    random.seed(99)
    assert sharpness(model, F.cross_entropy, batches, tolerance=1e-5) == one
    assert one.signal().determined, one.reason
    assert sharpness(model, F.cross_entropy, batches, seed=4).value != one.value
    model.eval()
    assert sharpness(model, F.cross_entropy, batches).value != one.value
    assert not model.training


def test_batch_normalisation_in_training_mode_has_its_exact_hessian() -> None:
    norm = torch.nn.BatchNorm1d(6, track_running_stats=False)
    model = network(5, middle=norm)
    found = sharpness(model, F.cross_entropy, [batch(30)], tolerance=1e-5)
    assert found.value == pytest.approx(float(exact(model, [batch(30)])[-1]), rel=1e-3)


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 3])
def test_an_interrupted_probe_leaves_everything_as_it_was(
    kept: Callable[..., Callable[[], bool]], error: BaseException, call: int
) -> None:
    model, calls = network(4, middle=Draws()), []
    as_before = kept(model)

    def breaks(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == call:
            raise error
        return F.cross_entropy(outputs, targets)

    with pytest.raises(type(error)):
        sharpness(model, breaks, [batch(5), batch(6)])
    assert as_before()


def test_a_step_function_takes_batches_of_any_form_and_may_use_the_model_it_closes_over() -> None:
    model, (inputs, targets) = network(), batch(30)
    plain = sharpness(model, F.cross_entropy, [(inputs, targets)])
    batches = [{"x": inputs, "y": targets}]
    named = sharpness(
        model, None, batches, step_function=lambda net, b: F.cross_entropy(net(b["x"]), b["y"])
    )
    closed = sharpness(
        model, None, batches, step_function=lambda _, b: F.cross_entropy(model(b["x"]), b["y"])
    )
    assert named == closed == plain


def test_it_works_where_gradients_are_off() -> None:
    model = network()
    plain = sharpness(model, F.cross_entropy, [batch(30)])
    with torch.no_grad():
        assert sharpness(model, F.cross_entropy, [batch(30)]) == plain
    with torch.inference_mode():
        assert sharpness(model, F.cross_entropy, [batch(30)]) == plain


class Attention(torch.nn.Module):
    """One head of torch's fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = torch.nn.Linear(8, 24), torch.nn.Linear(8, 3)

    def forward(self, inputs: torch.Tensor) -> Any:
        q, k, v = self.mix(inputs.view(-1, 1, 2, 8)).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v).mean((1, 2)))


def test_fused_attention_is_refused_with_the_way_out_and_the_way_out_works() -> None:
    torch.manual_seed(0)
    model = Attention()
    inputs, targets = batch(5, wide=16)
    with pytest.raises(ConfigurationError, match=r"sdpa_kernel\(SDPBackend.MATH\)") as caught:
        sharpness(model, F.cross_entropy, [(inputs, targets)])
    assert "\n" not in str(caught.value)
    with sdpa_kernel(SDPBackend.MATH):
        found = sharpness(model, F.cross_entropy, [(inputs, targets)])
        largest = float(exact(model, [(inputs, targets)])[-1])
    assert found.value == pytest.approx(largest, rel=2e-3)


class Once(torch.autograd.Function):
    """Squares, but only once differentiable."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(inputs)
        return inputs**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (inputs,) = ctx.saved_tensors
        return 2 * inputs * gradient


class Hidden(Once):
    """Squares, with a backward pass that autograd cannot see into."""

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (inputs,) = ctx.saved_tensors
        return (2 * inputs * gradient).detach()


@pytest.mark.parametrize("function", [Once, Hidden])
def test_a_second_derivative_that_is_hidden_is_not_taken_for_zero(function: Any) -> None:
    class Squares(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> Any:
            return function.apply(super().forward(input))

    torch.manual_seed(0)
    found = sharpness(Squares(8, 3), F.cross_entropy, [batch(50)])
    assert found.lower_bound == 0.0
    assert found.by_difference != pytest.approx(0.0, abs=1e-3)
    assert not found.signal().determined
    assert "hides its second derivative" in found.reason


@pytest.mark.parametrize("kind", [torch.nn.ReLU, torch.nn.GELU, torch.nn.LeakyReLU])
@pytest.mark.parametrize("seed", range(4))
def test_kinks_of_common_networks_raise_no_doubts(kind: Any, seed: int) -> None:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 64), kind(), torch.nn.Linear(64, 64), kind(), torch.nn.Linear(64, 3)
    )
    found = sharpness(model, F.cross_entropy, [batch(64, seed=seed)])
    assert found.signal().determined, found.reason
    assert found.by_difference == pytest.approx(found.value, rel=0.2)


def test_other_errors_of_the_model_come_through_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        sharpness(network(), F.cross_entropy, [batch(5, wide=3)])


WRONG: dict[str, tuple[Callable[[], Sharpness], str]] = {
    "no batch": (lambda: sharpness(network(), F.cross_entropy, []), "batches is empty"),
    "empty batch": (lambda: sharpness(network(), F.cross_entropy, [batch(0)]), "no sample"),
    "iterations": (
        lambda: sharpness(network(), F.cross_entropy, [batch(5)], iterations=0),
        "iterations is 0",
    ),
    "tolerance": (
        lambda: sharpness(network(), F.cross_entropy, [batch(5)], tolerance=0.0),
        "tolerance is 0.0",
    ),
    "no loss": (lambda: sharpness(network(), None, [batch(5)]), "neither of loss_function"),
    "two losses": (
        lambda: sharpness(network(), mean, [batch(5)], step_function=lambda m, b: m(b[0]).sum()),
        "both of loss_function",
    ),
    "three parts": (lambda: sharpness(network(), mean, [(*batch(5), 1)]), "of 3 parts"),
    "no scalar": (lambda: sharpness(network(), lambda o, _: o, [batch(5)]), r"shape \(5, 3\)"),
    "detached": (
        lambda: sharpness(network(), lambda o, _: o.detach().sum(), [batch(5)]),
        "depends on no trainable weight",
    ),
    "another graph": (
        lambda: sharpness(network(), lambda *_: torch.ones((), requires_grad=True) * 2, [batch(5)]),
        "depends on no trainable weight",
    ),
    "frozen": (
        lambda: sharpness(network().requires_grad_(False), mean, [batch(5)]),
        "unfreeze a layer",
    ),
    "lazy": (
        lambda: sharpness(torch.nn.LazyLinear(3), F.cross_entropy, [batch(5)]),
        "run one forward pass first",
    ),
    "no module": (lambda: sharpness(mean, mean, [batch(5)]), "model is a function"),  # type: ignore[arg-type]
    "data parallel": (
        lambda: sharpness(torch.nn.DataParallel(network()), F.cross_entropy, [batch(5)]),
        "give model.module",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_refused_in_one_line(name: str) -> None:
    call, said = WRONG[name]
    with pytest.raises(ConfigurationError, match=said) as caught:
        call()
    assert "allowed" in str(caught.value)
