"""What cannot work is refused with one line: what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from workbench.adaptors.torch import attach
from workbench.adaptors.torch.contract import read_contract
from workbench.errors import ConfigurationError

LAYER = torch.nn.Linear(2, 1)
SGD = torch.optim.SGD(LAYER.parameters(), lr=0.1)
DATA = TensorDataset(torch.randn(8, 2))


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def frozen() -> torch.nn.Module:
    return torch.nn.Linear(2, 1).requires_grad_(False)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (("model", SGD, DATA), {}, "torch.nn.Module"),
        ((torch.nn.DataParallel(LAYER), SGD, DATA), {}, "give model.module"),
        ((LAYER, "sgd", DATA), {}, "torch.optim.Optimizer"),
        ((LAYER, torch.optim.LBFGS(LAYER.parameters()), DATA), {}, "LBFGS"),
        ((frozen(), SGD, DATA), {}, "unfreeze a layer"),
        ((LAYER, SGD, DataLoader(DATA)), {}, "give loader.dataset"),
        ((LAYER, SGD, Stream()), {}, "map-style"),
        ((LAYER, SGD, []), {}, "dataset is empty"),
        (
            (LAYER, SGD, DATA),
            {"batch_size": 0},
            "batch_size is 0; allowed: a whole number, 1 or more",
        ),
        ((LAYER, SGD, DATA), {"batch_size": 2.5}, "batch_size is 2.5"),
        ((LAYER, SGD, DATA), {"max_batch_size_per_worker": 0}, "max_batch_size_per_worker is 0"),
        ((LAYER, SGD, DATA), {"learning_rate_rule": "cubic"}, "none, linear, square_root"),
        ((LAYER, SGD, DATA), {"monitors": ["noise"]}, "noise_scale"),
        ((LAYER, SGD, DATA), {"measure_every": -1}, "measure_every is -1"),
    ],
)
def test_impossible_arguments_get_one_clear_line(
    given: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        attach(*given, **{"batch_size": 4, **options})
    line = str(caught.value)
    assert message in line
    assert "\n" not in line
    assert "allowed" in line or "empty" in line


def test_epochs_below_one_are_refused() -> None:
    job = attach(LAYER, SGD, DATA, batch_size=4)
    with pytest.raises(ConfigurationError, match="epochs is 0"):
        next(job.epochs(0))
    job.close()


@pytest.mark.parametrize("loss", [torch.zeros(3), 0.5])
def test_a_loss_that_is_not_one_number_is_refused(loss: Any) -> None:
    job = attach(LAYER, SGD, DATA, batch_size=4)
    with pytest.raises(ConfigurationError, match="one number"):
        job.observe(loss=loss)
    job.close()


@pytest.mark.parametrize(
    "environment",
    [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}, {"RANK": "-1"}, {"WORLD_SIZE": "two"}],
)
def test_a_launch_contract_that_no_launcher_writes_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="allowed"):
        read_contract(environment)


def test_the_launch_contract_is_read_whole() -> None:
    contract = read_contract(
        {
            "RANK": "1",
            "WORLD_SIZE": "3",
            "WB_FOLDER": "job",
            "WB_PARENT": "12",
            "WB_POLICIES": '[{"name": "a:B", "options": {"c": 1}}]',
        }
    )
    assert (contract.rank, contract.workers, contract.local_rank, contract.parent) == (1, 3, 1, 12)
    assert contract.policies == ({"name": "a:B", "options": {"c": 1}},)
