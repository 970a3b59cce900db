"""Turn every exception into one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from workbench.errors import WorkbenchError

INTERRUPTED = 130
USAGE = 2


def guarded(call: Callable[[], Any], args: Sequence[str]) -> int:
    """Run ``call`` and return its exit code: what it returned, or what its error maps to.

    ``--debug`` among ``args`` adds the traceback; with ``--json`` the error is also the one JSON
    object on stdout.

    Example:
        >>> guarded(lambda: 3, [])
        3
    """
    own = list(args[: args.index("--")]) if "--" in args else list(args)
    try:
        returned = call()
    except KeyboardInterrupt as error:
        return _failed(error, INTERRUPTED, "interrupted", own)
    except BrokenPipeError:  # the reader of stdout left, as `wb show | head` does
        return _hush()
    except WorkbenchError as error:
        return _failed(error, error.exit_code, str(error), own)
    except Exception as error:
        return _failed(error, *_explained(error), own)
    return returned if isinstance(returned, int) else 0


def one_line(message: str) -> str:
    """Return ``message`` on one line.

    Example:
        >>> one_line("port 5000\\n  is in use")
        'port 5000 is in use'
    """
    return " ".join(message.split())


def _explained(error: Exception) -> tuple[int, str]:
    """Return exit code and message of an error that is not one of ours."""
    told = getattr(error, "format_message", None)  # Click's and Typer's usage errors
    if callable(told):
        command = getattr(getattr(error, "ctx", None), "command_path", "wb")
        return USAGE, f"{str(told()).rstrip('.')}; see '{command} --help'"
    kind = type(error).__name__
    return 1, f"internal error: {kind}: {error}; run again with --debug for the traceback"


def _failed(error: BaseException, exit_code: int, message: str, args: Sequence[str]) -> int:
    if "--debug" in args:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    line = one_line(message)
    if "--json" in args:
        print(json.dumps({"status": "failed", "exit_code": exit_code, "message": line}))
    print(f"wb: {line}", file=sys.stderr)
    return exit_code


def _hush() -> int:
    """Point stdout at nothing, so that the interpreter's last flush does not complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
