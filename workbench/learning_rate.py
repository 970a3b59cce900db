"""How the learning rate follows the batch size: a factor on the user's own schedule."""

from __future__ import annotations

from math import sqrt

from workbench.errors import ConfigurationError

RULES = ("none", "linear", "square_root")


def learning_rate_factor(rule: str, batch_size: int, base_batch_size: int) -> float:
    """Return the factor for ``batch_size`` when the schedule was made for ``base_batch_size``.

    ``none``: 1. ``linear``: ``B / B0`` (Goyal et al. 2017, section 2.1), for SGD while
    ``B`` is below the noise scale. ``square_root``: ``sqrt(B / B0)`` (Krizhevsky 2014; for Adam and
    its kin Malladi et al. 2022).

    Args:
        rule: One of ``RULES``.
        batch_size: Global batch size now, 1 or more.
        base_batch_size: Global batch size at the start, 1 or more.

    Raises:
        ConfigurationError: The rule does not exist.

    Example:
        >>> learning_rate_factor("linear", 256, 64), learning_rate_factor("square_root", 256, 64)
        (4.0, 2.0)
    """
    if rule not in RULES:
        raise ConfigurationError(
            f"learning_rate_rule is {rule!r}; allowed: {', '.join(RULES)}; 'none' keeps the rate"
        )
    if rule == "none" or batch_size == base_batch_size:
        return 1.0
    growth = batch_size / base_batch_size
    return growth if rule == "linear" else sqrt(growth)
