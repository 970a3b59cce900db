"""A worker's entry point: ``python -m workbench.adaptors.torch.worker order FILE | script FILE ...``.

Whatever ends it badly is written to ``rank-N.error.json``, where the launcher reads it.
"""

from __future__ import annotations

import contextlib
import json
import runpy
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from workbench.errors import WorkbenchError

from .contract import Contract, read_contract
from .launch import ERROR_FILE
from .stop import stop_on_sigterm


def main(arguments: Sequence[str]) -> int:
    """Run an order or a script; return the exit code."""
    contract = read_contract()
    stop_on_sigterm()
    try:
        _run(arguments, contract)
    except SystemExit as leaving:
        if leaving.code is not None and not isinstance(leaving.code, int):
            print(leaving.code, file=sys.stderr)  # as Python does: the script's last word
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException as error:  # told to the launcher, whatever it is
        _tell(error, contract)
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        return error.exit_code if isinstance(error, WorkbenchError) else 1
    finally:
        from .group import leave

        leave()
    return 0


def _run(arguments: Sequence[str], contract: Contract) -> None:
    kind, path, *rest = arguments
    if kind == "order":
        from .training import run_order

        run_order(Path(path), contract, resume="--resume" in rest)
        return
    sys.argv = [path, *rest]
    sys.path.insert(0, str(Path(path).absolute().parent))
    runpy.run_path(path, run_name="__main__")


def _tell(error: BaseException, contract: Contract) -> None:
    if contract.folder is None:
        return
    told = {
        "kind": type(error).__name__,
        "message": str(error),
        "traceback": traceback.format_exc(),
        "unix_time": time.time(),
        "step": getattr(error, "step", 0),
    }
    name = ERROR_FILE.format(rank=contract.rank)
    try:
        (contract.folder / name).write_text(json.dumps(told))
    except OSError:  # a full disk may be the very thing to tell: the meeting place is elsewhere
        (contract.folder / name).unlink(missing_ok=True)
        if contract.rendezvous:
            Path(contract.rendezvous).with_name(name).write_text(json.dumps(told))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
