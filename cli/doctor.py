"""`wb doctor`: what this machine has, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata

from workbench import __version__
from workbench.errors import InfrastructureError

from .options import Debug, Json, TrackingUri, Workspace
from .output import print_json
from .servers import port_is_free
from .ui import PORT
from .workspace import Place, could_be_made, place_from, prepare

NEEDED = ("torch", "mlflow", "fairlearn", "numpy", "pandas", "scikit-learn", "pydantic")
LEAST_DISK_GIB = 2.0
LEAST_MEMORY_GIB = 2.0
GIB = 2**30
MARKS = {"ok": ("✓", "green"), "note": ("·", "dim"), "problem": ("✗", "bold red")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing about this machine.

    Attributes:
        name: What was looked at.
        value: What is there.
        state: ``ok``; ``note``: something optional is missing; ``problem``: `wb run` will fail.
        advice: What to do, unless all is well.
    """

    name: str
    value: str
    state: str = "ok"
    advice: str = ""


def doctor(
    as_json: Json = False,
    workspace: Workspace = None,
    tracking_uri: TrackingUri = None,
    debug: Debug = False,
) -> int:
    """Say what this machine has, and what to do about the rest.

    Exit code 4 when something would keep `wb run` from working.
    """
    del debug
    findings = list(examine(place_from(workspace, tracking_uri)))
    broken = [finding for finding in findings if finding.state == "problem"]
    code = InfrastructureError.exit_code if broken else 0
    if as_json:
        print_json(
            {"findings": [asdict(f) for f in findings], "healthy": not broken, "exit_code": code}
        )
    else:
        _print(findings)
    return code


def examine(place: Place) -> Iterator[Finding]:
    """Yield every finding; nothing is changed."""
    yield Finding(name="workbench", value=__version__)
    yield _python()
    for name in NEEDED:
        yield package(name)
    for look in (_cuda, _horovod, _cores, _memory, _compiler):
        yield look()
    yield from _workspace(place)
    yield _tracking(place)
    yield _port()


def package(name: str) -> Finding:
    """Return the version of a package that is needed.

    Example:
        >>> package("no-such-package").state
        'problem'
    """
    try:
        return Finding(name=name, value=metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(
            name=name, value="not installed", state="problem", advice=f"pip install {name}"
        )


def _python() -> Finding:
    return Finding(name="python", value=f"{platform.python_version()} ({sys.executable})")


def _cuda() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding(name="GPUs", value=f"unknown: torch fails ({error})", state="note")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
        return Finding(name="GPUs", value=f"{', '.join(names)} (CUDA {torch.version.cuda})")
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding(
        name="GPUs",
        value=f"none ({built}); training runs on the CPU",
        state="note",
        advice="for a GPU: its driver, and a torch built for CUDA",
    )


def _horovod() -> Finding:
    try:
        return Finding(name="horovod", value=metadata.version("horovod"))
    except metadata.PackageNotFoundError:
        return Finding(name="horovod", value="not installed (optional)", state="note")


def _cores() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding(name="cores", value=f"{count} for this process, {os.cpu_count()} in all")


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    value = f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}"
    if memory.available >= LEAST_MEMORY_GIB * GIB:
        return Finding(name="memory", value=value)
    return Finding(
        name="memory",
        value=value,
        state="problem",
        advice=f"free memory until {LEAST_MEMORY_GIB:g} GiB are there, or use fewer --workers",
    )


def _compiler() -> Finding:
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), "")
    if found:
        return Finding(name="C compiler", value=found)
    return Finding(
        name="C compiler",
        value="none",
        state="note",
        advice="needed only for train.compile=true: apt-get install gcc",
    )


def _workspace(place: Place) -> Iterator[Finding]:
    folder = place.workspace
    try:
        if folder.exists():
            prepare(place)
        elif not could_be_made(folder):
            raise InfrastructureError(f"make {folder.parent} writable, or give --workspace DIR")
    except InfrastructureError as error:
        value = f"{folder} cannot be written"
        yield Finding(name="workspace", value=value, state="problem", advice=str(error))
        return
    yield Finding(
        name="workspace", value=f"{folder}" + ("" if folder.exists() else " (not made yet)")
    )
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / GIB
    value = f"{free:.1f} GiB free at the workspace"
    if free >= LEAST_DISK_GIB:
        yield Finding(name="disk", value=value)
        return
    advice = f"free space until {LEAST_DISK_GIB:g} GiB are there, or give another --workspace"
    yield Finding(name="disk", value=value, state="problem", advice=advice)


def _tracking(place: Place) -> Finding:
    if place.own:
        state = "recorded" if place.database.exists() else "nothing recorded yet"
        return Finding(name="tracking", value=f"{place.tracking_uri} ({state})")
    return _asked(place.tracking_uri, lambda: _ping(place))


def _asked(address: str, ask: Callable[[], None]) -> Finding:
    from workbench.errors import WorkbenchError

    try:
        ask()
    except WorkbenchError as error:
        return Finding(name="tracking", value=address, state="problem", advice=str(error))
    return Finding(name="tracking", value=f"{address} answers")


def _ping(place: Place) -> None:
    from .workspace import open_store

    open_store(place).ping()


def _port() -> Finding:
    if port_is_free(PORT):
        return Finding(name=f"port {PORT}", value="free")
    return Finding(
        name=f"port {PORT}",
        value="in use",
        state="note",
        advice="give wb ui another --port",
    )


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    from .summary import console_for_result, new_table

    console = console_for_result()
    table = new_table("", "", "", "")
    table.show_header, table.box = False, None
    for finding in findings:
        mark, style = MARKS[finding.state]
        table.add_row(Text(mark, style), finding.name, Text(finding.value))
    console.print(table)
    told = [finding for finding in findings if finding.advice]
    if told:
        console.print("\n[bold]What to do[/]")
    for finding in told:
        style = "red" if finding.state == "problem" else "dim"
        console.print(Text.assemble((f"{finding.name}: ", style), finding.advice), soft_wrap=True)
    if not any(finding.state == "problem" for finding in findings):
        console.print("\nReady: wb run")


__all__ = ["Finding", "doctor", "examine", "package"]
