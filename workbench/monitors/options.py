"""What options of monitors may be, said in one line when they are not."""

from __future__ import annotations

from math import inf

from workbench.errors import ConfigurationError


def check_fraction(monitor: str, option: str, value: object) -> None:
    """Refuse what is not a number above 0 and below 1.

    Raises:
        ConfigurationError: ``value`` is something else.

    Example:
        >>> check_fraction("noise_scale", "level", 0.95)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < 1.0:
        raise ConfigurationError(
            f"monitor {monitor}: {option} is {value!r}; allowed: a number above 0 and below 1; "
            f"for example {option}=0.95"
        )


def check_count(monitor: str, option: str, value: object, *, least: int) -> None:
    """Refuse what is not an integer of at least ``least``.

    Raises:
        ConfigurationError: ``value`` is something else.

    Example:
        >>> check_count("throughput", "window_steps", 50, least=1)
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"monitor {monitor}: {option} is {value!r}; allowed: an integer of {least} or more; "
            f"for example {option}={max(least, 8)}"
        )


def check_estimate(monitor: str, level: float, false_alarm: float, min_steps: int) -> None:
    """Check the options that every monitor with an interval has.

    Raises:
        ConfigurationError: Which option is out of its range.
    """
    check_fraction(monitor, "level", level)
    check_fraction(monitor, "false_alarm", false_alarm)
    check_count(monitor, "min_steps", min_steps, least=4)


def check_positive(monitor: str, option: str, value: object) -> None:
    """Refuse what is not a finite number above 0.

    Raises:
        ConfigurationError: ``value`` is something else.

    Example:
        >>> check_positive("norm_test", "theta", 0.9)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < inf:
        raise ConfigurationError(
            f"monitor {monitor}: {option} is {value!r}; allowed: a number above 0; "
            f"for example {option}=1.0"
        )


def check_group(monitor: str, group: object) -> None:
    """Refuse a name of a group of parameters that is not text.

    Raises:
        ConfigurationError: ``group`` is something else.

    Example:
        >>> check_group("gradient_norm", "encoder.0")
    """
    if not isinstance(group, str):
        raise ConfigurationError(
            f"monitor {monitor}: group is {group!r}; allowed: a module's dotted name or optimizer.N; "
            "leave it out for the whole model"
        )
