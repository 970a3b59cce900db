"""Runs, metrics and artifacts in MLflow, and with them the whole tracking server."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from workbench.errors import InfrastructureError, UsageError
from workbench.record import Record

from .metrics import MetricPoint
from .mlflow_decisions import decision_rows, log_decision_spans
from .mlflow_registry import ModelRegistry, quoted, texts
from .provenance import user_name
from .stored import StoredRun, stored_run

_METRICS_A_CALL = 1000
_PARAMS_A_CALL = 100
_KIND_TAG = "mlflow.experimentKind"
_KIND = "custom_model_development"  # else MLflow's UI takes the runs for evaluations of prompts
_DIGEST_CHARACTERS = 36  # what MLflow keeps of a data set's digest


class MLflowStore(ModelRegistry):
    """The tracking server of one workspace, by explicit client calls: no active run, no global.

    Args:
        workspace: Folder of ``mlflow.db`` and ``artifacts``; made when missing.
        tracking_uri: A server or database instead of ``<workspace>/mlflow.db``.
        experiment: Name of the MLflow experiment; made when missing.

    Attributes:
        workspace: The folder, absolute.
        tracking_uri: The address in use.
        experiment: Name of the experiment.

    Raises:
        InfrastructureError: The folder cannot be written or the server does not answer.
        UsageError: MLflow knows no such address.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = MLflowStore(folder)
        ...     run_id = store.start_run("train")
        ...     store.log_metrics(run_id, {"loss": 0.5}, step=1)
        ...     store.end_run(run_id)
        ...     store.get_run(run_id).metrics, store.get_run(run_id).finished
        ({'loss': 0.5}, True)
    """

    def __init__(
        self,
        workspace: str | Path,
        *,
        tracking_uri: str | None = None,
        experiment: str = "workbench",
    ) -> None:
        self.workspace = Path(workspace).absolute()
        self.experiment = experiment
        database = self.workspace / "mlflow.db"
        if tracking_uri is None:
            _make_writable(self.workspace)
        super().__init__(tracking_uri or f"sqlite:///{database}")
        if tracking_uri is None:
            with self._talking("preparing the database"):
                _write_ahead(database)
        self._experiment_id = ""

    @property
    def experiment_id(self) -> str:
        """Identifier of the experiment, which is made at the first call."""
        if not self._experiment_id:
            with self._talking("opening the experiment"):
                self._experiment_id = self._find_experiment()
        return self._experiment_id

    def ping(self) -> None:
        """Raise :class:`InfrastructureError` unless the server answers."""
        with self._talking("asking whether it answers"):
            self._client.search_experiments(max_results=1)

    # Runs

    def start_run(
        self,
        name: str,
        *,
        parent_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> str:
        """Create a run and return its identifier.

        Args:
            name: Shown in the UI; need not be unique.
            parent_id: Run under which it is shown.
            tags: Noted with it.
            params: What does not change; see :meth:`log_params`.
        """
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_SOURCE_TYPE, MLFLOW_USER

        own = {MLFLOW_USER: user_name(), MLFLOW_SOURCE_TYPE: "LOCAL"}
        if parent_id:
            own[MLFLOW_PARENT_RUN_ID] = parent_id
        experiment_id = self.experiment_id
        with self._talking(f"starting run {name}"):
            run = self._client.create_run(
                experiment_id, run_name=name, tags=own | texts(tags or {})
            )
        run_id = str(run.info.run_id)
        if params:
            self.log_params(run_id, params)
        return run_id

    def end_run(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        with self._talking(f"ending run {run_id}"):
            self._client.set_terminated(run_id, status)

    def resume_run(self, run_id: str) -> None:
        """Mark an ended run as running again."""
        with self._talking(f"resuming run {run_id}"):
            self._client.update_run(run_id, status="RUNNING")

    def get_run(self, run_id: str) -> StoredRun:
        """Return a run; raises :class:`UsageError` when there is none."""
        with self._talking(f"reading run {run_id}"):
            return stored_run(self._client.get_run(run_id))

    def find_runs(
        self,
        *,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        parent_id: str | None = None,
        most: int = 100,
    ) -> list[StoredRun]:
        """Return the runs that fit all that is given, the newest first."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

        wanted = dict(tags or {})
        if name is not None:
            wanted[MLFLOW_RUN_NAME] = name
        if parent_id is not None:
            wanted[MLFLOW_PARENT_RUN_ID] = parent_id
        query = " and ".join(f"tags.`{key}` = {quoted(value)}" for key, value in wanted.items())
        experiment_id = self.experiment_id
        with self._talking("searching runs"):
            runs = self._client.search_runs(
                [experiment_id], query, max_results=most, order_by=["attributes.start_time DESC"]
            )
        return [stored_run(run) for run in runs]

    def children(self, run_id: str) -> list[StoredRun]:
        """Return the runs under a run, the oldest first."""
        return self.find_runs(parent_id=run_id, most=1000)[::-1]

    # What a run holds

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Note what does not change; the same value again is allowed, another one is not."""
        from mlflow.entities import Param

        entries = [Param(key, str(value)) for key, value in params.items()]
        with self._talking(f"noting parameters of run {run_id}"):
            for some in _parts(entries, _PARAMS_A_CALL):
                self._client.log_batch(run_id, params=some)

    def log_metrics(
        self, run_id: str, metrics: Mapping[str, float], step: int = 0, unix_ms: int | None = None
    ) -> None:
        """Note numbers at one step; NaN and infinity are kept (infinity as the largest float)."""
        now = round(time.time() * 1000) if unix_ms is None else unix_ms
        self.log_metric_batch(
            run_id,
            [
                MetricPoint(name=name, value=float(value), step=step, unix_ms=now)
                for name, value in metrics.items()
            ],
        )

    def log_metric_batch(self, run_id: str, points: Sequence[MetricPoint]) -> None:
        """Note any number of points, 1,000 a call; a point noted before changes nothing."""
        from mlflow.entities import Metric

        with self._talking(f"noting metrics of run {run_id}"):
            for some in _parts(points, _METRICS_A_CALL):
                self._client.log_batch(
                    run_id,
                    metrics=[
                        Metric(point.name, point.value, point.unix_ms, point.step) for point in some
                    ],
                )

    def metric_history(self, run_id: str, name: str) -> list[MetricPoint]:
        """Return a metric's points by step, then by time."""
        with self._talking(f"reading metric {name} of run {run_id}"):
            history = self._client.get_metric_history(run_id, name)
        points = [
            MetricPoint(name=name, value=item.value, step=item.step, unix_ms=item.timestamp)
            for item in history
        ]
        return sorted(points, key=lambda point: (point.step, point.unix_ms))

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Note tags, replacing those of the same name."""
        from mlflow.entities import RunTag

        with self._talking(f"noting tags of run {run_id}"):
            self._client.log_batch(
                run_id, tags=[RunTag(key, value) for key, value in texts(tags).items()]
            )

    def log_artifact(self, run_id: str, path: str | Path, folder: str | None = None) -> None:
        """Keep a file with the run."""
        with self._talking(f"keeping {path} with run {run_id}"):
            self._client.log_artifact(run_id, str(path), folder)

    def log_artifacts(self, run_id: str, path: str | Path, folder: str | None = None) -> None:
        """Keep a folder's files with the run."""
        with self._talking(f"keeping {path} with run {run_id}"):
            self._client.log_artifacts(run_id, str(path), folder)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Keep a text as the file ``name`` with the run."""
        with self._talking(f"keeping {name} with run {run_id}"):
            self._client.log_text(run_id, text, name)

    def log_json(self, run_id: str, value: Any, name: str) -> None:
        """Keep a value as the JSON file ``name``; NaN is written as Python writes it."""
        self.log_text(run_id, json.dumps(value, indent=2), name)

    def log_table(self, run_id: str, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Keep rows as a table that MLflow's UI shows, replacing one of the same name.

        Args:
            run_id: The run.
            rows: Dictionaries with the same keys; values of plain JSON types.
            name: File name, ending in ``.json``.
        """
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

        columns = list(rows[0]) if rows else []
        data = [[row.get(column) for column in columns] for row in rows]
        self.log_json(run_id, {"columns": columns, "data": data}, name)
        with self._talking(f"keeping {name} with run {run_id}"):
            tags = self._client.get_run(run_id).data.tags
        shown = json.loads(tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        entry = {"path": name, "type": "table"}
        if entry not in shown:
            self.set_tags(run_id, {MLFLOW_LOGGED_ARTIFACTS: json.dumps([*shown, entry])})

    def artifact_path(self, run_id: str, name: str, to: str | Path | None = None) -> Path:
        """Return the local path of what a run keeps: the file itself, or a copy of a remote one.

        Args:
            run_id: The run.
            name: Of a file or folder.
            to: Copy it into this folder; a remote one goes to a new temporary folder if not given.
        """
        with self._talking(f"reading run {run_id}"):
            root = str(self._client.get_run(run_id).info.artifact_uri)
        if to is None and root.startswith("file:"):
            local = Path(url2pathname(urlsplit(root).path)) / name
            if not local.exists():
                raise UsageError(
                    f"run {run_id} keeps no {name}; it keeps what is in {local.parent}"
                )
            return local
        with self._talking(f"fetching {name} of run {run_id}"):
            path = self._client.download_artifacts(run_id, name, None if to is None else str(to))
        return Path(path)

    def artifact_names(self, run_id: str, folder: str | None = None) -> list[str]:
        """Return the names of all files a run keeps, folders opened."""
        with self._talking(f"listing files of run {run_id}"):
            entries = self._client.list_artifacts(run_id, folder)
        names: list[str] = []
        for entry in entries:
            names += self.artifact_names(run_id, entry.path) if entry.is_dir else [entry.path]
        return names

    def log_input(
        self,
        run_id: str,
        *,
        name: str,
        digest: str,
        source: str,
        context: str,
        schema: Mapping[str, str] | None = None,
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """Link a data set to the run.

        Args:
            run_id: The run.
            name: Of the data set, such as ``income/train``.
            digest: Its content digest; MLflow keeps 36 characters, the profile keeps it whole.
            source: Path or address it was read from.
            context: Such as ``training`` or ``evaluation``.
            schema: Type of each column by name.
            profile: Such as the number of rows.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        columns = [{"name": key, "type": kind} for key, kind in (schema or {}).items()]
        dataset = Dataset(
            name=name,
            digest=digest.removeprefix("sha256:")[:_DIGEST_CHARACTERS],
            source_type="local" if "://" not in source else source.split("://")[0],
            source=json.dumps({"uri": source}),
            schema=json.dumps({"columns": columns}) if columns else None,
            profile=json.dumps({"digest": digest, **(profile or {})}),
        )
        tag = InputTag("mlflow.data.context", context)
        with self._talking(f"linking data to run {run_id}"):
            self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, [tag])])

    def log_decisions(self, run_id: str, records: Iterable[Record]) -> str:
        """Keep every decision as a row of ``decisions.json`` and as a span of one trace.

        A span costs some 20 ms, so call it after training.

        Args:
            run_id: The run that trained.
            records: Its history; records without a decision are passed over.

        Returns:
            The trace's identifier, empty when nothing was decided.
        """
        kept = list(records)
        self.log_table(run_id, decision_rows(kept), "decisions.json")
        experiment_id = self.experiment_id
        with self._talking(f"tracing decisions of run {run_id}"):
            return log_decision_spans(self._client, experiment_id, run_id, kept)

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        local = None if self.tracking_uri.startswith("http") else self.workspace / "artifacts"
        try:
            return self._client.create_experiment(
                self.experiment,
                artifact_location=local.as_uri() if local else None,
                tags={_KIND_TAG: _KIND},
            )
        except MlflowException:  # another process was faster
            found = self._client.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            return str(found.experiment_id)


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InfrastructureError(
            f"the workspace {folder} cannot be written: {error.strerror}; make it writable or give "
            "another with --workspace"
        ) from error


def _write_ahead(database: Path) -> None:
    # Readers (the UI) and the shipper then do not lock each other out, and a commit brings one
    # file to the disk instead of two. The mode is a property of the file and stays.
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _parts(items: Sequence[Any], most: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + most] for start in range(0, len(items), most))
