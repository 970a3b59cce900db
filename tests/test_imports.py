"""Who may import whom: floors by the syntax trees, and what an import really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOMS = ("adaptors", "policies", "tracing", "cli")
UPSTAIRS = {
    "core": set(ROOMS),
    "adaptors": {"policies", "tracing", "cli"},
    "policies": {"adaptors", "tracing", "cli"},
    "tracing": {"adaptors", "policies", "cli"},
    "cli": set(),
}
FOR_TRAINING_SCRIPTS = (
    "workbench",
    "workbench.monitors",
    "workbench.policies",
    "workbench.tracing",
    "workbench.adaptors.torch.attachment",
    "workbench.adaptors.torch.watching",
)


def _package() -> Path:
    spec = find_spec("workbench")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _sources(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            found += _sources(path)
        elif path.suffix == ".py":
            found.append(path)
    return found


def _room(path: Path) -> str:
    first = path.relative_to(_package()).parts[0]
    return first if first in (*ROOMS, "examples") else "core"


def _imports(path: Path) -> list[tuple[int, int, str]]:
    """Return ``(line, dots, module)`` of every import in a file, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, 0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
            if node.module == "workbench":
                modules = [f"workbench.{alias.name}" for alias in node.names]
            found += [(node.lineno, node.level, module) for module in modules]
    return found


SOURCES = _sources(_package())


def test_the_tree_of_sources_was_found() -> None:
    assert {_room(path) for path in SOURCES} == {"core", "examples", *ROOMS}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(_package())))
def test_a_file_imports_downwards_only(path: Path) -> None:
    room = _room(path)
    wrong = []
    for line, dots, module in _imports(path):
        parts = module.split(".")
        if dots > 1:
            wrong.append(f"line {line}: an import with {dots} dots; use workbench.…")
        elif dots == 0 and parts[0] in ROOMS:
            wrong.append(f"line {line}: bare import {module} makes twin classes; use workbench.…")
        elif parts[0] == "workbench" and set(parts[1:2]) & UPSTAIRS.get(room, set()):
            wrong.append(f"line {line}: {room} must not import {module}")
    assert not wrong, f"{path}: " + "; ".join(wrong)


@pytest.mark.parametrize("module", FOR_TRAINING_SCRIPTS)
def test_what_a_training_script_imports_needs_torch_and_the_standard_library_only(
    module: str,
) -> None:
    # NumPy is torch's own affair: torch imports it when it is there.
    blocked = ("pydantic", "mlflow", "typer", "rich", "fairlearn", "pandas", "pyarrow", "yaml")
    program = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {module}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", ["workbench", "workbench.monitors", "workbench.policies", "workbench.cli.app"]
)
def test_the_core_and_the_command_line_load_nothing_heavy(module: str) -> None:
    heavy = ("torch", "numpy", "mlflow", "pandas", "pydantic", "sklearn", "fairlearn")
    program = f"import sys, {module}; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
