"""train: a job in worker processes, its records shipped and watched while it runs, its model kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from workbench.errors import InfrastructureError
from workbench.lifecycle import data
from workbench.lifecycle.callables import code_digest, code_paths, load_callable
from workbench.lifecycle.inputs import link_data
from workbench.lifecycle.note import NOTE_TAG, train_note
from workbench.lifecycle.pipeline import Pipeline, as_parts, workers_range
from workbench.lifecycle.ports import SPOOL, ModelSource, Trained, TrainOrder
from workbench.lifecycle.remarks import remarks
from workbench.lifecycle.results import Produced, write_json
from workbench.lifecycle.watching import Follower
from workbench.record import Record
from workbench.records.digests import file_digest

from .stage import Earlier, Stage, Task

_DRAIN_SECONDS = 60.0
_CHECK_ROWS = 4096


def train(task: Task) -> Produced:
    """Return the weights' digest, the steps taken and the logged model's address.

    Numbers reach the tracking server while training runs, in a thread of its own. When the server
    is away at the end, the records stay in the spool and ``--resume`` sends them, without training
    again.

    Raises:
        InfrastructureError: The tracking server did not take all records in time.
    """
    from workbench.records import decision_rows

    prepared = data.load(task.folder_of("prepare"))
    order = train_order(task.pipeline, task.folder_of("prepare"), task.folder)
    task.store.log_params(task.run_id, params_of(order))
    link_data(task.store, task.run_id, task.pipeline.name, task.earlier["prepare"], "training")
    trained = _trained_before(task) or _train(task, order, len(prepared.rows("train")))
    records = _surviving(trained.records)
    trace_id = task.store.log_decisions(task.run_id, records) if records else ""
    _save_check_rows(task, order.model, trained.weights, prepared)
    model = _log_model(task, order.model, trained.weights)
    summary = _summary(order, trained, records)
    return Produced(
        values={
            "folder": str(task.folder),
            "weights": str(trained.weights),
            "digest": file_digest(trained.weights),
            "records": str(trained.records),
            "steps": trained.steps,
            "samples": trained.samples,
            "stopped": trained.stopped,
            "workers": order.workers,
            "decisions": sum(record.decision.kind != "keep" for record in records),
            "batch_size_start": order.batch_size,
            "batch_size_end": records[-1].facts.batch_size_target if records else order.batch_size,
            "trace_id": trace_id,
            **model,
        },
        summary=summary,
        metrics={"steps": trained.steps, "samples_total": trained.samples},
        tags={
            "wb.weights_digest": file_digest(trained.weights),
            "wb.trace_id": trace_id,
            NOTE_TAG: train_note(summary, decision_rows(records)),
        },
    )


def train_order(pipeline: Pipeline, data_folder: Path, folder: Path) -> TrainOrder:
    """Return the settings as one order for the framework."""
    settings = pipeline.train
    return TrainOrder(
        model=model_source(pipeline),
        inputs=str(data_folder / "train_inputs.npy"),
        targets=str(data_folder / "train_targets.npy"),
        folder=str(folder),
        loss=settings.loss,
        optimizer=settings.optimizer.part(),
        scheduler=settings.scheduler.part() if settings.scheduler else None,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        workers=workers_range(settings.workers)[0],
        seed=settings.seed,
        learning_rate_rule=settings.learning_rate_rule,
        max_batch_size_per_worker=settings.max_batch_size_per_worker,
        clip_grad_norm=settings.clip_grad_norm,
        precision=settings.precision,
        compile=settings.compile,
        monitors=as_parts(settings.monitors),
        policies=as_parts(settings.policies),
        limits=settings.limits.given(),
        overhead=settings.overhead,
        measure_every=settings.measure_every,
        single_worker=settings.single_worker,
        checkpoint_seconds=settings.checkpoint_seconds,
    )


def model_source(pipeline: Pipeline) -> ModelSource:
    """Return how the untrained model is built, after a look that it can be."""
    load_callable(pipeline.train.model, pipeline.search_path, setting="train.model")
    return ModelSource(
        call=pipeline.train.model,
        options=pipeline.train.model_options,
        search_path=pipeline.search_path,
    )


def params_of(order: TrainOrder) -> dict[str, str]:
    """Return what does not change while the job runs, as MLflow parameters.

    Batch size and workers may change: their first values are parameters under a name that says
    so, their course is in the metrics ``batch_size`` and ``workers``.
    """
    plain = {
        key: value
        for key, value in asdict(order).items()
        if key not in {"inputs", "targets", "folder", "batch_size", "workers"}
    }
    renamed = {**plain, "batch_size_start": order.batch_size, "workers_start": order.workers}
    return {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in renamed.items()
    }


def _train(task: Task, order: TrainOrder, rows: int) -> Trained:
    from workbench.records import MLflowSink, Shipper, SpoolReader

    spool = task.folder / SPOOL
    shipper = Shipper(
        SpoolReader(spool),
        MLflowSink(task.store, task.run_id),
        task.folder / f"shipped-{task.run_id}.json",
        report=task.watcher.note,
    ).start()
    follower = Follower(
        spool, task.watcher, samples_total=rows * order.epochs, epochs=order.epochs
    ).start()
    try:
        trained = task.framework.train(order, resume=task.resume, should_stop=task.should_stop)
    except BaseException:
        follower.close()
        if shipper.close(timeout=_DRAIN_SECONDS / 4):
            _keep_decisions_of_a_failure(task, spool)
        raise
    _remember(task.folder, trained)
    follower.close()
    _drained(shipper.close(timeout=_DRAIN_SECONDS), spool)
    return trained


def _keep_decisions_of_a_failure(task: Task, spool: Path) -> None:
    records = _surviving(spool)
    try:
        if records:
            task.store.log_decisions(task.run_id, records)
    except InfrastructureError as error:  # the failure itself is the message, not this
        task.watcher.note(f"the decisions are in {spool}, but not on the server: {error}")


def _trained_before(task: Task) -> Trained | None:
    """Return the training that ended before, when only its records were not all sent."""
    from workbench.records import MLflowSink, Shipper, SpoolReader

    marker = task.folder / "trained.json"
    if not (task.resume and marker.exists()):
        return None
    plain = json.loads(marker.read_text(encoding="utf-8"))
    trained = Trained(
        **{**plain, "weights": Path(plain["weights"]), "records": Path(plain["records"])}
    )
    shipper = Shipper(
        SpoolReader(trained.records),
        MLflowSink(task.store, task.run_id),
        task.folder / f"shipped-{task.run_id}.json",
        report=task.watcher.note,
    ).start()
    _drained(shipper.close(timeout=_DRAIN_SECONDS), trained.records)
    return trained


def _remember(folder: Path, trained: Trained) -> None:
    plain = asdict(trained)
    write_json(folder / "trained.json", plain)


def _drained(all_sent: bool, spool: Path) -> None:
    if not all_sent:
        raise InfrastructureError(
            f"training ended, but the tracking server did not take all records within "
            f"{_DRAIN_SECONDS:g} s; they are kept in {spool}; wb run --resume sends the rest"
        )


def _surviving(spool: Path) -> list[Record]:
    from workbench.records import read_spool, surviving

    if not spool.exists():
        return []
    return surviving(record for record, _ in read_spool(spool))


def _save_check_rows(
    task: Task, model: ModelSource, weights: Path, prepared: data.Prepared
) -> None:
    """Keep rows the job never saw with the outputs of the trained weights, for deploy to repeat."""
    import numpy as np

    held_back = prepared.rows("held_back")
    rows = (held_back if len(held_back) else prepared.rows("test"))[:_CHECK_ROWS]
    inputs = np.ascontiguousarray(prepared.inputs[rows])
    np.save(task.folder / "check_inputs.npy", inputs)
    np.save(task.folder / "check_outputs.npy", task.framework.predict(model, weights, inputs))


def _log_model(task: Task, model: ModelSource, weights: Path) -> dict[str, str]:
    import numpy as np

    from workbench.records.mlflow_model import Rebuild, log_torch_model

    module = task.framework.build(model, weights)
    example = np.load(task.folder / "check_inputs.npy")[:2]
    rebuild = Rebuild(
        call=model.call,
        arguments=dict(model.options),
        code_paths=code_paths(model.call, model.search_path),
    )
    logged = log_torch_model(
        task.store, task.run_id, module, example, task.pipeline.name, rebuild=rebuild
    )
    if logged.why_not_pt2:
        task.watcher.note(f"the model is kept as safetensors, not pt2: {logged.why_not_pt2}")
    return {"model_uri": logged.uri, "model_id": logged.model_id, "model_format": logged.format}


def _summary(order: TrainOrder, trained: Trained, records: list[Record]) -> str:
    ended = records[-1].facts.batch_size_target if records else order.batch_size
    batch = f"{order.batch_size} -> {ended}" if ended != order.batch_size else str(ended)
    loss = next((r.facts.loss for r in reversed(records) if r.facts.loss is not None), None)
    said = [
        f"{trained.steps:,} steps on {order.workers} worker{'s' * (order.workers > 1)}",
        f"batch {batch}",
    ]
    if loss is not None:
        said.append(f"loss {loss:.4g}")
    if trained.stopped:
        said.append(f"stopped: {trained.stopped}")
    return "; ".join([", ".join(said), *remarks(records)])


def _settings(pipeline: Pipeline) -> Mapping[str, Any]:
    # The worker count is part of it: with the batch held the weights agree, but the noise scale is
    # measured from other small batches, so decisions may differ. How often a checkpoint is saved
    # changes nothing.
    return pipeline.train.model_dump(mode="json", exclude={"checkpoint_seconds"})


def _inputs(earlier: Earlier) -> Mapping[str, str]:
    return {"data": earlier["prepare"]["digest"]}


def _code(pipeline: Pipeline) -> Mapping[str, str]:
    settings = pipeline.train
    named = [settings.model, settings.loss, settings.optimizer.name]
    named += [settings.scheduler.name] if settings.scheduler else []
    named += [part.name for part in (*as_parts(settings.monitors), *as_parts(settings.policies))]
    calls = [name for name in named if ":" in name]
    code = {call.partition(":")[0]: code_digest(call, pipeline.search_path) for call in calls}
    return {**code, "torch": _torch_version()}


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "none"


TRAIN = Stage(
    name="train",
    version=1,
    run=train,
    settings=_settings,
    inputs=_inputs,
    code=_code,
    resumable=True,
)
