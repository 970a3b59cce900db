"""Checkpoints of a job: atomic, the last two kept, read back without pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import torch

from workbench.errors import InfrastructureError

from .group import Group
from .job import Job

KEPT = 2


class Stateful(Protocol):
    """A model, optimizer, scheduler or gradient scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take the state."""
        ...


def save(folder: Path, job: Job, parts: dict[str, Stateful], group: Group) -> None:
    """Write a checkpoint; called by every worker at the start of the same step.

    Holds the job (cursor, batch size, monitors, policies), each part's state, and every worker's
    random-number state. Rank 0 writes to a temporary name, syncs and renames.

    Raises:
        InfrastructureError: It cannot be written.
    """
    state = job.state_dict()
    random = group.gather(torch.get_rng_state())
    if group.rank != 0:
        return
    whole = {
        "job": state,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "random": random,
    }
    target = folder / f"step-{job.step:09d}.pt"
    draft = target.with_suffix(".tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            torch.save(whole, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except (OSError, RuntimeError) as error:
        draft.unlink(missing_ok=True)
        raise InfrastructureError(
            f"checkpoint {target} could not be written: {error}; earlier ones are kept; free space or "
            "make the folder writable, then go on with --resume"
        ) from error
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        old.unlink(missing_ok=True)


def is_finite(model: torch.nn.Module) -> bool:
    """Return whether every weight is a finite number; the same on every worker.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> is_finite(model), is_finite(model.apply(lambda part: part.weight.data.fill_(torch.inf)))
        (True, False)
    """
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint in ``folder``, 0 without one."""
    steps = [int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.pt")]
    return max(steps, default=0)


def load(folder: Path, job: Job, parts: dict[str, Stateful], group: Group) -> int | None:
    """Go on from the newest checkpoint that can be read; return its step, or ``None`` without one.

    With another number of workers than it was written with, the random-number state is left alone.
    """
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            whole = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError):
            continue
        job.load_state_dict(whole["job"])
        for name, part in parts.items():
            part.load_state_dict(whole["parts"][name])
        if len(whole["random"]) == group.workers:
            torch.set_rng_state(whole["random"][group.rank])
        return job.step
    return None
