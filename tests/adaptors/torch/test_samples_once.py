"""Promise 1: each epoch shows each sample exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from workbench import Keep, SetBatchSize, View
from workbench.decision import Decision


class Wander:
    """Changes the batch size at every step, up and down."""

    def decide(self, view: View) -> Decision:
        return SetBatchSize(1 + view.step * 7 % 40, reason="wander") if view.step % 2 else Keep()


def shown_by_epoch(ran: Any, count: int) -> list[list[int]]:
    shown = torch.cat(ran.batches).tolist()
    return [sorted(shown[at : at + count]) for at in range(0, len(shown), count)]


@pytest.mark.parametrize("count", [1, 2, 5, 16, 97, 103])
@pytest.mark.parametrize("largest", [None, 3])
def test_every_epoch_shows_every_sample_once(
    loop: Callable[..., Any], count: int, largest: int | None
) -> None:
    ran = loop(count=count, epochs=3, max_batch_size_per_worker=largest)
    assert shown_by_epoch(ran, count) == [list(range(count))] * 3
    assert ran.job.samples == 3 * count


@pytest.mark.parametrize("largest", [None, 4])
def test_changing_the_batch_size_loses_and_repeats_nothing(
    loop: Callable[..., Any], largest: int | None
) -> None:
    ran = loop(epochs=4, policies=[Wander()], max_batch_size_per_worker=largest)
    assert shown_by_epoch(ran, 103) == [list(range(103))] * 4
    sizes = {record.facts.batch_size_target for record in ran.tracker.records}
    assert len(sizes) > 5


def test_loading_ahead_in_processes_shows_the_same_batches(loop: Callable[..., Any]) -> None:
    here = loop(policies=[Wander()])
    ahead = loop(policies=[Wander()], num_workers=2)
    assert [batch.tolist() for batch in ahead.batches] == [batch.tolist() for batch in here.batches]
    assert all(map(torch.equal, here.weights, ahead.weights))


def test_epochs_are_permuted_differently_and_by_seed(loop: Callable[..., Any]) -> None:
    one, other = loop(epochs=2, seed=1), loop(epochs=2, seed=2)
    first = torch.cat(one.batches).tolist()
    assert first[:103] != first[103:]
    assert first != torch.cat(other.batches).tolist()
    assert torch.cat(loop(epochs=1, shuffle=False).batches).tolist() == list(range(103))


def test_a_map_style_dataset_of_any_kind_is_collated_as_a_data_loader_does(
    loop: Callable[..., Any],
    make_rows: Callable[..., Any],
) -> None:
    class Own(torch.utils.data.Dataset[Any]):
        whole = make_rows(50)

        def __len__(self) -> int:
            return 50

        def __getitem__(self, index: int) -> Any:
            return tuple(self.whole[index])

    own, tensors = loop(dataset=Own()), loop(count=50)
    assert all(map(torch.equal, own.weights, tensors.weights))


def test_breaking_out_of_an_epoch_goes_on_with_the_next(
    make_rows: Callable[..., Any], make_mlp: Callable[..., Any]
) -> None:
    from workbench.adaptors.torch import attach

    model = make_mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    job = attach(model, optimizer, make_rows(40), batch_size=10)
    numbers = []
    for epoch in job.epochs(3):
        numbers.append(epoch.number)
        for inputs, targets, _ in epoch:
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            break
    assert (numbers, job.step, job.samples) == ([0, 1, 2], 3, 30)
    job.close()
