"""What per-example norms cannot be taken of is left out or refused, and never measured wrongly."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from workbench.adaptors.torch.per_example import PerExample

Forward = Callable[[torch.Tensor], torch.Tensor]


def watch(model: nn.Module) -> PerExample:
    return PerExample(model, [p for p in model.parameters() if p.requires_grad])


def step(
    per_example: PerExample, forward: Forward, inputs: torch.Tensor, *, check: bool = False
) -> torch.Tensor | None:
    """Run one armed step."""
    per_example.arm(len(inputs), check=check)
    forward(inputs).square().mean().backward()  # type: ignore[no-untyped-call]
    return per_example.collect()


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


class Net(nn.Module):
    """Two linear layers and a way through them that a test chooses."""

    def __init__(self, way: Callable[[Net, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.way = way

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.way(self, inputs)


# Left out from the start ---------------------------------------------------------------------------


class Twice(nn.Linear):
    """A subclass may do anything."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(inputs)


def with_own_forward() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.forward = lambda inputs: inputs @ layer.weight  # type: ignore[method-assign, assignment]
    return layer


def tied() -> nn.Module:
    one, two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    two.weight = one.weight
    return nn.Sequential(one, two)


@pytest.mark.parametrize(
    "model",
    [
        Twice(4, 4),
        with_own_forward(),
        tied(),
        parametrizations.weight_norm(nn.Linear(4, 4)),
        parametrizations.orthogonal(nn.Linear(4, 4)),
        prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5),  # type: ignore[no-untyped-call]
        nn.BatchNorm1d(4).eval(),
        nn.Bilinear(4, 4, 2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Embedding(4, 4, max_norm=1.0),
        nn.Embedding(4, 4, scale_grad_by_freq=True),
        nn.Embedding(4, 4, sparse=True),
        nn.EmbeddingBag(4, 4),
        nn.LSTM(4, 4),
        nn.Linear(4, 4, dtype=torch.complex64),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_module_of_another_kind_is_not_covered(model: nn.Module) -> None:
    per_example = watch(model)
    assert per_example.covered == frozenset()
    assert not per_example.complete
    per_example.arm(3)
    assert hooks(model) == 0
    assert per_example.collect() is None
    assert "no layer" in per_example.refusal


def test_bare_parameters_are_not_covered_and_the_rest_is() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.layer = nn.Parameter(torch.zeros(4)), nn.Linear(4, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(inputs + self.shift)
            return out

    model = Shifted()
    per_example = watch(model)
    assert per_example.covered == {1, 2}
    assert not per_example.complete
    assert step(per_example, model, torch.randn(3, 4)) is not None


def test_frozen_layers_are_no_place_at_all() -> None:
    model = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2))
    per_example = watch(model)
    assert per_example.covered == {0, 1}
    assert per_example.complete
    assert step(per_example, model, torch.randn(3, 4)) is not None


# Refused in the step -------------------------------------------------------------------------------


def test_batch_norm_that_trains_is_refused_and_in_eval_it_is_not() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    per_example = watch(model)
    assert step(per_example, model, torch.randn(3, 4)) is None
    assert "BatchNorm1d '1' mixes samples" in per_example.refusal
    model.eval()
    assert step(per_example, model, torch.randn(3, 4)) is not None
    assert per_example.refusal == ""


@pytest.mark.parametrize(
    ("way", "why"),
    [
        (lambda net, x: net.two(net.one(net.one(x))), "'one' was called twice"),
        (lambda net, x: net.two(net.one(x.reshape(-1, 2, 4).transpose(0, 1))), "not on 6 rows"),
        (lambda net, x: net.two(net.one(x[0])), "not on 6 rows"),
        (lambda net, x: net.two(net.one(input=x)), "not called with one tensor"),
        (lambda net, x: checkpoint(net.one, net.two(x), use_reentrant=False), "saved tensors"),
        (lambda net, x: net.two(F.linear(x, net.one.weight)), "'one' got a gradient without"),
        (lambda net, x: net.two(x) + net.one(x).detach() + net.one.bias, "'one' got a gradient"),
    ],
)
def test_a_call_that_cannot_be_measured_is_refused(
    way: Callable[[Net, torch.Tensor], torch.Tensor], why: str
) -> None:
    torch.manual_seed(0)
    model = Net(way)
    per_example = watch(model)
    inputs = torch.randn(6, 4)
    model(inputs).square().mean().backward()
    expected = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    assert step(per_example, model, inputs) is None
    assert why in per_example.refusal
    assert per_example.sqnorms is None
    assert hooks(model) == 0
    for parameter, grad in zip(model.parameters(), expected, strict=True):
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or torch.equal(parameter.grad, grad)  # type: ignore[arg-type]


def test_saved_tensors_that_go_elsewhere_are_refused() -> None:
    model = nn.Linear(4, 2)
    per_example = watch(model)
    with save_on_cpu():
        assert step(per_example, model, torch.randn(3, 4)) is None
    assert "saved tensors" in per_example.refusal


def test_a_reentrant_checkpoint_is_measured_rightly() -> None:
    torch.manual_seed(0)
    model = Net(lambda net, x: checkpoint(net.one, net.two(x), use_reentrant=True))
    plain = Net(lambda net, x: net.one(net.two(x)))
    plain.load_state_dict(model.state_dict())
    inputs = torch.randn(6, 4)
    value = step(watch(model), model, inputs)
    assert value is not None
    torch.testing.assert_close(value, step(watch(plain), plain, inputs))


def test_a_module_that_is_never_called_is_no_longer_covered() -> None:
    """Like the table of a language model whose weight is used as a matrix and nothing else."""
    model = Net(lambda net, x: net.two(F.linear(x, net.one.weight)))
    per_example = watch(model)
    assert per_example.covered == {0, 1, 2, 3}
    assert step(per_example, model, torch.randn(6, 4)) is None
    assert per_example.covered == {2, 3}
    assert step(per_example, model, torch.randn(6, 4)) is not None


def test_a_module_that_rests_in_one_step_stays_covered() -> None:
    rest = [False]
    model = Net(lambda net, x: net.two(x) if rest[0] else net.two(net.one(x)))
    per_example = watch(model)
    for resting in (False, True, False):
        model.zero_grad()
        rest[0] = resting
        assert step(per_example, model, torch.randn(6, 4)) is not None
    model.zero_grad(set_to_none=False)
    rest[0] = True
    assert step(per_example, model, torch.randn(6, 4)) is None, "zeros left from the step before"
    assert per_example.complete


def test_a_second_backward_pass_is_refused() -> None:
    model = nn.Linear(4, 2)
    per_example = watch(model)
    per_example.arm(3)
    loss = model(torch.randn(3, 4)).square().mean()
    loss.backward(retain_graph=True)
    loss.backward()
    assert per_example.collect() is None
    assert "two backward passes" in per_example.refusal


def test_a_step_without_backward_or_without_arming_is_refused() -> None:
    model = nn.Linear(4, 2)
    per_example = watch(model)
    assert per_example.collect() is None
    assert per_example.refusal == "the step was not armed"
    per_example.arm(3)
    with torch.no_grad():
        model(torch.randn(3, 4))
    assert per_example.collect() is None
    assert "no gradient came" in per_example.refusal
    per_example.arm(0)
    assert per_example.collect() is None
    assert per_example.refusal == "no rows to measure"


def test_calls_without_gradients_do_not_count() -> None:
    model = nn.Linear(4, 2)
    inputs = torch.randn(3, 4)

    def evaluated(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            model(x[:1])
        out: torch.Tensor = model(x)
        return out

    assert step(watch(model), evaluated, inputs) is not None


def test_a_graph_of_an_earlier_armed_step_does_not_count() -> None:
    model = nn.Linear(4, 2)
    per_example = watch(model)
    inputs = torch.randn(3, 4)
    per_example.arm(3)
    late = model(inputs).sum()
    value = step(per_example, model, inputs)
    late.backward()
    model.zero_grad()
    per_example.arm(3)
    loss = model(inputs).square().mean()
    loss.backward()
    again = per_example.collect()
    assert value is not None
    assert again is not None
    torch.testing.assert_close(value, again)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(4, 4), lambda: nn.LayerNorm(4), lambda: nn.RMSNorm(4)]
)
def test_an_input_changed_in_place_after_its_use_is_refused_by_autograd_or_does_not_matter(
    make: Callable[[], nn.Module], autocast: bool
) -> None:
    """What autograd does not refuse was kept as a copy, by autograd and by us."""
    torch.manual_seed(0)
    layer = make()

    def forward(inputs: torch.Tensor, changed: bool) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            inputs = inputs.clone()
            out: torch.Tensor = layer(inputs)
            if changed:
                inputs.mul_(3.0)
        return out.float()

    inputs = torch.randn(3, 4)
    expected = step(watch(layer), lambda x: forward(x, False), inputs)
    layer.zero_grad()
    try:
        found = step(watch(layer), lambda x: forward(x, True), inputs)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)  # noqa: PT017
    else:
        assert expected is not None
        assert found is not None
        torch.testing.assert_close(found, expected)


def test_an_output_changed_in_place_is_measured_rightly() -> None:
    torch.manual_seed(0)
    one = Net(lambda net, x: net.two(net.one(x).relu_()))
    other = Net(lambda net, x: net.two(net.one(x).relu()))
    other.load_state_dict(one.state_dict())
    inputs = torch.randn(6, 4)
    value = step(watch(one), one, inputs)
    assert value is not None
    torch.testing.assert_close(value, step(watch(other), other, inputs))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_model_is_refused_or_measured_rightly(whole: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    inputs = torch.randn(6, 4)
    expected = step(watch(model), model, inputs)
    model.zero_grad()
    per_example = watch(model)
    forward: Any = model
    if whole:
        forward = torch.compile(model, backend="aot_eager")
    else:
        model[0].compile(backend="aot_eager")
    for _ in range(2):  # compiled while armed, and used when armed again
        model.zero_grad()
        value = step(per_example, forward, inputs)
        if value is None:
            assert (
                "a compiled model" in per_example.refusal or "got a gradient" in per_example.refusal
            )
        elif per_example.complete:
            torch.testing.assert_close(value, expected)
        model.zero_grad()
        forward(inputs).square().mean().backward()
    torch._dynamo.reset()


# What checks find ----------------------------------------------------------------------------------


def halved(per_example: PerExample, model: nn.Module, inputs: torch.Tensor) -> float:
    """Run an armed step with a masked pass before the ordinary one; return the spill."""
    first = (len(inputs) + 1) // 2
    per_example.arm(len(inputs))
    output = model(inputs)
    masked = torch.ones_like(output)
    masked[first:] = 0.0
    with per_example.halved(first):
        torch.autograd.grad(output, list(model.parameters()), masked, retain_graph=True)
    output.square().mean().backward()
    assert per_example.collect() is not None
    assert per_example.spill is not None
    return float(per_example.spill)


class SamplesSecond(nn.Module):
    """Attention over the first dimension: for rows of samples it mixes them."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.into(inputs)
        weights = (hidden @ hidden.transpose(0, 1)).softmax(-1)
        out: torch.Tensor = self.out(weights @ hidden)
        return out


def test_a_masked_pass_shows_rows_that_are_not_samples_and_leaves_the_step_alone() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(6, 4)
    apart = Net(lambda net, x: net.two(net.one(x).tanh()))
    per_example = watch(apart)
    alone = step(per_example, apart, inputs)
    apart.zero_grad()
    assert halved(per_example, apart, inputs) == 0.0
    apart.zero_grad()
    torch.testing.assert_close(alone, step(per_example, apart, inputs))
    mixed = SamplesSecond()
    assert halved(watch(mixed), mixed, inputs) > 1e-3


def test_the_check_shows_a_parameter_that_is_used_in_another_way_too() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(6, 4)
    both = Net(lambda net, x: net.two(net.one(x)) + F.linear(x, net.one.weight))
    per_example = watch(both)
    assert step(per_example, both, inputs, check=True) is not None
    assert per_example.mismatch is not None
    assert float(per_example.mismatch) > 1e-3
    honest = Net(lambda net, x: net.two(net.one(x)))
    per_example = watch(honest)
    assert step(per_example, honest, inputs, check=True) is not None
    assert per_example.mismatch is not None
    assert float(per_example.mismatch) < 1e-10


def test_nan_in_one_sample_is_nan_in_its_norm_and_gone_in_the_next_step() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Linear(4, 2), torch.randn(3, 4)
    per_example = watch(model)
    poisoned = inputs.clone()
    poisoned[1] = float("nan")
    assert step(per_example, model, poisoned) is not None
    assert per_example.sqnorms is not None
    assert per_example.sqnorms.isnan().tolist() == [False, True, False]
    model.zero_grad()
    value = step(per_example, model, inputs)
    assert value is not None
    assert bool(value.isfinite())


# What it costs -------------------------------------------------------------------------------------


class NoReading(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises when the host asks for a number of a tensor, or a tensor goes to another device."""

    FORBIDDEN = ("_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        kwargs = kwargs or {}
        if name in self.FORBIDDEN or (name == "_to_copy" and kwargs.get("device") is not None):
            raise AssertionError(f"{func.name()} in a step that is measured")
        return func(*args, **kwargs)


def test_the_host_reads_nothing() -> None:
    model = nn.Sequential(
        nn.Embedding(9, 8, padding_idx=0), nn.LayerNorm(8), nn.Linear(8, 8), nn.RMSNorm(8),
        nn.Conv1d(6, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    per_example = watch(model)
    assert per_example.complete
    with NoReading():  # type: ignore[no-untyped-call]
        value = step(per_example, model, torch.randint(0, 9, (5, 6)), check=True)
    assert value is not None
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoReading():  # type: ignore[no-untyped-call]
        value.item()


def test_a_step_that_is_not_armed_has_no_hook_and_nothing_is_held_afterwards() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    per_example = watch(model)
    assert hooks(model) == 0
    per_example.arm(3)
    per_example.arm(3)
    assert hooks(model) == 2
    inputs = torch.randn(3, 4)
    held = weakref.ref(inputs)
    model(inputs).mean().backward()
    per_example.collect()
    assert hooks(model) == 0
    del inputs
    gc.collect()
    assert held() is None
