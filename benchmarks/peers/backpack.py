"""BackPACK: quantities of the samples' own gradients, from one backward pass with an extension.

As in https://docs.backpack.pt: model and loss are extended, the backward pass runs inside
``backpack(...)``. With a mean loss over ``B`` samples BackPACK's parts are those of ``g_i / B``.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import torch
from interleaved import Steps
from loops import MakeTask
from torch.utils.data import DataLoader


def backpack_steps(make: MakeTask, extension: str) -> Steps:
    """Train with one extension, and turn what it leaves into the two squared norms at every step."""
    backpack, extensions = import_module("backpack"), import_module("backpack.extensions")
    accept_its_hooks()
    task = make()
    model = backpack.extend(task.model)
    loss_function = backpack.extend(torch.nn.CrossEntropyLoss())
    quantity = getattr(extensions, extension)()
    loader = DataLoader(task.dataset, batch_size=task.batch_size, shuffle=True)
    while True:
        for inputs, targets in loader:
            loss = loss_function(model(inputs), targets)
            with backpack.backpack(quantity):
                loss.backward()
            two_norms(model, quantity.savefield, samples=len(inputs))
            task.optimizer.step()
            task.optimizer.zero_grad()
            yield


def accept_its_hooks() -> None:
    """Say nothing of the way BackPACK hooks into modules: torch would warn of it."""
    warnings.filterwarnings("ignore", message="Full backward hook is firing")


def two_norms(model: Any, field: str, *, samples: int) -> tuple[float, float]:
    """Return the mean of ``|g_i|^2``, or the trace of their covariance, and ``|g|^2``."""
    parts = [getattr(parameter, field).sum() for parameter in model.parameters()]
    whole = [parameter.grad.square().sum() for parameter in model.parameters()]
    part, big = torch.stack([torch.stack(parts).sum(), torch.stack(whole).sum()]).tolist()
    return samples * part, big
