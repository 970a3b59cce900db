"""prepare: call the user's function, check what it returns, divide it, and keep it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workbench.errors import DataContractError, StageError, WorkbenchError
from workbench.lifecycle import data
from workbench.lifecycle.callables import code_digest, load_callable
from workbench.lifecycle.keys import with_file_digests
from workbench.lifecycle.pipeline import Pipeline
from workbench.lifecycle.results import Produced
from workbench.lifecycle.scoring import check_metrics

from .audit import check_gates
from .stage import Stage, Task


def prepare(task: Task) -> Produced:
    """Return the data's digest and shape; the data themselves are in the stage's folder."""
    settings = task.pipeline.prepare
    prepared = data.checked(_called(task.pipeline), settings.call)
    if prepared.split is None:
        wanted = settings.split
        split = data.split_rows(
            prepared.targets,
            test=wanted.test,
            held_back=wanted.held_back,
            seed=wanted.seed,
            stratify=wanted.stratify,
        )
        prepared = data.checked(replace(prepared, split=split), settings.call)
    digest = data.save(prepared, task.folder)
    counts = {name: len(prepared.rows(name)) for name in data.SPLITS}
    shape = prepared.inputs.shape[1:]
    values = {
        "folder": str(task.folder),
        "digest": digest,
        "rows": len(prepared.table),
        "input_shape": list(shape),
        "classes": prepared.classes,
        "split": counts,
        "columns": {str(name): str(kind) for name, kind in prepared.table.dtypes.items()},
        "source": str(settings.options.get("path") or settings.call),
    }
    kind = f"{prepared.classes} classes" if prepared.classes else "regression"
    return Produced(
        values=values,
        summary=(
            f"{len(prepared.table):,} rows of {' x '.join(map(str, shape)) or '1'}, {kind}: "
            + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
        ),
        metrics={"rows": len(prepared.table), **{f"rows_{k}": v for k, v in counts.items()}},
        params={"call": settings.call, **settings.options},
        tags={"wb.data_digest": digest},
    )


def _called(pipeline: Pipeline) -> Any:
    settings = pipeline.prepare
    function = load_callable(settings.call, pipeline.search_path, setting="prepare.call")
    _check_options(function, settings.call, settings.options)
    try:
        return function(**settings.options)
    except WorkbenchError:
        raise
    except FileNotFoundError as error:
        raise DataContractError(
            f"{settings.call}: there is no file {error.filename}; give its path with prepare.path="
        ) from error
    except KeyError as error:
        raise DataContractError(
            f"{settings.call}: column or key {error} is missing ({_place(error)})"
        ) from error
    except OSError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything, and leave
        raise StageError(
            f"{settings.call} raised {type(error).__name__}: {error} ({_place(error)})",
            stage="prepare",
        ) from error


def _check_options(function: Any, call: str, options: Mapping[str, Any]) -> None:
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(function).parameters) or "nothing"
        raise DataContractError(f"prepare: {call}: {error}; it takes: {takes}") from None


def _place(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename.rpartition('/')[2]}:{last.lineno}"


def check_later_stages(pipeline: Pipeline, prepared: Mapping[str, Any]) -> None:
    """Raise when a later stage cannot work on these data: found before training, not after it.

    Args:
        pipeline: The settings.
        prepared: Values of the prepare stage, made now or reused.

    Raises:
        ConfigurationError: A metric or gate does not fit the targets.
        DataContractError: The table lacks an attribute of the audit.
    """
    if pipeline.evaluate:
        check_metrics(pipeline.evaluate.metrics, prepared["classes"])
    if pipeline.audit is None:
        return
    for attribute in pipeline.audit.attributes:
        if attribute.partition("@")[0] not in prepared["columns"]:
            raise DataContractError(
                f"audit.attributes names {attribute}, which the table lacks; "
                f"it has: {', '.join(prepared['columns'])}"
            )
    check_gates(pipeline.audit, prepared["classes"])


def _settings(pipeline: Pipeline) -> Mapping[str, Any]:
    prepare = pipeline.prepare
    return {
        "call": prepare.call,
        "split": prepare.split.model_dump(mode="json"),
        **with_file_digests(prepare.options),
    }


def _code(pipeline: Pipeline) -> Mapping[str, str]:
    call = pipeline.prepare.call
    return {call.partition(":")[0]: code_digest(call, pipeline.search_path)}


PREPARE = Stage(name="prepare", version=1, run=prepare, settings=_settings, code=_code)
