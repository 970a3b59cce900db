"""The wheel, built through the sdist from what git tracks, holds every file of the package."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

NOT_SHIPPED = {"__pycache__"}


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with sdist and wheel of the tree as it is, untracked files that git knows included."""
    source = tmp_path_factory.mktemp("source")
    listed = _git(repository, "ls-files", "--cached", "--others", "--exclude-standard")
    kept = [
        name for name in listed if (repository / name).is_symlink() or _is_file(repository, name)
    ]
    archive = source.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        for name in kept:
            tar.add(repository / name, arcname=name)
    with tarfile.open(archive) as tar:
        tar.extractall(source, filter="tar")
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.xdist_group("wheel")
def test_the_wheel_holds_what_the_tree_holds(built: Path, repository: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("workbench/")}
    wanted = {
        path.relative_to(repository).as_posix()
        for path in _files(repository / "workbench")
        if not NOT_SHIPPED & set(path.parts)
    }
    assert wanted - held == set(), "in the tree, not in the wheel"
    assert held - wanted == set(), "in the wheel, not in the tree"
    for file in ("cli/app.py", "policies/schedule.py", "adaptors/torch/job.py", "py.typed"):
        assert f"workbench/{file}" in held


@pytest.mark.xdist_group("wheel")
def test_the_wheel_has_one_top_level_package_and_the_command(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        said = archive.read(entry_points).decode()
    assert {top for top in tops if not top.endswith(".dist-info")} == {"workbench"}
    assert "wb = workbench.cli:main" in said


def _files(folder: Path) -> list[Path]:
    """Every file below, through links to folders too (``rglob`` follows none in Python 3.11)."""
    found = []
    for path in folder.iterdir():
        found += _files(path) if path.is_dir() else [path]
    return found


def _is_file(repository: Path, name: str) -> bool:
    return (repository / name).is_file()


def _git(repository: Path, *arguments: str) -> list[str]:
    said = subprocess.run(
        ["git", "-C", repository, *arguments], capture_output=True, text=True, check=True
    )
    return said.stdout.splitlines()
