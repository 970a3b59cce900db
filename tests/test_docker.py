"""The Dockerfile copies what is there, and installs by the one file of versions, torch first."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest


@pytest.fixture
def instructions(repository: Path) -> list[tuple[str, str]]:
    """The Dockerfile as ``(instruction, rest)``, continued lines joined."""
    text = (repository / "docker" / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [(name, rest) for name, rest in pairs]


def test_what_is_copied_from_the_tree_exists_and_is_not_ignored(
    instructions: list[tuple[str, str]], repository: Path
) -> None:
    ignored = (repository / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [
        word
        for name, rest in instructions
        if name == "COPY" and "--from" not in rest
        for word in shlex.split(rest)[:-1]
    ]
    assert sources == [".", "constraints.txt"]
    for needed in ("constraints.txt", "workbench/cli", "cli", "LICENSE", "README.md"):
        assert (repository / needed).exists()
        assert not any(Path(needed).match(line) for line in ignored if line[:1] != "#")


def test_every_install_is_constrained_and_torch_goes_before_the_wheel(
    instructions: list[tuple[str, str]],
) -> None:
    installs = [rest for name, rest in instructions if name == "RUN" and "pip install" in rest]
    assert len(installs) == 3
    assert all("constraints.txt" in install for install in installs)
    assert "torch" in installs[1]
    assert "*.whl" in installs[2]


def test_the_image_does_not_run_as_root(instructions: list[tuple[str, str]]) -> None:
    assert [rest for name, rest in instructions if name == "USER"] == ["wb"]
