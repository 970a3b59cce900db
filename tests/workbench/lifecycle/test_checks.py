"""Everything that shows without running."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from workbench.lifecycle import Pipeline, find_problems, load_pipeline
from workbench.lifecycle.ports import Part


def problems(project: Any, *overrides: str, **options: Any) -> list[str]:
    return find_problems(load_pipeline(project.folder / "pipeline.yaml", overrides), **options)


def test_a_good_pipeline_has_no_problem(project: Any) -> None:
    assert problems(project) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("prepare.call=tiny_prepare:lod", "tiny_prepare has no lod; it has: load"),
        ("prepare.row=3", "it takes: rows, shift, seed; did you mean rows?"),
        ("prepare.path=/nowhere.csv", "/nowhere.csv"),
        ("train.model=nowhere:build", "no module nowhere"),
        ("train.model_options={width: 3}", "it takes: nothing"),
        ("train.loss=cross_entrpy", "did you mean cross_entropy?"),
        ("train.loss=tiny_model:loss", "tiny_model has no loss"),
        ("train.policies=[tiny_model:Grow]", "tiny_model has no Grow"),
        ("audit.gates=[{metric: fairness, max: 0.1}]", "gate metric is 'fairness'"),
    ],
)
def test_each_problem_is_one_located_line(project: Any, override: str, said: str) -> None:
    found = problems(project, override)
    assert any(said in line for line in found)
    assert all("\n" not in line for line in found)
    assert found[0].startswith(("command line (", "pipeline.yaml:"))


def test_parts_are_judged_by_the_floor_above(project: Any) -> None:
    asked: list[tuple[str, str]] = []

    def check_part(kind: str, part: Part) -> str:
        asked.append((kind, part.name))
        return "no such policy" if kind == "policy" else ""

    found = problems(project, "train.scheduler={name: cosine}", check_part=check_part)
    assert found == ["pipeline.yaml:10: no such policy"]
    assert {("policy", "grow_with_noise"), ("optimizer", "sgd"), ("scheduler", "cosine")} <= set(
        asked
    )


def test_the_bundled_examples_have_no_problem() -> None:
    from pathlib import Path

    import workbench

    for name in ("digits", "income"):
        file = Path(workbench.__file__).parent / "examples" / name / "pipeline.yaml"
        assert find_problems(load_pipeline(file)) == []


def test_a_pipeline_made_in_python_needs_no_file() -> None:
    pipeline = Pipeline.model_validate(
        {
            "name": "made",
            "prepare": {"call": "workbench.examples.digits.prepare:load"},
            "train": {"model": "workbench.examples.digits.model:build"},
        }
    )
    assert find_problems(pipeline) == []


def test_the_contract_for_workers_is_read_with_the_standard_library_alone() -> None:
    code = (
        "import sys, workbench.lifecycle.ports; "
        "heavy = {'numpy', 'pydantic', 'pandas', 'mlflow', 'torch', 'yaml'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
