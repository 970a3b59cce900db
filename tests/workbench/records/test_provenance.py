"""Provenance says what is known, inside git and out of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from workbench.records import provenance
from workbench.records.provenance import code_state, environment, hardware


def _git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "-q", "-b", "topic")
    (tmp_path / "train.py").write_text("print(1)\n")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_checkout_has_commit_and_branch_and_no_differences(checkout: Path) -> None:
    (checkout / "deep").mkdir()
    state = code_state(checkout / "deep")

    assert len(state.commit) == 40
    assert (state.branch, state.dirty, state.diff_digest) == ("topic", False, "")
    assert Path(state.root).resolve() == checkout.resolve()


def test_changes_new_files_and_their_contents_each_change_the_digest(checkout: Path) -> None:
    digests = []
    for name, text in [("train.py", "print(2)\n"), ("new.py", "1"), ("new.py", "2")]:
        (checkout / name).write_text(text)
        state = code_state(checkout)
        assert state.dirty
        digests.append(state.diff_digest)
    _git(checkout, "add", ".")

    assert len(set(digests)) == 3
    assert all(digest.startswith("sha256:") for digest in digests)
    assert code_state(checkout).dirty


def test_a_checkout_without_a_commit_is_dirty_and_has_no_commit(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("print(1)\n")
    state = code_state(tmp_path)

    assert (state.commit, state.dirty) == ("", True)
    assert state.diff_digest.startswith("sha256:")


def test_outside_git_and_without_git_the_state_is_empty(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    assert code_state(outside).commit == ""
    monkeypatch.setenv("PATH", str(outside))

    assert code_state(checkout).commit == ""
    assert hardware().gpus == ()


def test_the_environment_lists_packages_without_importing_them() -> None:
    found = environment()

    assert found.packages["pytest"] == pytest.__version__
    assert found.torch == found.packages["torch"]
    assert environment().packages_digest == found.packages_digest


def test_the_machine_has_cores_and_memory() -> None:
    found = hardware()

    assert found.cores >= 1
    assert found.memory_bytes > 2**20
    assert found.cpu


def test_tags_are_texts_and_none_is_empty(checkout: Path) -> None:
    (checkout / "train.py").write_text("print(2)\n")
    tags = provenance(checkout, ["wb", "run", "my file.yaml"]).tags()

    assert all(isinstance(value, str) and value for value in tags.values())
    assert tags["wb.git.dirty"] == "true"
    assert tags["wb.command"] == "wb run 'my file.yaml'"
    assert len(tags["mlflow.source.git.commit"]) == 40
