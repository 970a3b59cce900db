"""Turn whatever stops a stage into one clear line with its exit code."""

from __future__ import annotations

import errno
from pathlib import Path

from workbench.errors import InfrastructureError, Interrupted, StageError, WorkbenchError

_OF_THE_DISK = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "it is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EIO: "the disk does not answer",
}


def as_workbench_error(error: BaseException, workspace: Path, stage: str = "") -> WorkbenchError:
    """Return ``error`` as one of the workbench's own.

    Example:
        >>> fault = as_workbench_error(OSError(28, "No space left on device"), Path("/w"), "train")
        >>> fault.exit_code, str(fault)
        (4, 'train: no space left in /w; free some or give another --workspace, then wb run --resume')
    """
    before = f"{stage}: " if stage else ""
    if isinstance(error, WorkbenchError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(f"{before}interrupted; wb run --resume goes on")
    if not isinstance(error, OSError):
        return StageError(f"{before}{type(error).__name__}: {error}", stage=stage)
    number = errno.ENOSPC if _is_numpys_full_disk(error) else error.errno
    where = error.filename if error.filename is not None else workspace
    if number in (errno.ENOSPC, errno.EDQUOT):
        return InfrastructureError(
            f"{before}{_OF_THE_DISK[number]} in {workspace}; free some or give another "
            "--workspace, then wb run --resume"
        )
    if number in _OF_THE_DISK:
        return InfrastructureError(
            f"{before}{where} cannot be written: {_OF_THE_DISK[number]}; make it writable or give "
            "another --workspace"
        )
    return StageError(f"{before}{where}: {error.strerror or error}", stage=stage)


def _is_numpys_full_disk(error: OSError) -> bool:
    # ndarray.tofile reports a short write without an errno
    return error.errno is None and "requested and" in str(error)
