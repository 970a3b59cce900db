"""The record of a run: spool, shipper, MLflow, digests, provenance."""

from .metrics import MetricPoint, record_metrics, record_points
from .mlflow_store import MLflowSink, MLflowStore
from .shipper import Shipper
from .sink import MemorySink, Sink
from .spool import SpoolTracker
from .spool_reader import SpoolReader, read_spool, surviving
from .stored import StoredRun, StoredVersion

__all__ = [
    "MLflowSink",
    "MLflowStore",
    "MemorySink",
    "MetricPoint",
    "Shipper",
    "Sink",
    "SpoolReader",
    "SpoolTracker",
    "StoredRun",
    "StoredVersion",
    "read_spool",
    "record_metrics",
    "record_points",
    "surviving",
]
