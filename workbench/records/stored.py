"""Runs and model versions as MLflow holds them, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

MODEL_ID_TAG = "wb.model_id"  # MLflow's SQL registry takes a version's model and forgets it


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as MLflow holds it.

    Attributes:
        run_id: MLflow's identifier, 32 hexadecimal digits.
        name: Its name.
        status: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        started_unix: Seconds since 1970.
        ended_unix: Seconds since 1970, or ``None`` while it runs.
        artifact_uri: Where its files are.
        parent_id: Run it belongs to, or empty.
        params: What does not change.
        metrics: Last value of each metric.
        tags: Everything else, MLflow's own tags included.

    Example:
        >>> StoredRun(run_id="0" * 32, name="train", status="RUNNING", started_unix=0.0).finished
        False
    """

    run_id: str
    name: str
    status: str
    started_unix: float
    ended_unix: float | None = None
    artifact_uri: str = ""
    parent_id: str = ""
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it ended well."""
        return self.status == "FINISHED"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersion:
    """One version of a registered model.

    Attributes:
        name: The model's name.
        version: Counts from 1.
        source: Address of the model's files.
        run_id: Run that made it, or empty.
        model_id: MLflow's logged model, or empty.
        aliases: Names that point at it now.
        tags: What was noted with it.
        created_unix: Seconds since 1970.

    Example:
        >>> StoredVersion(name="income", version=2, source="models:/m-1", created_unix=0.0).uri
        'models:/income/2'
    """

    name: str
    version: int
    source: str
    created_unix: float
    run_id: str = ""
    model_id: str = ""
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Address that MLflow's own commands take."""
        return f"models:/{self.name}/{self.version}"


def stored_run(run: Run) -> StoredRun:
    """Return the value of MLflow's run."""
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    ended = run.info.end_time
    return StoredRun(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        status=run.info.status,
        started_unix=run.info.start_time / 1000,
        ended_unix=ended / 1000 if ended else None,
        artifact_uri=run.info.artifact_uri or "",
        parent_id=run.data.tags.get(MLFLOW_PARENT_RUN_ID, ""),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )


def stored_version(version: ModelVersion) -> StoredVersion:
    """Return the value of MLflow's model version."""
    return StoredVersion(
        name=version.name,
        version=int(version.version),
        source=version.source or "",
        created_unix=version.creation_timestamp / 1000,
        run_id=version.run_id or "",
        model_id=version.model_id or (version.tags or {}).get(MODEL_ID_TAG, ""),
        aliases=tuple(version.aliases or ()),
        tags=dict(version.tags or {}),
    )
