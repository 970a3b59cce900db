"""What the launch contract adds to a script's own: policies, a tracker, and who asks to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.lifecycle.ports import SPOOL
from workbench.parts import resolve
from workbench.policy import AnyPolicy
from workbench.record import Tracker

from .contract import Contract, parent_is_gone
from .group import Group
from .stop import stop_requested


def policies_of(contract: Contract, given: Sequence[AnyPolicy]) -> tuple[AnyPolicy, ...]:
    """Return the script's policies, or those that the launcher puts in their place.

    Args:
        contract: Of this process.
        given: By the script.

    Raises:
        ConfigurationError: The launcher names a policy that is not there.

    Example:
        >>> from workbench.adaptors.torch.contract import read_contract
        >>> named = '[{"name": "workbench.policies:WatchOnly", "options": {}}]'
        >>> policies_of(read_contract({"WB_POLICIES": named}), [])
        (WatchOnly(),)
    """
    if contract.policies is None:
        return tuple(given)
    named: Sequence[Mapping[str, Any]] = contract.policies
    return tuple(resolve(p["name"], what="policy")(**p["options"]) for p in named)


def trackers_of(contract: Contract, given: Sequence[Tracker], group: Group) -> tuple[Tracker, ...]:
    """Return the script's trackers and, in a recorded job, the spool; nothing but on rank 0.

    Args:
        contract: Of this process.
        given: By the script.
        group: The ranks of the job.

    Example:
        >>> from workbench.adaptors.torch.contract import read_contract
        >>> from workbench.testing import MemoryTracker
        >>> alone = read_contract({})
        >>> len(trackers_of(alone, [MemoryTracker()], Group(rank=0, workers=2)))
        1
        >>> trackers_of(alone, [MemoryTracker()], Group(rank=1, workers=2))
        ()
    """
    if group.rank != 0:
        return ()
    if contract.folder is None:
        return tuple(given)
    from workbench.records.spool import SpoolTracker

    return (*given, SpoolTracker(contract.folder / SPOOL))


def stopper(contract: Contract) -> Callable[[], bool]:
    """Return what tells whether this process was asked to end, or its launcher is gone."""
    return lambda: stop_requested() or parent_is_gone(contract)
