"""Probes on a CUDA device: nothing moves there either, random numbers included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import TensorDataset

from workbench.adaptors.torch.probes import critical_batch, sharpness

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(8, 16),
        torch.nn.Tanh(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(16, 3),
    ]
    return torch.nn.Sequential(*layers).cuda()


def rows() -> TensorDataset:
    inputs = torch.randn(128, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


def test_both_probes_leave_the_device_as_it_was(kept: Callable[..., Callable[[], bool]]) -> None:
    model, data = network(), rows()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    as_before, drawn = kept(model, optimizer), torch.cuda.get_rng_state()
    measured = sharpness(model, F.cross_entropy, [data[:64], data[64:]])
    found = critical_batch(
        model, optimizer, data, F.cross_entropy, batch_size=8, held_out=data, repeats=2
    )
    assert as_before()
    assert torch.equal(torch.cuda.get_rng_state(), drawn)
    assert measured.signal().determined, measured.reason
    assert min(found.control_losses) < found.start_loss


def test_the_device_and_the_processor_find_the_same_sharpness() -> None:
    model, data = network().eval(), rows()
    there = sharpness(model, F.cross_entropy, [data[:]])
    here = sharpness(model.cpu(), F.cross_entropy, [data[:]])
    assert there.value == pytest.approx(here.value, rel=2e-3)
