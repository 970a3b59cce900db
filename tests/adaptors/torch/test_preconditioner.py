"""The preconditioner is the direction each optimizer takes, read before its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.adaptors.torch import preconditioner as module
from workbench.adaptors.torch.preconditioner import Preconditioner

Optimizer = torch.optim.Optimizer
LR = 1e-3

FREE_OF_MOMENTUM: dict[str, Callable[[Any], Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, LR, betas=(0.0, 0.9)),
    "adam, foreach": lambda p: torch.optim.Adam(p, LR, betas=(0.0, 0.9), foreach=True),
    "adam, fused": lambda p: torch.optim.Adam(p, LR, betas=(0.0, 0.9), fused=True),
    "adam, large eps": lambda p: torch.optim.Adam(p, LR, betas=(0.0, 0.99), eps=0.3),
    "adamw": lambda p: torch.optim.AdamW(p, LR, betas=(0.0, 0.9), weight_decay=0.0),
    "amsgrad": lambda p: torch.optim.Adam(p, LR, betas=(0.0, 0.9), amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, LR, betas=(0.0, 0.9)),
    "radam": lambda p: torch.optim.RAdam(p, LR, betas=(0.0, 0.9)),
    "rmsprop": lambda p: torch.optim.RMSprop(p, LR, alpha=0.9),
    "rmsprop, centred": lambda p: torch.optim.RMSprop(p, LR, alpha=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, LR, initial_accumulator_value=0.1),
}


def weights(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((5, 4), (7,), (2, 3, 3), ())
    draw = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [torch.nn.Parameter(each) for each in draw]


def stepped(optimizer: Optimizer, parameters: list[torch.nn.Parameter], seed: int) -> torch.Tensor:
    """Take one step with random gradients; return ``|change|^2``."""
    generator = torch.Generator().manual_seed(seed)
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
    optimizer.step()
    pairs = zip(parameters, before, strict=True)
    return sum(((p.detach() - old).square().sum() for p, old in pairs), torch.zeros(()))


def gradients(parameters: list[torch.nn.Parameter]) -> dict[int, torch.Tensor]:
    return {place: p.grad for place, p in enumerate(parameters) if p.grad is not None}


@pytest.mark.parametrize("kind", FREE_OF_MOMENTUM)
def test_without_momentum_the_gradient_times_p_is_the_step_just_taken(kind: str) -> None:
    """After step t, ``P`` of its state times the gradient of step t is that step over the rate."""
    parameters = weights()
    optimizer = FREE_OF_MOMENTUM[kind](parameters)
    preconditioner = Preconditioner(optimizer, parameters)
    assert preconditioner.name == kind.split(",")[0]
    for step in range(12):  # RAdam adapts from its sixth step on
        change = stepped(optimizer, parameters, step)
        found = preconditioner.sqnorm(gradients(parameters))
        assert found is not None
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, change / LR**2, rtol=1e-6, atol=0.0)


def test_the_rectified_one_is_plain_first_and_adapts_later() -> None:
    parameters = weights()
    optimizer = FREE_OF_MOMENTUM["radam"](parameters)
    preconditioner = Preconditioner(optimizer, parameters)
    plain = []
    for step in range(9):
        stepped(optimizer, parameters, step)
        found = preconditioner.sqnorm(gradients(parameters))
        assert found is not None
        square = sum(float(each.square().sum()) for each in gradients(parameters).values())
        plain.append(float(found) == pytest.approx(square, rel=1e-12))
    assert plain == [True] * 5 + [False] * 4


def explicit(
    optimizer: Optimizer, parameters: list[torch.nn.Parameter], step: int
) -> list[torch.Tensor]:
    """Return Adam's ``P`` by the formula."""
    group = optimizer.param_groups[0]
    factor = 1.0 - group["betas"][1] ** step
    states = [optimizer.state[p] for p in parameters]
    return [1.0 / ((state["exp_avg_sq"] / factor).sqrt() + group["eps"]) for state in states]


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 30),
    beta=st.floats(0.5, 0.999),
    scale=st.floats(1e-3, 1e3),
    others=st.integers(0, 1000),
)
def test_any_gradient_is_multiplied_by_the_formula(
    steps: int, beta: float, scale: float, others: int
) -> None:
    parameters = weights()
    optimizer = torch.optim.Adam(parameters, LR, betas=(0.9, beta), weight_decay=0.1)
    for step in range(steps):
        stepped(optimizer, parameters, step)
    drawn = weights(others)
    tensors = {place: scale * each.detach() for place, each in enumerate(drawn)}
    expected = sum(
        float((p * tensors[place]).square().sum())
        for place, p in enumerate(explicit(optimizer, parameters, steps))
    )
    found = Preconditioner(optimizer, parameters).sqnorm(tensors)
    assert found is not None
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_the_state_is_left_as_it_is() -> None:
    parameters = weights()
    optimizer = torch.optim.Adam(parameters, LR, amsgrad=True)
    stepped(optimizer, parameters, 0)
    before = [
        value.clone() for state in optimizer.state.values() for value in state.values()
    ]  # fmt: skip
    grads = {place: each.clone() for place, each in gradients(parameters).items()}
    Preconditioner(optimizer, parameters).sqnorm(gradients(parameters))
    after = [value for state in optimizer.state.values() for value in state.values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(torch.equal(each, grads[place]) for place, each in gradients(parameters).items())


class Own(torch.optim.Adam):
    """A subclass may do anything."""


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, LR, momentum=0.9),
        lambda p: torch.optim.Adamax(p, LR),
        lambda p: torch.optim.Adadelta(p, LR),
        lambda p: Own(p, LR),
    ],
)
def test_others_have_no_name_and_no_norm(make: Callable[[Any], Optimizer]) -> None:
    parameters = weights()
    optimizer = make(parameters)
    stepped(optimizer, parameters, 0)
    preconditioner = Preconditioner(optimizer, parameters)
    assert preconditioner.name == ""
    assert preconditioner.sqnorm(gradients(parameters)) is None


@pytest.mark.parametrize("kind", FREE_OF_MOMENTUM)
def test_before_the_first_step_there_is_no_norm(kind: str) -> None:
    parameters = weights()
    optimizer = FREE_OF_MOMENTUM[kind](parameters)
    preconditioner = Preconditioner(optimizer, parameters)
    tensors = {place: torch.ones_like(p) for place, p in enumerate(parameters)}
    assert preconditioner.sqnorm(tensors) is None
    stepped(optimizer, parameters, 0)
    assert preconditioner.sqnorm(tensors) is not None
    assert not optimizer._optimizer_step_post_hooks or kind != "adagrad"


def test_a_parameter_without_a_state_yet_means_no_norm_and_one_the_optimizer_lacks_counts_zero() -> (
    None
):
    parameters = weights()
    optimizer = torch.optim.Adam(parameters[:3], LR)
    for p in parameters[:2]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    preconditioner = Preconditioner(optimizer, parameters)
    ones = {place: torch.ones_like(p) for place, p in enumerate(parameters)}
    assert preconditioner.sqnorm(ones) is None
    two = preconditioner.sqnorm({place: ones[place] for place in (0, 1)})
    three = preconditioner.sqnorm({place: ones[place] for place in (0, 1, 3)})
    assert two is not None
    assert three is not None
    assert float(two) == float(three)
    assert preconditioner.sqnorm({3: ones[3]}) is None


def test_sparse_gradients_have_no_norm() -> None:
    parameters = [torch.nn.Parameter(torch.ones(3))]
    optimizer = torch.optim.Adam(parameters, LR)
    parameters[0].grad = torch.ones(3)
    optimizer.step()
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[0]]), torch.ones(1), (3,), check_invariants=False
    )
    assert Preconditioner(optimizer, parameters).sqnorm({0: sparse}) is None


def test_groups_keep_their_own_constants_and_half_precision_is_widened() -> None:
    parameters = [
        torch.nn.Parameter(torch.ones(6, 2)),
        torch.nn.Parameter(torch.ones(5).bfloat16()),
    ]
    groups = [
        {"params": parameters[:1], "eps": 0.5, "betas": (0.9, 0.9)},
        {"params": parameters[1:], "eps": 0.25, "betas": (0.9, 0.99)},
    ]
    optimizer = torch.optim.AdamW(groups, LR)
    for p in parameters:
        p.grad = 2.0 * torch.ones_like(p)
    optimizer.step()
    found = Preconditioner(optimizer, parameters).sqnorm(gradients(parameters))
    assert found is not None
    assert float(found) == pytest.approx(12 * (2 / 2.5) ** 2 + 5 * (2 / 2.25) ** 2, rel=1e-2)


def test_little_memory_means_more_chunks_and_the_same_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parameters = weights()
    optimizer = torch.optim.RMSprop(parameters, LR, centered=True)
    stepped(optimizer, parameters, 0)
    stepped(optimizer, parameters, 1)
    preconditioner = Preconditioner(optimizer, parameters)
    whole = preconditioner.sqnorm(gradients(parameters))
    monkeypatch.setattr(module, "LARGEST_BYTES", 16)
    sizes: list[int] = []
    products = module._products

    def counted(chunk: Any) -> list[torch.Tensor]:
        sizes.append(sum(tensor.numel() for _, tensor in chunk))
        return products(chunk)

    monkeypatch.setattr(module, "_products", counted)
    torch.testing.assert_close(preconditioner.sqnorm(gradients(parameters)), whole)
    assert sum(sizes) == sum(p.numel() for p in parameters)
    assert max(sizes) == 9, "one slice of the largest tensor"


class NoReading(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises when the host asks for a number of a tensor, or a tensor goes to another device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.name().split("::")[1].split(".")[0], kwargs or {}
        moved = name == "_to_copy" and kwargs.get("device") is not None
        if moved or name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"):
            raise AssertionError(f"{func.name()} in a step that is measured")
        return func(*args, **kwargs)


@pytest.mark.parametrize("kind", FREE_OF_MOMENTUM)
def test_the_host_reads_nothing(kind: str) -> None:
    parameters = weights()
    optimizer = FREE_OF_MOMENTUM[kind](parameters)
    preconditioner = Preconditioner(optimizer, parameters)
    stepped(optimizer, parameters, 0)
    with NoReading():  # type: ignore[no-untyped-call]
        found = preconditioner.sqnorm(gradients(parameters))
    assert found is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"capturable": True}, {"fused": True}])
def test_on_a_gpu_nothing_waits_for_the_device(options: dict[str, bool]) -> None:
    parameters = [torch.nn.Parameter(p.detach().float().cuda()) for p in weights()]
    optimizer = torch.optim.Adam(parameters, LR, betas=(0.0, 0.9), **options)
    preconditioner = Preconditioner(optimizer, parameters)
    before = [p.detach().clone() for p in parameters]
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = preconditioner.sqnorm(gradients(parameters))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found is not None
    pairs = zip(parameters, before, strict=True)
    change = sum(float((p.detach() - old).square().sum()) for p, old in pairs)
    assert float(found) == pytest.approx(change / LR**2, rel=1e-2)
