"""Judge monitors, policies, optimizers and schedules by name, for what validates a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import ConfigurationError

if TYPE_CHECKING:
    from workbench.lifecycle.ports import Part


def check_part(kind: str, part: Part) -> str:
    """Return what is wrong with a part in one line; empty when nothing is.

    Args:
        kind: ``monitor``, ``policy``, ``optimizer`` or ``scheduler``; others are not judged.
        part: Its name and options.

    Example:
        >>> from workbench.lifecycle.ports import Part
        >>> check_part("policy", Part(name="grow", options={}))[:16]
        "policy is 'grow'"
        >>> check_part("monitor", Part(name="noise_scale"))
        ''
    """
    try:
        _build(kind, part)
    except ConfigurationError as error:
        return str(error)
    return ""


def _build(kind: str, part: Part) -> None:
    if kind == "policy":
        from workbench.policies import build_policy

        build_policy(part.name, part.options)
    elif kind == "monitor" and ":" not in part.name:
        from workbench.monitors import build_monitor

        build_monitor(part.name, part.options)
    elif kind == "optimizer":
        import torch

        from workbench.adaptors.torch.recipes import build_optimizer

        build_optimizer(part, torch.nn.Linear(1, 1))
    elif kind == "scheduler":
        from workbench.adaptors.torch.recipes import build_schedule

        build_schedule(part)
