"""On a GPU: the same facts as on the CPU, read a step later."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from workbench.adaptors.torch import attach
from workbench.testing import MemoryTracker

pytestmark = pytest.mark.gpu


def run(device: str, make_mlp: Any, dataset: Any) -> MemoryTracker:
    model, tracker = make_mlp().to(device), MemoryTracker()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with attach(
        model, optimizer, dataset, batch_size=16, measure_every=2, trackers=[tracker]
    ) as job:
        for epoch in job.epochs(2):
            for inputs, targets, _ in epoch:
                loss = F.cross_entropy(model(inputs.to(device)), targets.to(device))
                job.observe(loss=loss)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
    return tracker


def test_a_gpu_measures_what_the_cpu_does(make_mlp: Any, make_rows: Any) -> None:
    dataset = make_rows(103)
    on_cpu, on_gpu = (run(device, make_mlp, dataset).records for device in ("cpu", "cuda"))
    assert len(on_gpu) == len(on_cpu) == 14
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert other.facts.loss == pytest.approx(one.facts.loss, rel=1e-3)
        assert other.facts.grad_sqnorm_big == pytest.approx(one.facts.grad_sqnorm_big, rel=1e-2)
        assert other.facts.grad_sqnorm_small == pytest.approx(one.facts.grad_sqnorm_small, rel=1e-2)


def test_no_number_is_read_in_the_step_that_measured_it(make_mlp: Any, make_rows: Any) -> None:
    """CUDA's own check raises where the host waits for the device; only the late read may."""
    model = make_mlp().to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    job = attach(model, optimizer, make_rows(64), batch_size=16, read_lag=1000)
    batches = [(x.to("cuda"), y.to("cuda")) for x, y, _ in [make_rows(16)[:]]]
    seen = 0
    for epoch in job.epochs(1):
        for _ in epoch:
            torch.cuda.set_sync_debug_mode("error")
            try:
                F.cross_entropy(model(batches[0][0]), batches[0][1]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
                seen += 1
            finally:
                torch.cuda.set_sync_debug_mode("default")
    job.close()
    assert seen == 4
