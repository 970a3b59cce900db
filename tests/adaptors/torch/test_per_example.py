"""Per-example norms agree with gradients taken sample by sample, layer by layer and net by net."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F  # noqa: N812

from workbench.adaptors.torch.per_example import NORMALISERS, PerExample, pairs

Loss = Callable[[torch.Tensor], torch.Tensor]


def energy(output: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient differs in every element of every row."""
    weights = torch.linspace(-1.0, 2.0, output[0].numel(), dtype=output.dtype, device=output.device)
    flat = output.flatten(1)
    return (weights * flat + 0.3 * flat.square()).sum(1).mean()


def measured(
    model: nn.Module, inputs: torch.Tensor, loss: Loss = energy
) -> tuple[PerExample, torch.Tensor]:
    """Return per-example norms and their mean from one checked step of ``model``."""
    per_example = PerExample(model, [p for p in model.parameters() if p.requires_grad])
    model.zero_grad()
    per_example.arm(len(inputs), check=True)
    loss(model(inputs)).backward()  # type: ignore[no-untyped-call]
    value = per_example.collect()
    assert per_example.refusal == ""
    assert value is not None
    assert per_example.sqnorms is not None
    assert per_example.mismatch is not None
    single = inputs.dtype == torch.float32 or not inputs.is_floating_point()
    assert float(per_example.mismatch) < (1e-10 if single else 1e-20)
    return per_example, value


def reference(
    model: nn.Module,
    inputs: torch.Tensor,
    loss: Loss = energy,
    places: frozenset[int] | None = None,
) -> torch.Tensor:
    """Return ``|g_i|^2`` from ``torch.func``: each sample's gradient on its own."""
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}

    def of_one(values: dict[str, torch.Tensor], one: torch.Tensor) -> torch.Tensor:
        return loss(functional_call(model, {**values, **frozen}, (one.unsqueeze(0),)))

    each = vmap(grad(of_one), in_dims=(None, 0))(parameters, inputs)
    kept = [g for place, g in enumerate(each.values()) if places is None or place in places]
    return torch.stack([g.flatten(1).square().sum(1) for g in kept]).sum(0)


def agree(model: nn.Module, inputs: torch.Tensor, loss: Loss = energy, rtol: float = 1e-6) -> None:
    model = model.double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    per_example, value = measured(model, inputs, loss)
    assert per_example.complete
    expected = reference(model, inputs, loss)
    torch.testing.assert_close(per_example.sqnorms, expected, rtol=rtol, atol=1e-12)
    torch.testing.assert_close(value, expected.mean(), rtol=rtol, atol=1e-12)


# Layer by layer ------------------------------------------------------------------------------------

sizes = st.integers(1, 5)
yes_or_no = st.booleans()
few = settings(max_examples=25, deadline=None)


@few
@given(rows=sizes, fan_in=sizes, fan_out=sizes, bias=yes_or_no, middle=st.lists(sizes, max_size=2))
def test_a_linear_layer(
    rows: int, fan_in: int, fan_out: int, bias: bool, middle: list[int]
) -> None:
    torch.manual_seed(0)
    agree(nn.Linear(fan_in, fan_out, bias=bias), torch.randn(rows, *middle, fan_in))


@pytest.mark.parametrize("terms", [3, 40])
def test_a_linear_layer_on_sequences_both_ways_of_taking_the_norm(terms: int) -> None:
    """Three positions of 16 features go by dot products, 40 by the products themselves."""
    torch.manual_seed(0)
    agree(nn.Linear(16, 16), torch.randn(4, terms, 16))


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@few
@given(
    rows=sizes,
    groups=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, "same", "valid"]),
    bias=yes_or_no,
    plane=yes_or_no,
)
def test_a_convolution(
    rows: int,
    groups: int,
    channels: tuple[int, int],
    kernel: int,
    stride: int,
    dilation: int,
    padding: int | str,
    bias: bool,
    plane: bool,
) -> None:
    torch.manual_seed(0)
    kind: type[nn.Conv1d | nn.Conv2d] = nn.Conv2d if plane else nn.Conv1d
    layer = kind(
        channels[0] * groups,
        channels[1] * groups,
        kernel,
        stride=1 if padding == "same" else stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )
    agree(layer, torch.randn(rows, channels[0] * groups, *(7, 6)[2 - (1 + plane) :]))


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
def test_a_convolution_with_an_oblong_kernel_and_an_even_one_padded_to_the_same_size() -> None:
    torch.manual_seed(0)
    agree(nn.Conv2d(2, 3, (1, 4), padding=(0, 2), dilation=(1, 2)), torch.randn(3, 2, 5, 9))
    agree(nn.Conv2d(2, 3, (4, 2), padding="same"), torch.randn(3, 2, 5, 9))


def test_a_depthwise_convolution_and_few_positions_of_many_channels() -> None:
    torch.manual_seed(0)
    agree(nn.Conv2d(6, 6, 3, groups=6, padding=1), torch.randn(3, 6, 4, 4))
    agree(nn.Conv2d(16, 24, 2), torch.randn(3, 16, 3, 3))


@few
@given(rows=sizes, middle=st.lists(sizes, max_size=2), width=st.integers(2, 6), bias=yes_or_no)
def test_layer_norm_and_rms_norm(rows: int, middle: list[int], width: int, bias: bool) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(rows, *middle, width)
    for layer in (nn.LayerNorm(width, bias=bias), nn.RMSNorm(width)):
        nn.init.normal_(layer.weight)
        agree(layer, inputs)


def test_layer_norm_over_two_dimensions() -> None:
    torch.manual_seed(0)
    agree(nn.LayerNorm((4, 3)), torch.randn(5, 2, 4, 3))


@few
@given(rows=sizes, groups=st.integers(1, 3), image=st.lists(st.integers(2, 4), max_size=2))
def test_group_norm(rows: int, groups: int, image: list[int]) -> None:
    torch.manual_seed(0)
    agree(nn.GroupNorm(groups, 2 * groups), torch.randn(rows, 2 * groups, *image))


@few
@given(
    indices=st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=5),
    padding=st.sampled_from([None, 0, -1]),
)
def test_an_embedding_counts_an_index_that_comes_twice(
    indices: list[list[int]], padding: int | None
) -> None:
    torch.manual_seed(0)
    agree(nn.Embedding(5, 3, padding_idx=padding), torch.tensor(indices))


def test_an_embedding_of_one_index_a_row() -> None:
    torch.manual_seed(0)
    agree(nn.Embedding(5, 3, padding_idx=1), torch.tensor([0, 1, 4, 4]))


def test_little_memory_means_more_chunks_and_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With four bytes allowed, every row and every position goes alone."""
    monkeypatch.setattr(pairs, "LARGEST_BYTES", 4)
    monkeypatch.setattr("workbench.adaptors.torch.per_example.embedding.LARGEST_BYTES", 4)
    torch.manual_seed(0)
    assert len(list(pairs.chunks(5, 10, 4))) == 5
    agree(nn.Linear(16, 16), torch.randn(5, 3, 16))
    agree(nn.Linear(4, 4), torch.randn(5, 9, 4))
    agree(nn.Conv2d(2, 4, 3, groups=2), torch.randn(5, 2, 6, 6))
    agree(nn.LayerNorm(4), torch.randn(5, 3, 4))
    agree(nn.Embedding(4, 3), torch.randint(0, 4, (5, 7)))


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Linear(4, 3), (5, 4)),
        (lambda: nn.Linear(4, 3), (5, 2, 4)),
        (lambda: nn.Conv1d(4, 3, 2), (5, 4, 6)),
        (lambda: nn.LayerNorm(4), (5, 2, 4)),
        (lambda: nn.GroupNorm(2, 4), (5, 4, 3)),
    ],
)
def test_a_frozen_parameter_has_no_part_in_it(
    make: Callable[[], nn.Module], shape: tuple[int, ...], frozen: str
) -> None:
    torch.manual_seed(0)
    layer = make()
    getattr(layer, frozen).requires_grad_(False)
    agree(layer, torch.randn(shape))


# Whole nets ----------------------------------------------------------------------------------------


class LanguageModel(nn.Module):
    """Embedding, blocks of a transformer, a head: batch first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.norm = nn.RMSNorm(8)
        self.mix = nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(tokens)
        scores = hidden @ self.mix(hidden).transpose(1, 2)
        hidden = hidden + scores.softmax(-1) @ hidden
        hidden = hidden + self.down(F.gelu(self.up(self.norm(hidden))))
        logits: torch.Tensor = self.head(hidden)
        return logits


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, groups=4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(8 * 9, 5),
    )


def test_a_multilayer_perceptron_a_small_cnn_and_a_language_model() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 9), nn.Tanh(), nn.LayerNorm(9), nn.Linear(9, 4)]
    agree(nn.Sequential(*layers), torch.randn(7, 6))
    agree(cnn(), torch.randn(4, 3, 8, 8))
    agree(LanguageModel(), torch.randint(0, 11, (4, 6)))


def test_a_cross_entropy_over_rows() -> None:
    torch.manual_seed(0)
    model, inputs = (
        nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)).double(),
        torch.randn(7, 6),
    )
    agree(model, inputs, lambda out: F.cross_entropy(out, torch.full((len(out),), 2)))


def test_a_transformer_encoder_is_covered_but_for_its_attention() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    inputs = torch.randn(5, 4, 8).double()
    per_example, _ = measured(model, inputs)
    names = [name for name, _ in model.named_parameters()]
    left_out = {name for place, name in enumerate(names) if place not in per_example.covered}
    assert left_out == {name for name in names if name.startswith("self_attn")}
    assert not per_example.complete
    expected = torch.zeros(5, dtype=torch.float64)
    for row in range(5):  # attention has no rule for vmap
        model.zero_grad()
        energy(model(inputs[row : row + 1])).backward()  # type: ignore[no-untyped-call]
        for place, parameter in enumerate(model.parameters()):
            if place in per_example.covered:
                assert parameter.grad is not None
                expected[row] += parameter.grad.square().sum()
    torch.testing.assert_close(per_example.sqnorms, expected, rtol=1e-6, atol=0.0)


def test_single_precision_and_dropout() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Dropout(0.5), nn.Linear(30, 4))
    inputs = torch.randn(16, 20)
    seen: list[torch.Tensor] = []
    handle = model[1].register_forward_hook(lambda _, i, o: seen.append(o.detach() / i[0].detach()))
    per_example, _ = measured(model, inputs)
    handle.remove()
    expected = torch.zeros(16, dtype=torch.float64)
    for row in range(16):
        model.zero_grad()
        energy(model[2](model[0](inputs[row : row + 1]) * seen[0][row])).backward()  # type: ignore[no-untyped-call]
        expected[row] = sum(
            float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None
        )
    torch.testing.assert_close(per_example.sqnorms, expected, rtol=1e-4, atol=0.0)


def test_autocast_measures_what_the_layers_saw() -> None:
    """The parts in bfloat16 agree with those of rounded inputs and weights, to bfloat16's digits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.LayerNorm(30), nn.Linear(30, 4))
    inputs = torch.randn(16, 20)
    per_example = PerExample(model, list(model.parameters()))
    per_example.arm(16, check=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = energy(model(inputs).float())
        loss.backward()  # type: ignore[no-untyped-call]
    assert per_example.collect() is not None
    assert per_example.sqnorms is not None
    assert per_example.mismatch is not None
    assert float(per_example.mismatch) < 1e-4
    torch.testing.assert_close(
        per_example.sqnorms.float(), reference(model, inputs), rtol=0.05, atol=0.0
    )


def test_weights_are_bit_identical_with_and_without() -> None:
    def trained(measure: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(cnn(), nn.Dropout(0.3), nn.Linear(5, 3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        per_example = PerExample(model, list(model.parameters()))
        for step in range(12):
            inputs = torch.randn(4, 3, 8, 8)
            if measure and step % 2:
                per_example.arm(4, check=step % 3 == 0)
            energy(model(inputs)).backward()  # type: ignore[no-untyped-call]
            if measure:
                assert (per_example.collect() is not None) == bool(step % 2)
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach() for p in model.parameters()]

    for one, other in zip(trained(True), trained(False), strict=True):
        assert torch.equal(one, other)


@few
@given(scale=st.floats(0.01, 100.0), order=st.permutations(range(6)))
def test_the_loss_times_c_gives_c_squared_and_the_order_of_samples_gives_nothing(
    scale: float, order: list[int]
) -> None:
    torch.manual_seed(0)
    model, inputs = (
        nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).double(),
        torch.randn(6, 5),
    )
    plain, value = measured(model, inputs.double())
    moved, other = measured(model, inputs[order].double(), lambda out: scale * energy(out))
    assert plain.sqnorms is not None
    torch.testing.assert_close(other, scale**2 * value)
    torch.testing.assert_close(moved.sqnorms, scale**2 * plain.sqnorms[order])


def test_layers_of_some_kinds_alone_are_measured_as_part_of_the_whole() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 9), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, 4)]
    model, inputs = nn.Sequential(*layers).double(), torch.randn(7, 6).double()
    per_example = PerExample(model, list(model.parameters()), kinds=NORMALISERS)
    assert per_example.covered == {2, 3}
    per_example.arm(7)
    energy(model(inputs)).backward()  # type: ignore[no-untyped-call]
    assert per_example.collect() is not None
    expected = reference(model, inputs, places=per_example.covered)
    torch.testing.assert_close(per_example.sqnorms, expected, rtol=1e-6, atol=0.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_nothing_waits_for_the_device() -> None:
    torch.manual_seed(0)
    model = LanguageModel().double()
    tokens = torch.randint(0, 11, (4, 6))
    expected = reference(model, tokens)
    model, tokens = model.cuda(), tokens.cuda()
    per_example = PerExample(model, list(model.parameters()))
    torch.cuda.set_sync_debug_mode("error")
    try:
        per_example.arm(4, check=True)
        energy(model(tokens)).backward()  # type: ignore[no-untyped-call]
        value = per_example.collect()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert value is not None
    assert per_example.sqnorms is not None
    torch.testing.assert_close(per_example.sqnorms.cpu(), expected, rtol=1e-6, atol=0.0)
