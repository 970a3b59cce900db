"""Loops that do what a measuring job would rather they did not."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from workbench import StepFacts
from workbench.adaptors.torch import Job, attach
from workbench.adaptors.torch.launch import run_script
from workbench.errors import ConfigurationError, StageError
from workbench.monitors import MONITORS
from workbench.testing import MemoryTracker

SCRIPT = Path(__file__).parent / "scripts" / "adversary.py"


@pytest.fixture
def started(
    make_mlp: Callable[..., Any], make_rows: Callable[..., Any]
) -> Callable[..., tuple[Job, Any, torch.optim.Optimizer, MemoryTracker]]:
    """A job whose loop the test writes itself."""

    def start(
        *, model: Any = None, lr: float = 0.1, count: int = 96, **options: Any
    ) -> tuple[Job, Any, torch.optim.Optimizer, MemoryTracker]:
        model = make_mlp() if model is None else model
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        tracker = MemoryTracker()
        options = {"batch_size": 16, "measure_every": 1, "shuffle": False} | options
        job = attach(model, optimizer, make_rows(count), trackers=[tracker], **options)
        return job, model, optimizer, tracker

    return start


def facts_of(tracker: MemoryTracker) -> list[StepFacts]:
    return [record.facts for record in tracker.records]


@pytest.mark.parametrize("largest", [None, 8])
def test_norms_are_those_of_the_scale_in_force_although_the_loop_updates_it(
    started: Callable[..., Any], largest: int | None
) -> None:
    def norms(growth_interval: int) -> list[float | None]:
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=growth_interval)
        job, model, optimizer, tracker = started(
            lr=0.0,
            grad_scaler=scaler,
            max_batch_size_per_worker=largest,
            steps_at_boundary=True,
            monitors=["noise_scale"],
        )
        for epoch in job.epochs(1):
            for inputs, targets, _ in epoch:
                loss = F.cross_entropy(model(inputs), targets)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                if job.at_boundary:
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
        job.close()
        return [facts.grad_sqnorm_big for facts in facts_of(tracker)]

    fixed = norms(growth_interval=1000)
    assert len(fixed) == 6
    assert norms(growth_interval=1) == pytest.approx(fixed, rel=1e-5)


def test_a_step_that_the_loop_breaks_off_leaves_nothing_for_the_next(
    started: Callable[..., Any],
) -> None:
    def run(*, broken_off: bool) -> tuple[list[torch.Tensor], list[Any]]:
        job, model, optimizer, tracker = started(
            max_batch_size_per_worker=8, monitors=["noise_scale"]
        )
        for epoch in job.epochs(2):
            for inputs, targets, _ in epoch:
                if epoch.number == 1 or broken_off:
                    loss = F.cross_entropy(model(inputs), targets)
                    job.observe(loss=loss)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    optimizer.zero_grad()
                if epoch.number == 0:
                    break
        job.close()
        facts = facts_of(tracker)
        numbers = [(one.loss, one.grad_sqnorm_small, one.grad_sqnorm_big) for one in facts]
        return list(model.state_dict().values()), numbers

    whole, broken = run(broken_off=False), run(broken_off=True)
    assert all(map(torch.equal, whole[0], broken[0]))
    assert whole[1] == broken[1]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_second_backward_pass_makes_the_norms_of_a_step_undetermined_not_wrong(
    started: Callable[..., Any], set_to_none: bool
) -> None:
    job, model, optimizer, tracker = started(monitors=["noise_scale"])
    for epoch in job.epochs(1):
        for inputs, targets, _ in epoch:
            for _ in range(1 + (job.step == 3)):
                F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
    job.close()
    facts = facts_of(tracker)
    assert [one.grad_sqnorm_big is None for one in facts] == [at == 3 for at in range(6)]
    assert all(one.grad_sqnorm_big is None or one.grad_sqnorm_big > 0.01 for one in facts)


class TwoHeads(torch.nn.Module):
    """Returns two outputs; the loss uses the first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.other = (torch.nn.Linear(8, n) for n in (8, 3, 2))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.body(inputs))
        return self.head(hidden), self.other(hidden)


def clipped_norms(
    started: Callable[..., Any], clip: float, *, told: bool, **options: Any
) -> list[float | None]:
    job, model, optimizer, tracker = started(
        model=TwoHeads(), lr=0.0, monitors=["noise_scale"], **options
    )
    for epoch in job.epochs(1):
        for inputs, targets, _ in epoch:
            loss = F.cross_entropy(model(inputs)[0], targets)
            if told:
                job.observe(loss=loss)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    job.close()
    return [facts.grad_sqnorm_big for facts in facts_of(tracker)]


@pytest.mark.parametrize("largest", [None, 8])
def test_norms_are_taken_before_the_loop_clips_although_an_output_is_unused(
    started: Callable[..., Any], largest: int | None
) -> None:
    free = clipped_norms(started, 1e9, told=True, max_batch_size_per_worker=largest)
    tight = clipped_norms(started, 1e-3, told=True, max_batch_size_per_worker=largest)
    assert tight == pytest.approx(free, rel=1e-6)
    assert all(norm and norm > 0.01 for norm in tight)


def test_an_unused_output_of_a_loss_that_was_not_told_leaves_norms_unknown(
    started: Callable[..., Any],
) -> None:
    assert set(clipped_norms(started, 1e-3, told=False)) == {None}


def test_an_unused_output_of_a_loss_that_was_not_told_is_refused_where_weights_depend_on_it(
    started: Callable[..., Any],
) -> None:
    with pytest.raises(ConfigurationError, match=r"call job\.observe\(loss=loss\)"):
        clipped_norms(started, 1e-3, told=False, max_batch_size_per_worker=8)


@pytest.mark.parametrize("largest", [None, 8])
def test_a_parameter_that_the_job_does_not_know_is_refused_before_it_is_trained(
    started: Callable[..., Any], make_mlp: Callable[..., Any], largest: int | None
) -> None:
    for how, told in (("thawed", "frozen at attach"), ("added", "does not know")):
        model = make_mlp()
        model[0].requires_grad_(how != "thawed")
        job, model, optimizer, _ = started(model=model, max_batch_size_per_worker=largest)
        before = [weight.clone() for weight in model.state_dict().values()]
        with pytest.raises(ConfigurationError, match=told):
            for epoch in job.epochs(1):
                for inputs, targets, _ in epoch:
                    if how == "thawed":
                        model[0].requires_grad_()
                    else:
                        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
                    F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        assert all(map(torch.equal, before, model.state_dict().values()))
        job.close()


def test_parameters_frozen_and_thawed_again_after_attach_are_trained_and_measured(
    started: Callable[..., Any],
) -> None:
    job, model, optimizer, tracker = started(monitors=["noise_scale"])
    for epoch in job.epochs(1):
        for inputs, targets, _ in epoch:
            model[0].requires_grad_(job.step not in (2, 3))
            before = model[0].weight.detach().clone()
            F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            assert torch.equal(before, model[0].weight) == (job.step in (2, 3))
    job.close()
    norms = [facts.grad_sqnorm_big or 0.0 for facts in facts_of(tracker)]
    assert max(norms[2:4]) < min(*norms[:2], *norms[4:])


@pytest.mark.parametrize("saved_at", range(1, 6))
def test_saving_loses_no_check_of_the_way_to_measure(
    started: Callable[..., Any], saved_at: int
) -> None:
    def origins(*, saves: bool) -> list[str]:
        job, model, optimizer, tracker = started(
            count=160, read_lag=2, measure_every=4, monitors=["noise_scale"]
        )
        for epoch in job.epochs(1):
            for inputs, targets, _ in epoch:
                if saves and job.step == saved_at:
                    job.state_dict()
                F.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()
        job.close()
        return [facts.origin for facts in facts_of(tracker)]

    assert origins(saves=True) == origins(saves=False)
    assert "per-example" in origins(saves=True)


def workers(folder: Path, workers: int, **options: Any) -> list[dict[str, Any]]:
    """Run the adversary's loop; return what each rank told."""
    run_script(SCRIPT, [json.dumps(options)], workers=workers, folder=folder)
    return [json.loads((folder / f"told-{rank}.json").read_text()) for rank in range(workers)]


def test_clipping_is_exact_on_two_workers_although_an_output_is_unused(tmp_path: Path) -> None:
    (one,) = workers(tmp_path / "1", 1, clip=0.05, clip_from=0)
    two, other = workers(tmp_path / "2", 2, clip=0.05, clip_from=0)
    assert two["weights"] == other["weights"]
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-5)


@pytest.mark.parametrize("who", [pytest.param(0, marks=pytest.mark.campaign), 1])
def test_an_overflow_on_one_worker_makes_all_skip_from_the_first_step_on(
    tmp_path: Path, who: int
) -> None:
    told = workers(tmp_path, 2, scaler=True, overflows={"rank": who, "steps": [0, 1, 5, 11]})
    assert told[0]["weights"] == told[1]["weights"]
    assert [at for at, skipped in enumerate(told[0]["skipped"]) if skipped] == [0, 1, 5, 11]


@pytest.mark.parametrize("who", [pytest.param(0, marks=pytest.mark.campaign), 1])
def test_a_job_closed_because_of_an_exception_does_not_wait_for_the_others(
    tmp_path: Path, who: int
) -> None:
    with pytest.raises(StageError, match=f"rank {who} failed: KeyError: 'mine'"):
        workers(tmp_path, 2, raises={"rank": who, "step": 4})


@pytest.mark.campaign
def test_numbers_are_whole_when_all_ranks_save_and_flush_within_a_step(tmp_path: Path) -> None:
    plain, _ = workers(tmp_path / "plain", 2)
    halted, _ = workers(tmp_path / "halted", 2, saves=[1, 2, 7], flushes=[1, 5, 6])
    assert plain["weights"] == halted["weights"]
    for one, other in zip(plain["facts"], halted["facts"], strict=True):
        assert [number is None for number in one] == [number is None for number in other]
        # Riders are single precision, what is flushed is double.
        assert [number or 0 for number in one] == pytest.approx([number or 0 for number in other])
    assert len(plain["facts"]) == 12


@pytest.mark.parametrize(
    ("how", "rows"), [("split", {2}), ("auto", {2, 16}), ("micro-batches", {2})]
)
def test_a_model_is_copied_and_saved_without_the_job_that_watches_it(
    started: Callable[..., Any], tmp_path: Path, how: str, rows: set[int]
) -> None:
    apart: dict[str, Any] = {"single_worker": how}
    if how == "micro-batches":
        apart = {"max_batch_size_per_worker": 8}
    job, model, optimizer, tracker = started(monitors=["noise_scale", "throughput"], **apart)
    for epoch in job.epochs(1):
        for inputs, targets, _ in epoch:
            torch.save(model, tmp_path / "model.pt")
            others = [deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)]
            loss = F.cross_entropy(model(inputs), targets)
            for other in others:
                assert torch.equal(F.cross_entropy(other(inputs), targets), loss)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    job.close()
    assert {facts.small_batches for facts in facts_of(tracker)} == rows


@pytest.mark.campaign
def test_all_monitors_leave_200_steps_of_two_workers_bit_identical(tmp_path: Path) -> None:
    plain = workers(tmp_path / "plain", 2, epochs=34, monitors=[])
    watched = workers(tmp_path / "watched", 2, epochs=34, monitors=list(MONITORS))
    assert len(plain[0]["facts"]) == 204
    assert plain[0]["weights"] == plain[1]["weights"] == watched[0]["weights"]
    assert watched[0]["weights"] == watched[1]["weights"]
