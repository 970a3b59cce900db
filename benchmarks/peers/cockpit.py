"""Cockpit: its quantities about gradient noise, and its cheapest ready-made set, at every step.

As in https://cockpit.readthedocs.io: model and both losses are extended by BackPACK, the backward
pass runs inside the cockpit. Several quantities want SGD without momentum, so the loop has none.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from interleaved import Steps
from loops import MakeTask
from torch.utils.data import DataLoader

from peers.backpack import accept_its_hooks

ECONOMY = "economy"
NOISE = ("NormTest", "InnerTest", "CABS", "MeanGSNR")


def cockpit_steps(make: MakeTask, wanted: str | Sequence[str]) -> Steps:
    """Train with a named configuration of Cockpit, or with the quantities named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources is deprecated
        cockpit, extend = import_module("cockpit"), import_module("backpack").extend
    accept_its_hooks()
    task = make()
    model = extend(task.model)
    loss_function = extend(torch.nn.CrossEntropyLoss())
    loss_of_each = extend(torch.nn.CrossEntropyLoss(reduction="none"))
    watching = cockpit.Cockpit(model.parameters(), quantities=_quantities(wanted))
    loader = DataLoader(task.dataset, batch_size=task.batch_size, shuffle=True)
    step = 0
    while True:
        for inputs, targets in loader:
            outputs = model(inputs)
            loss, each = loss_function(outputs, targets), loss_of_each(outputs, targets)
            known = {
                "batch_size": len(inputs),
                "individual_losses": each,
                "loss": loss,
                "optimizer": task.optimizer,
            }
            with watching(step, info=known):
                loss.backward(create_graph=watching.create_graph(step))
            task.optimizer.step()
            task.optimizer.zero_grad()
            step += 1
            yield


def _quantities(wanted: str | Sequence[str]) -> list[Any]:
    if isinstance(wanted, str):
        configured: list[Any] = import_module("cockpit.utils.configuration").configuration(wanted)
        return configured
    quantities, schedules = (
        import_module("cockpit.quantities"),
        import_module("cockpit.utils.schedules"),
    )
    always = schedules.linear(interval=1)
    return [getattr(quantities, name)(track_schedule=always) for name in wanted]
