"""AdaptDL: its data-parallel wrapper, which tracks the gradient noise scale at every step.

As in https://adaptdl.readthedocs.io/en/latest/adaptdl-pytorch.html: ``AdaptiveDataLoader``,
``AdaptiveDataParallel`` and ``remaining_epochs_until``. On one process its tracker takes two
successive gradients for the small batches.
"""

from __future__ import annotations

import logging
import os
import warnings
from importlib import import_module
from typing import Any

from interleaved import Steps
from loops import MakeTask, train


def join(rank: int, port: int, workers: int) -> None:
    """Meet the other processes; this makes torch's default process group too.

    Raises:
        ImportError: AdaptDL, or something that it needs, is not installed.
    """
    adl = _adaptdl_torch()
    os.environ["ADAPTDL_REPLICA_RANK"] = str(rank)
    os.environ["ADAPTDL_NUM_REPLICAS"] = str(workers)
    os.environ["ADAPTDL_NUM_NODES"] = "1"
    adl.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=workers, rank=rank)


def adaptdl_steps(make: MakeTask) -> Steps:
    adl = _adaptdl_torch()
    task = make()
    loader = adl.AdaptiveDataLoader(task.dataset, batch_size=task.batch_size, shuffle=True)
    wrapped = adl.AdaptiveDataParallel(task.model, task.optimizer)
    for _ in adl.remaining_epochs_until(10**9):
        for inputs, targets in loader:
            train(wrapped, task.optimizer, inputs, targets)
            yield


def _adaptdl_torch() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources is deprecated
        found = import_module("adaptdl.torch")
    logging.disable(logging.INFO)  # it logs to stderr as soon as it is imported
    return found
