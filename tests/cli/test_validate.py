"""`wb validate` and `wb schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.cli import main

BAD = """name: tiny
prepare: {call: "nowhere:load"}
train:
  model: "workbench.examples.digits.model:build"
  policies: [{grow_with_nois: {}}]
"""


def test_the_bundled_example_is_valid(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outside.exists()
    assert main(["validate", "digits"]) == 0
    assert capsys.readouterr().out.endswith("pipeline.yaml: valid\n")


def test_every_problem_is_a_line_with_its_place(
    outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outside / "pipeline.yaml").write_text(BAD)
    assert main(["validate", "pipeline.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("wb: pipeline.yaml:2: ")
    assert lines[1].startswith("wb: pipeline.yaml:5: ")
    assert "grow_with_nois" in lines[1]


def test_json_has_the_problems_as_a_list(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outside / "pipeline.yaml").write_text("name: tiny\nbogus: 1\n")
    assert main(["validate", "pipeline.yaml", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["valid"], told["exit_code"]) == (False, 2)
    assert any("bogus" in problem for problem in told["problems"])


def test_a_script_is_not_a_pipeline(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outside / "train.py").touch()
    assert main(["validate", "train.py"]) == 2
    assert "is a script" in capsys.readouterr().err


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["name", "prepare", "train"]
