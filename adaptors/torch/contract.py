"""The launch contract: what a launcher tells a worker, in environment variables read only here.

========================  =============================================================
``RANK``, ``WORLD_SIZE``  this process and how many there are (as ``torchrun`` sets them)
``LOCAL_RANK``            this process on its machine: the GPU it takes
``WB_RENDEZVOUS``         file through which the processes meet (else ``MASTER_ADDR``)
``WB_FOLDER``             the job's own folder: records, checkpoints, logs
``WB_POLICIES``           JSON ``[{"name": "module:Class", "options": {...}}]``; replaces the
                          policies that the script gives
``WB_PARENT``             process id of the launcher; a worker whose parent is gone ends
========================  =============================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A worker's place in its job.

    Example:
        >>> read_contract({}).workers
        1
        >>> read_contract({"RANK": "1", "WORLD_SIZE": "2"}).rank
        1
    """

    rank: int = 0
    workers: int = 1
    local_rank: int = 0
    rendezvous: str = ""
    folder: Path | None = None
    policies: tuple[Mapping[str, Any], ...] | None = None
    parent: int | None = None


def read_contract(environment: Mapping[str, str] | None = None) -> Contract:
    """Return the contract that the environment holds; one process alone when it holds none.

    Raises:
        ConfigurationError: A variable holds what no launcher writes.
    """
    given = os.environ if environment is None else environment
    rank, workers = _number(given, "RANK", 0), _number(given, "WORLD_SIZE", 1)
    if not 0 <= rank < max(1, workers):
        raise ConfigurationError(
            f"RANK is {rank} and WORLD_SIZE {workers}; allowed: 0 <= RANK < WORLD_SIZE; "
            "start the script with `wb run train.py --workers N` or torchrun"
        )
    policies = given.get("WB_POLICIES")
    folder = given.get("WB_FOLDER")
    return Contract(
        rank=rank,
        workers=workers,
        local_rank=_number(given, "LOCAL_RANK", rank),
        rendezvous=given.get("WB_RENDEZVOUS", ""),
        folder=Path(folder) if folder else None,
        policies=None if policies is None else tuple(json.loads(policies)),
        parent=_number(given, "WB_PARENT", 0) or None,
    )


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(
            f"{name} is {text!r}; allowed: a whole number; unset it or let a launcher set it"
        ) from None


def parent_is_gone(contract: Contract) -> bool:
    """Return whether the launcher that started this worker has died."""
    return contract.parent is not None and os.getppid() != contract.parent
