"""evaluate: predict the test rows, and compute the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import StageError
from workbench.lifecycle import data
from workbench.lifecycle.callables import code_digest
from workbench.lifecycle.inputs import link_data
from workbench.lifecycle.pipeline import Pipeline
from workbench.lifecycle.results import Produced
from workbench.lifecycle.scoring import Predictions, default_metrics, predictions_of, score
from workbench.records.digests import file_digest

from .stage import Earlier, Stage, Task
from .train import model_source


def evaluate(task: Task) -> Produced:
    """Return the metrics; ``predictions.parquet`` holds row, label, prediction and score."""
    import numpy as np

    settings = task.pipeline.evaluate
    assert settings is not None
    link_data(task.store, task.run_id, task.pipeline.name, task.earlier["prepare"], "evaluation")
    prepared = data.load(task.folder_of("prepare"))
    rows = prepared.rows("test")
    inputs = np.ascontiguousarray(prepared.inputs[rows])
    weights = Path(task.earlier["train"]["weights"])
    outputs = task.framework.predict(model_source(task.pipeline), weights, inputs)
    if len(outputs) != len(rows):
        raise StageError(
            f"the model returned {len(outputs):,} outputs for {len(rows):,} rows; "
            "return one output a row",
            stage="evaluate",
        )
    predictions = predictions_of(outputs, prepared.classes)
    targets = prepared.targets[rows]
    names = tuple(settings.metrics) or default_metrics(prepared.classes)
    metrics, undefined = score(names, targets, predictions)
    for name, reason in undefined.items():
        task.watcher.note(f"{name} is undefined: {reason}")
    file = task.folder / "predictions.parquet"
    _save(file, rows, targets, predictions)
    return Produced(
        values={
            "folder": str(task.folder),
            "predictions": str(file),
            "digest": file_digest(file),
            "rows": len(rows),
            "metrics": metrics,
            "undefined": undefined,
        },
        summary=", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        + f" on {len(rows):,} test rows",
        metrics=metrics,
        artifacts=(file.name,),
    )


def _save(file: Path, rows: Any, targets: Any, predictions: Predictions) -> None:
    import pandas as pd

    columns = {"row": rows, "label": targets, "prediction": predictions.values}
    if predictions.score is not None:
        columns["score"] = predictions.score
    pd.DataFrame(columns).to_parquet(file, index=False)


def _settings(pipeline: Pipeline) -> Mapping[str, Any]:
    assert pipeline.evaluate is not None
    return {
        **pipeline.evaluate.model_dump(mode="json"),
        "model_options": pipeline.train.model_options,
    }


def _inputs(earlier: Earlier) -> Mapping[str, str]:
    return {"data": earlier["prepare"]["digest"], "weights": earlier["train"]["digest"]}


def _code(pipeline: Pipeline) -> Mapping[str, str]:
    call = pipeline.train.model
    return {call.partition(":")[0]: code_digest(call, pipeline.search_path)}


EVALUATE = Stage(
    name="evaluate", version=1, run=evaluate, settings=_settings, inputs=_inputs, code=_code
)
