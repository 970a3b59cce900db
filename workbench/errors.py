"""Every error the workbench raises on purpose, each with its data and its exit code.

::

    WorkbenchError                    exit 1   a stage failed
    ├── StageError                    exit 1   a stage of the pipeline failed
    │   └── NonFiniteError            exit 1   loss or gradient became NaN or infinite
    ├── UsageError                    exit 2   what the user gave cannot work
    │   ├── ConfigurationError        exit 2   a setting: unknown, of the wrong type, impossible
    │   └── DataContractError         exit 2   the data: missing, empty, or against its contract
    ├── GateError                     exit 3   a gate refused
    ├── InfrastructureError           exit 4   engine, tracking server, port, disk
    └── Interrupted                   exit 130 Ctrl-C or SIGTERM

A message is one line: what was given, what is allowed, what to do. A refused *action* is not an
error but data: see :class:`workbench.decision.Refused`.
"""

from __future__ import annotations


class WorkbenchError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is what ``wb`` leaves with.

    Example:
        >>> ConfigurationError("batch_size is -4; allowed: 1 or more; set batch_size=64").exit_code
        2
    """

    exit_code = 1

    def __str__(self) -> str:
        # A message may quote a user's exception, which may have many lines.
        return " ".join(line.strip() for line in super().__str__().splitlines() if line.strip())


class StageError(WorkbenchError):
    """A stage of the pipeline failed."""

    def __init__(self, message: str, *, stage: str = "") -> None:
        super().__init__(message)
        self.stage = stage


class NonFiniteError(StageError):
    """The loss or the gradient became NaN or infinite at ``step``."""

    def __init__(self, message: str, *, step: int, stage: str = "train") -> None:
        super().__init__(message, stage=stage)
        self.step = step


class UsageError(WorkbenchError):
    """What the user gave cannot work."""

    exit_code = 2


class ConfigurationError(UsageError):
    """A setting is unknown, of the wrong type, or impossible."""


class DataContractError(UsageError):
    """The data are missing, empty, or break the contract."""


class GateError(WorkbenchError):
    """A gate refused: nothing was promoted."""

    exit_code = 3


class InfrastructureError(WorkbenchError):
    """The engine, the tracking server, a port or the disk failed."""

    exit_code = 4


class Interrupted(WorkbenchError):  # noqa: N818 - it is not a fault
    """The user asked to stop."""

    exit_code = 130
