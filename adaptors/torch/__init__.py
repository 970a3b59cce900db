"""PyTorch: attach a job to a loop or watch it, run jobs in processes, save and load their state.

The names load when they are first used, so that the launcher does without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attachment import attach
    from .framework import TorchFramework
    from .job import Epoch, Job
    from .watched_loop import Watch
    from .watching import watch

__all__ = ["Epoch", "Job", "TorchFramework", "Watch", "attach", "watch"]

_HOME = {
    "attach": "attachment",
    "Epoch": "job",
    "Job": "job",
    "TorchFramework": "framework",
    "Watch": "watched_loop",
    "watch": "watching",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
