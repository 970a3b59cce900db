"""Policies: one small rule per file with its equation and source; here is their name table."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from workbench.errors import ConfigurationError
from workbench.parts import resolve
from workbench.policy import AnyPolicy, Policy

from .grow_with_noise import GrowWithNoise
from .none import WatchOnly
from .schedule import Schedule

POLICIES: Mapping[str, type[Policy]] = {
    "grow_with_noise": GrowWithNoise,
    "schedule": Schedule,
    "none": WatchOnly,
}


def build_policy(name: str, options: Mapping[str, Any] | None = None) -> AnyPolicy:
    """Return the policy of that name, or of that ``module:Class``, with its options.

    Raises:
        ConfigurationError: No such policy, or it does not take these options.

    Example:
        >>> build_policy("grow_with_noise", {"max_batch_size": 512}).max_batch_size
        512
    """
    options = dict(options or {})
    if ":" not in name and name not in POLICIES:
        raise ConfigurationError(
            f"policy is {name!r}; allowed: {', '.join(POLICIES)}, or 'module:Class' of your own"
        )
    kind = POLICIES[name] if name in POLICIES else resolve(name, what="policy")
    if not callable(kind):
        raise ConfigurationError(
            f"policy {name} is a {type(kind).__name__}; allowed: a class with decide(view), as "
            "docs/policies/own.md shows"
        )
    policy = _built(name, kind, options)
    if not callable(getattr(policy, "decide", None)):
        raise ConfigurationError(
            f"policy {name} has no decide(view); add the method, as docs/policies/own.md shows"
        )
    return policy


def _built(name: str, kind: Any, options: Mapping[str, Any]) -> AnyPolicy:
    try:
        inspect.signature(kind).bind(**options)
        policy: AnyPolicy = kind(**options)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"policy {name}: {error}; given: {dict(options)}; "
            f"allowed options: {_options(kind) or 'none'}"
        ) from error
    return policy


def policy_path(name: str) -> str:
    """Return ``module:Class`` for a name of the table; a path stays as it is.

    Example:
        >>> policy_path("schedule")
        'workbench.policies.schedule:Schedule'
    """
    if name not in POLICIES:
        return name
    return f"{POLICIES[name].__module__}:{POLICIES[name].__qualname__}"


def _options(kind: Any) -> str:
    shown = []
    try:
        parameters = inspect.signature(kind).parameters
    except (TypeError, ValueError):  # a built-in that does not tell
        return ""
    for parameter in parameters.values():
        needed = parameter.default is inspect.Parameter.empty
        shown.append(parameter.name + (" (needed)" if needed else ""))
    return ", ".join(shown)


__all__ = ["POLICIES", "GrowWithNoise", "Schedule", "WatchOnly", "build_policy", "policy_path"]
