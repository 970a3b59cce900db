"""Results on stdout: strict JSON, and a stdout that only the result may use."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from math import isfinite
from typing import Any

from workbench.codec import to_plain


def strict(value: Any) -> Any:
    """Return ``value`` with NaN and infinity as ``None``, which JSON can hold.

    Example:
        >>> strict({"a": (1.0, float("nan")), "b": float("inf")})
        {'a': [1.0, None], 'b': None}
    """
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [strict(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy or torch scalar
        return strict(value.item())
    try:
        return strict(to_plain(value))
    except TypeError:
        return str(value)


def print_json(value: Any) -> None:
    """Print ``value`` as one JSON object that any parser takes.

    Example:
        >>> print_json({"loss": float("nan"), "steps": 3})
        {"loss": null, "steps": 3}
    """
    print(json.dumps(strict(value), ensure_ascii=False, allow_nan=False), flush=True)


@contextmanager
def only_the_result_on_stdout(wanted: bool) -> Iterator[None]:
    """Send what anything else prints inside the block to stderr, child processes included."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os.dup2(saved, 1)
        os.close(saved)
