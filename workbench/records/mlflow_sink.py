"""Send a spool's numbers to one MLflow run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .metrics import MetricPoint

if TYPE_CHECKING:
    from .mlflow_store import MLflowStore


class MLflowSink:
    """A sink that notes numbers in one MLflow run.

    Args:
        store: The tracking server.
        run_id: The run.

    Example:
        >>> from workbench.records import MLflowStore
        >>> store = MLflowStore(".", tracking_uri="http://127.0.0.1:5000")
        >>> MLflowSink(store, "a1b2").name
        'run a1b2 on http://127.0.0.1:5000'
    """

    def __init__(self, store: MLflowStore, run_id: str) -> None:
        self.run_id = run_id
        self._store = store

    @property
    def name(self) -> str:
        """Server and run."""
        return f"run {self.run_id} on {self._store.tracking_uri}"

    def send(self, points: Sequence[MetricPoint]) -> None:
        """Note the points."""
        self._store.log_metric_batch(self.run_id, points)
