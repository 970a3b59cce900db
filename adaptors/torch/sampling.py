"""Samples of a dataset in the order of a seeded permutation, one index list at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from workbench.errors import ConfigurationError

Collate = Callable[[list[Any]], Any]


def permutation(size: int, *, seed: int, epoch: int, shuffle: bool = True) -> list[int]:
    """Return the order in which epoch ``epoch`` shows its ``size`` samples.

    The same for every worker; another one for each epoch and seed.

    Example:
        >>> sorted(permutation(5, seed=0, epoch=3))
        [0, 1, 2, 3, 4]
    """
    if not shuffle:
        return list(range(size))
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return order


def dataset_length(dataset: Any) -> int:
    """Return the number of samples.

    Raises:
        ConfigurationError: The dataset has no length, cannot be indexed, or is empty.

    Example:
        >>> dataset_length([1, 2, 3])
        3
    """
    if isinstance(dataset, DataLoader):
        raise ConfigurationError(
            "dataset is a DataLoader; allowed: its dataset, since the batch size will change; "
            "give loader.dataset, and num_workers or collate_fn to attach()"
        )
    indexable = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, IterableDataset) or not indexable:
        raise ConfigurationError(
            f"dataset is a {type(dataset).__name__} without length and indexing; allowed: a map-style "
            "dataset, so that each epoch can show each sample once; add __len__ and __getitem__"
        )
    length = len(dataset)
    if length < 1:
        raise ConfigurationError(
            "dataset is empty; allowed: 1 sample or more; check how it was loaded"
        )
    return length


class Samples:
    """Batches of a dataset by index list; with ``num_workers``, loaded ahead by processes.

    What was loaded ahead is only a cache: when the plan changes, :meth:`stream` is called anew with
    the new index lists, and nothing is lost or shown twice.

    Example:
        >>> samples = Samples([10, 20, 30])
        >>> list(samples.stream([[2, 0], [1]]))
        [tensor([30, 10]), tensor([20])]
    """

    def __init__(
        self,
        dataset: Any,
        *,
        collate_fn: Collate | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._dataset = dataset
        self._whole = isinstance(dataset, TensorDataset) and collate_fn is None
        self._collate = collate_fn or default_collate
        self._plan = _Plan()
        self._loader: DataLoader[Any] | None = None
        if num_workers > 0:
            self._loader = DataLoader(
                dataset,
                batch_sampler=self._plan,
                num_workers=num_workers,
                collate_fn=collate_fn,
                pin_memory=pin_memory,
                persistent_workers=True,
            )

    def stream(self, index_lists: Iterable[Sequence[int]]) -> Iterator[Any]:
        """Yield one batch for each index list."""
        if self._loader is not None:
            self._plan.index_lists = index_lists
            yield from self._loader
            return
        for indices in index_lists:
            yield self._fetch(indices)

    def close(self) -> None:
        """End the processes that load ahead."""
        self._loader = None

    def _fetch(self, indices: Sequence[int]) -> Any:
        if self._whole:
            return list(self._dataset[torch.as_tensor(indices)])
        if hasattr(self._dataset, "__getitems__"):
            return self._collate(self._dataset.__getitems__(list(indices)))
        return self._collate([self._dataset[index] for index in indices])


class _Plan:
    """The index lists that the loader's next pass will ask for."""

    def __init__(self) -> None:
        self.index_lists: Iterable[Sequence[int]] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (list(indices) for indices in self.index_lists)
