"""The command line: parse, one call, print."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``wb`` with ``argv`` (default: the process's own) and return its exit code.

    Example:
        >>> main(["--version"])
        wb ...
        0
    """
    from workbench.cli.app import run

    return run(argv)
