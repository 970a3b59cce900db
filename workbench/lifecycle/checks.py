"""Everything that can be known about a pipeline without running it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

from workbench.errors import ConfigurationError, UsageError

from .callables import load_callable
from .pipeline import Pipeline, as_parts
from .ports import Part

CheckPart = Callable[[str, Part], str]
"""Takes ``monitor``, ``policy``, ``loss``, ``optimizer`` or ``scheduler`` and the part; returns the
problem in one line, or an empty text."""

LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "mae")


def _no_problem(kind: str, part: Part) -> str:  # noqa: ARG001 - the default of a protocol
    return ""


def find_problems(pipeline: Pipeline, *, check_part: CheckPart = _no_problem) -> list[str]:
    """Return every problem of a pipeline that shows without running it, one line each.

    Callables are imported (not called) and their options matched to their signatures; files that
    ``path`` and ``*_path`` name must exist; gates must be possible.

    Args:
        pipeline: As loaded.
        check_part: Judges monitors, policies, losses, optimizers and schedulers, which belong to
            the floors above.

    Example:
        >>> pipeline = Pipeline.model_validate({
        ...     "name": "tiny", "prepare": {"call": "nowhere:load"},
        ...     "train": {"model": "workbench.examples.digits.model:build"}})
        >>> find_problems(pipeline)
        ["prepare.call is 'nowhere:load', but there is no module nowhere; looked in the current
        folder and the installed packages"]
    """
    return [
        *_of_callable(pipeline, "prepare.call", pipeline.prepare.call, pipeline.prepare.options),
        *_of_files(pipeline),
        *_of_callable(pipeline, "train.model", pipeline.train.model, pipeline.train.model_options),
        *_of_parts(pipeline, check_part),
        *_of_gates(pipeline),
    ]


def _of_callable(
    pipeline: Pipeline, setting: str, call: str, options: dict[str, object]
) -> Iterator[str]:
    location = setting.split(".")
    where = pipeline.source.where(*location)
    try:
        function = load_callable(call, pipeline.search_path, setting=setting)
    except ConfigurationError as error:
        yield f"{where}{error}"
        return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a builtin tells no signature
    try:
        signature.bind(**options)
    except TypeError as error:
        takes = list(signature.parameters)
        given = next((name for name in options if name not in takes), "")
        close = get_close_matches(given, takes, n=1) if given else []
        meant = f"; did you mean {close[0]}?" if close else ""
        at = pipeline.source.where(location[0], given) if given else where
        yield f"{at}{call}: {error}; it takes: {', '.join(takes) or 'nothing'}{meant}"


def _of_files(pipeline: Pipeline) -> Iterator[str]:
    for name, value in pipeline.prepare.options.items():
        names_a_path = name == "path" or name.endswith("_path")
        if names_a_path and isinstance(value, str) and not Path(value).exists():
            where = pipeline.source.where("prepare", name)
            yield f"{where}prepare.{name} is {value!r}; there is no such file"


def _of_parts(pipeline: Pipeline, check_part: CheckPart) -> Iterator[str]:
    train = pipeline.train
    listed = [("monitor", "monitors", train.monitors), ("policy", "policies", train.policies)]
    for kind, setting, entries in listed:
        for index, part in enumerate(as_parts(entries)):
            yield from _of_part(pipeline, (setting, index), kind, part, check_part)
    yield from _of_loss(pipeline)
    yield from _of_part(pipeline, ("optimizer",), "optimizer", train.optimizer.part(), check_part)
    if train.scheduler:
        part = train.scheduler.part()
        yield from _of_part(pipeline, ("scheduler",), "scheduler", part, check_part)


def _of_part(
    pipeline: Pipeline,
    location: tuple[str | int, ...],
    kind: str,
    part: Part,
    check_part: CheckPart,
) -> Iterator[str]:
    where = pipeline.source.where("train", *location)
    if ":" in part.name:
        try:
            load_callable(part.name, pipeline.search_path, setting=f"{kind}")
        except ConfigurationError as error:
            yield f"{where}{error}"
            return
    problem = check_part(kind, part)
    if problem:
        yield f"{where}{problem}"


def _of_loss(pipeline: Pipeline) -> Iterator[str]:
    loss, where = pipeline.train.loss, pipeline.source.where("train", "loss")
    if ":" in loss:
        try:
            load_callable(loss, pipeline.search_path, setting="train.loss")
        except ConfigurationError as error:
            yield f"{where}{error}"
    elif loss not in LOSSES:
        close = get_close_matches(loss, LOSSES, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        yield (
            f"{where}train.loss is {loss!r}; allowed: {', '.join(LOSSES)}, "
            f"or 'module:function'{meant}"
        )


def _of_gates(pipeline: Pipeline) -> Iterator[str]:
    if pipeline.audit is None:
        return
    from workbench.fairness import Gate

    for index, gate in enumerate(pipeline.audit.gates):
        try:
            Gate(**gate.model_dump())
        except UsageError as error:
            yield f"{pipeline.source.where('audit', 'gates', index)}{error}"
