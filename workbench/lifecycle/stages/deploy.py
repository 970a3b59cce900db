"""deploy: load the version in a fresh process, repeat the trained outputs, and only then alias it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from workbench.lifecycle.pipeline import Pipeline
from workbench.lifecycle.results import Kept, Produced, write_json
from workbench.lifecycle.score_check import check_version

from .register import verdict_of
from .stage import Earlier, Stage, Task


def deploy(task: Task) -> Produced:
    """Return the deployment record; the alias is set when the served outputs are the trained ones.

    Raises:
        StageError: The version cannot be loaded, or its outputs differ: the alias stays.
    """
    settings = task.pipeline.deploy
    assert settings is not None
    model, version = task.earlier["register"]["model"], int(task.earlier["register"]["version"])
    checked = check_version(
        tracking_uri=task.store.tracking_uri,
        model_uri=task.earlier["register"]["uri"],
        folder=task.folder,
        inputs=task.folder_of("train") / "check_inputs.npy",
        outputs=task.folder_of("train") / "check_outputs.npy",
        rows=settings.rows,
        tolerance=settings.tolerance,
        timeout_seconds=settings.timeout_seconds,
    )
    replaced = task.store.get_alias(model, settings.alias)
    record = {
        "model": model,
        "version": version,
        "alias": settings.alias,
        "replaced_version": replaced.version if replaced else None,
        "pipeline": task.pipeline.name,
        "pipeline_run": task.parent_id,
        "train_run": task.earlier["train"]["run_id"],
        "data_digest": task.earlier["prepare"]["digest"],
        "weights_digest": task.earlier["train"]["digest"],
        "audit_run": task.earlier.get("audit", {}).get("run_id"),
        "verdict": verdict_of(task.earlier),
        "deployed_by": _who(),
        "deployed_unix": time.time(),
        "check": {
            "rows": checked.rows,
            "largest_difference": checked.largest_difference,
            "tolerance": settings.tolerance,
        },
    }
    write_json(task.folder / "deployment.json", record)
    task.store.set_alias(model, settings.alias, version)
    task.store.set_version_tags(model, version, _version_tags(record))
    return Produced(
        values={"folder": str(task.folder), **record},
        summary=(
            f"{model}@{settings.alias} is version {version}"
            + (f" (was {replaced.version})" if replaced and replaced.version != version else "")
            + f"; {checked.rows} rows served as trained within {settings.tolerance:g}"
            + f" (largest difference {checked.largest_difference:.2g})"
        ),
        metrics={"largest_difference": checked.largest_difference, "rows_checked": checked.rows},
        tags={"wb.alias": settings.alias, "wb.model": model, "wb.version": str(version)},
        artifacts=("deployment.json",),
    )


def _version_tags(record: Mapping[str, Any]) -> dict[str, str]:
    return {
        "wb.deployed_unix": f"{record['deployed_unix']:.3f}",
        "wb.deployed_by": record["deployed_by"],
        "wb.deployed_as": record["alias"],
        "wb.replaced_version": str(record["replaced_version"] or ""),
        "wb.verdict": record["verdict"],
    }


def _who() -> str:
    from workbench.records.provenance import user_name

    return user_name()


def _outdated(kept: Kept, store: Any) -> str:
    values = kept.produced.values
    now = store.get_alias(values["model"], values["alias"])
    if now is None or now.version != values["version"]:
        where = f"version {now.version}" if now else "nothing"
        return f"the alias {values['alias']} points at {where} now"
    return ""


def _settings(pipeline: Pipeline) -> Mapping[str, Any]:
    assert pipeline.deploy is not None
    return pipeline.deploy.model_dump(mode="json", exclude={"timeout_seconds"})


def _inputs(earlier: Earlier) -> Mapping[str, str]:
    return {"version": earlier["register"]["uri"], "weights": earlier["train"]["digest"]}


DEPLOY = Stage(
    name="deploy", version=1, run=deploy, settings=_settings, inputs=_inputs, outdated=_outdated
)
