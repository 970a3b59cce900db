"""contract: check the table before anything is learnt from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.lifecycle import data
from workbench.lifecycle.contract import check_contract
from workbench.lifecycle.pipeline import Pipeline
from workbench.lifecycle.results import Produced

from .stage import Earlier, Stage, Task


def contract(task: Task) -> Produced:
    """Return how many checks the prepared table passed."""
    settings = task.pipeline.contract
    assert settings is not None
    passed = check_contract(data.load(task.folder_of("prepare")).table, settings)
    return Produced(
        values={"checks": passed},
        summary=f"{passed} checks passed on {len(settings.columns)} columns",
        metrics={"checks_passed": passed},
    )


def _settings(pipeline: Pipeline) -> Mapping[str, Any]:
    assert pipeline.contract is not None
    return pipeline.contract.model_dump(mode="json")


def _inputs(earlier: Earlier) -> Mapping[str, str]:
    return {"data": earlier["prepare"]["digest"]}


CONTRACT = Stage(name="contract", version=1, run=contract, settings=_settings, inputs=_inputs)
