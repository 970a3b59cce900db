"""register: add the trained model to the registry as a new version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import UsageError
from workbench.lifecycle.note import version_note
from workbench.lifecycle.pipeline import Pipeline
from workbench.lifecycle.results import Kept, Produced
from workbench.records.mlflow_client import talking

from .stage import Earlier, Stage, Task

if TYPE_CHECKING:
    from workbench.records import MLflowStore

NOT_AUDITED = "not audited"


def register(task: Task) -> Produced:
    """Return the new version; its tags say which run, data and verdict it stands on."""
    settings = task.pipeline.register_
    assert settings is not None
    trained, verdict = task.earlier["train"], verdict_of(task.earlier)
    version = task.store.register_model(
        settings.model,
        model_files(task.store, trained),
        run_id=trained["run_id"],
        model_id=trained["model_id"] or None,
        tags={
            "wb.pipeline": task.pipeline.name,
            "wb.pipeline_run": task.parent_id,
            "wb.train_run": trained["run_id"],
            "wb.data_digest": task.earlier["prepare"]["digest"],
            "wb.weights_digest": trained["digest"],
            "wb.verdict": verdict,
        },
        description=settings.description
        or version_note(task.earlier.get("evaluate", {}).get("metrics", {}), verdict),
    )
    return Produced(
        values={
            "model": settings.model,
            "version": version.version,
            "uri": version.uri,
            "source": version.source,
        },
        summary=f"{settings.model} version {version.version}",
        tags={"wb.model": settings.model, "wb.version": str(version.version)},
    )


def model_files(store: MLflowStore, trained: Mapping[str, Any]) -> str:
    """Return where the trained model's files are.

    MLflow's registry resolves ``models:/m-...`` at the process-wide tracking server, which need
    not be this one; an address of files means the same everywhere.
    """
    with talking(store.tracking_uri, f"reading model {trained['model_id']}"):
        return str(store.client.get_logged_model(trained["model_id"]).artifact_location)


def verdict_of(earlier: Earlier) -> str:
    """Return the audit's verdict, or that there was none."""
    return str(earlier.get("audit", {}).get("verdict", NOT_AUDITED))


def _outdated(kept: Kept, store: Any) -> str:
    model, version = kept.produced.values["model"], kept.produced.values["version"]
    try:
        store.get_version(model, version)
    except UsageError:
        return f"{model} version {version} is no longer in the registry"
    return ""


def _settings(pipeline: Pipeline) -> Mapping[str, Any]:
    assert pipeline.register_ is not None
    return pipeline.register_.model_dump(mode="json")


def _inputs(earlier: Earlier) -> Mapping[str, str]:
    return {
        "data": earlier["prepare"]["digest"],
        "weights": earlier["train"]["digest"],
        "model": earlier["train"]["model_uri"],
        "audit": str(earlier.get("audit", {}).get("digest", NOT_AUDITED)),
    }


REGISTER = Stage(
    name="register",
    version=1,
    run=register,
    settings=_settings,
    inputs=_inputs,
    outdated=_outdated,
)
