"""A forward hook that stays behind when its module is copied or saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Ear:
    """Calls a function of the job's as a forward hook.

    ``copy.deepcopy(model)`` (as for a moving average of weights) and ``torch.save(model, ...)`` take
    hooks along, and all that they hold: a whole job, which can be neither copied nor saved. This one
    becomes :func:`deaf`.

    Example:
        >>> from copy import deepcopy
        >>> ear = Ear(lambda module, inputs, outputs: print("heard"))
        >>> ear(None, None, None)
        heard
        >>> deepcopy(ear)(None, None, None)
    """

    def __init__(self, heard: Callable[..., None]) -> None:
        self._heard = heard

    def __call__(self, *given: Any) -> None:
        """Hear of a call; the output stays as it is."""
        self._heard(*given)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[()]]:
        return _deafened, ()


def deaf(*_: Any) -> None:
    """Hear nothing: what is left of a hook in a copy."""


def _deafened() -> Callable[..., None]:
    return deaf
