"""Random numbers of a probe: seeded inside, and afterwards as if nothing had been drawn."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def own_random_numbers(model: torch.nn.Module) -> Iterator[Callable[[int], None]]:
    """Yield a function that seeds all generators; put their states back at the end.

    Covers the default generators of torch (CPU, and every device that the model or CUDA uses), of
    Python's ``random`` and, if it is loaded, of NumPy. A generator that a dataset keeps for itself
    is not seen.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> before = torch.get_rng_state()
        >>> with own_random_numbers(model) as seed_all:
        ...     seed_all(3)
        ...     number = torch.rand(())
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    devices = _devices(model)
    numpy: Any = sys.modules.get("numpy")
    states = [(device, _state(device)) for device in devices]
    cpu, python = torch.get_rng_state(), random.getstate()
    numbers = None if numpy is None else numpy.random.get_state()

    def seed_all(seed: int) -> None:
        # Not torch.manual_seed: it would also seed a CUDA that starts after the probe.
        torch.default_generator.manual_seed(seed)
        for kind in {device.type for device in devices}:
            module: Any = torch.get_device_module(kind)
            getattr(module, "manual_seed_all", module.manual_seed)(seed)
        random.seed(seed)
        if numpy is not None:
            numpy.random.seed(seed % 2**32)

    try:
        yield seed_all
    finally:
        torch.set_rng_state(cpu)
        for device, state in states:
            _set_state(device, state)
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(numbers)


def _devices(model: torch.nn.Module) -> list[torch.device]:
    found = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found |= {torch.device("cuda", place) for place in range(torch.cuda.device_count())}
    return [device for device in found if device.type not in ("cpu", "meta")]


def _state(device: torch.device) -> torch.Tensor:
    module: Any = torch.get_device_module(device)
    state: torch.Tensor = module.get_rng_state(*_place(device))
    return state


def _set_state(device: torch.device, state: torch.Tensor) -> None:
    module: Any = torch.get_device_module(device)
    module.set_rng_state(state, *_place(device))


def _place(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # mps has one device and no such argument
