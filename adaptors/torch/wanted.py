"""What the monitors of a job ask the adaptor to measure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from workbench.errors import ConfigurationError
from workbench.monitors.protocol import (
    COVERED,
    GROUP,
    INNER_PRODUCTS,
    NORMS,
    PHASES,
    PRECONDITIONED,
    RANKS,
    SUCCESSIVE,
    UPDATE,
)

_PLAIN = (NORMS, COVERED, INNER_PRODUCTS, PRECONDITIONED, SUCCESSIVE, PHASES, RANKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which facts to take; what is not wanted costs nothing.

    Attributes:
        norms: The gradient at two batch sizes.
        covered: Per-example norms over the layers where they come nearly free.
        inner_products: Those of small batches with the mean.
        preconditioned: The norms of the gradient as the optimizer preconditions it.
        successive: This gradient beside that of the step before.
        phases: Where the seconds of a step go.
        ranks: What each rank did and held.
        groups: Names of groups of parameters whose gradients are asked for, apart.
        updates: Names of groups whose update is asked for; empty for the whole model.

    Example:
        >>> Wanted(norms=True).gradients
        True
    """

    norms: bool = False
    covered: bool = False
    inner_products: bool = False
    preconditioned: bool = False
    successive: bool = False
    phases: bool = False
    ranks: bool = False
    groups: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()

    @property
    def gradients(self) -> bool:
        """Whether anything of the gradient is wanted."""
        plain = (self.norms, self.covered, self.inner_products, self.preconditioned)
        return any(plain) or self.successive or bool(self.groups)

    @property
    def sampled(self) -> bool:
        """Whether anything is wanted that is taken on some steps only."""
        return self.gradients or bool(self.updates)


def wanted(needs: Iterable[str]) -> Wanted:
    """Return what ``needs`` (see :func:`workbench.monitors.protocol.needs_of`) ask for.

    Raises:
        ConfigurationError: A need is unknown.

    Example:
        >>> wanted(["norms", "group:encoder", "update:"]).groups
        ('encoder',)
    """
    plain: dict[str, bool] = {}
    groups: set[str] = set()
    updates: set[str] = set()
    for need in needs:
        if need.startswith(GROUP):
            groups.add(need.removeprefix(GROUP))
        elif need.startswith(UPDATE):
            updates.add(need.removeprefix(UPDATE))
        elif need in _PLAIN:
            plain[need] = True
        else:
            raise ConfigurationError(
                f"a monitor needs {need!r}; allowed: {', '.join(_PLAIN)}, {GROUP}NAME, {UPDATE}NAME; "
                "correct its attribute needs"
            )
    return Wanted(**plain, groups=tuple(sorted(groups)), updates=tuple(sorted(updates)))
