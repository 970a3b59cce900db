"""Promise 5: monitoring alone changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from workbench.adaptors.torch import attach
from workbench.monitors import DEFAULT_MONITORS, MONITORS


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("largest", [None, 5])
def test_weights_are_bit_identical_with_and_without_monitors(
    loop: Callable[..., Any],
    make_mlp: Callable[..., Any],
    optimizer: Any,
    normalise: bool,
    largest: int | None,
) -> None:
    runs = [
        loop(
            model=make_mlp(3, normalise=normalise, dropout=0.3),
            optimizer=optimizer,
            monitors=monitors,
            measure_every=2,
            max_batch_size_per_worker=largest,
            clip=1.0,
        )
        for monitors in (DEFAULT_MONITORS, ())
    ]
    assert all(map(torch.equal, runs[0].weights, runs[1].weights))
    assert any(record.facts.splits for record in runs[0].tracker.records)
    assert not any(record.facts.splits for record in runs[1].tracker.records)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("largest", "adaptive"), [(None, False), (5, False), (None, True)])
def test_all_monitors_leave_200_steps_bit_identical(
    make_mlp: Callable[..., Any],
    make_rows: Callable[..., Any],
    precision: torch.dtype | None,
    scaled: bool,
    largest: int | None,
    adaptive: bool,
) -> None:
    """With momentum or AdamW, dropout, autocast, and a scaler that grows its factor and finds overflows."""

    def weights(monitors: tuple[str, ...]) -> tuple[int, list[torch.Tensor]]:
        model = make_mlp(3, dropout=0.3)
        optimizer = (
            torch.optim.AdamW(model.parameters(), lr=0.01)
            if adaptive
            else torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=20, enabled=scaled)
        job = attach(
            model,
            optimizer,
            make_rows(160),
            batch_size=16,
            measure_every=2,
            monitors=monitors,
            max_batch_size_per_worker=largest,
            steps_at_boundary=True,
            grad_scaler=scaler,
        )
        torch.manual_seed(7)
        for epoch in job.epochs(20):
            for inputs, targets, _ in epoch:
                with torch.autocast("cpu", precision or torch.bfloat16, enabled=bool(precision)):
                    loss = torch.nn.functional.cross_entropy(model(inputs), targets)
                if scaled and job.step % 50 == 30:
                    loss = loss * float("inf")
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                if job.at_boundary:
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
        job.close()
        return job.step, list(model.state_dict().values())

    plain, watched = weights(()), weights(tuple(MONITORS))
    assert plain[0] == watched[0] == 200
    assert all(weight.isfinite().all() for weight in plain[1])
    assert all(map(torch.equal, plain[1], watched[1]))


def test_an_attached_loop_gives_the_weights_of_a_plain_loop(
    loop: Callable[..., Any], make_rows: Callable[..., Any], make_mlp: Callable[..., Any]
) -> None:
    from workbench.adaptors.torch.sampling import permutation

    model = make_mlp()
    dataset = make_rows(64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for epoch in range(2):
        order = torch.as_tensor(permutation(64, seed=0, epoch=epoch))
        for chosen in torch.split(order, 16):
            inputs, targets, _ = dataset[chosen]
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    ran = loop(count=64, optimizer=torch.optim.AdamW, measure_every=1)
    assert all(map(torch.equal, ran.weights, list(model.state_dict().values())))


def test_closing_a_job_removes_every_hook(
    loop: Callable[..., Any], make_rows: Callable[..., Any]
) -> None:
    ran = loop()
    ran.job.close()
    before = ran.job.step
    inputs, targets, _ = make_rows(8)[:]
    torch.nn.functional.cross_entropy(ran.model(inputs), targets).backward()  # type: ignore[no-untyped-call]
    ran.optimizer.step()
    assert ran.job.step == before
    assert not ran.model._forward_hooks
    assert not ran.optimizer._optimizer_step_pre_hooks
