"""The record of a run: spool, shipper, MLflow, models, digests, provenance."""

from .digests import (
    array_digest,
    bytes_digest,
    file_digest,
    folder_digest,
    json_digest,
    path_digest,
    source_digest,
)
from .metrics import MetricPoint, record_metrics, record_points
from .mlflow_client import environment as mlflow_environment
from .mlflow_client import serving_environment
from .mlflow_decisions import decision_rows
from .mlflow_model import LoggedTorchModel, Rebuild, log_torch_model
from .mlflow_registry import ModelRegistry
from .mlflow_sink import MLflowSink
from .mlflow_store import MLflowStore
from .provenance import CodeState, Environment, Hardware, Provenance, provenance
from .shipper import Shipper
from .sink import MemorySink, Sink
from .spool import SpoolTracker
from .spool_reader import SpoolReader, read_spool, surviving
from .stored import StoredRun, StoredVersion

__all__ = [
    "CodeState",
    "Environment",
    "Hardware",
    "LoggedTorchModel",
    "MLflowSink",
    "MLflowStore",
    "MemorySink",
    "MetricPoint",
    "ModelRegistry",
    "Provenance",
    "Rebuild",
    "Shipper",
    "Sink",
    "SpoolReader",
    "SpoolTracker",
    "StoredRun",
    "StoredVersion",
    "array_digest",
    "bytes_digest",
    "decision_rows",
    "file_digest",
    "folder_digest",
    "json_digest",
    "log_torch_model",
    "mlflow_environment",
    "path_digest",
    "provenance",
    "read_spool",
    "record_metrics",
    "record_points",
    "serving_environment",
    "source_digest",
    "surviving",
]
