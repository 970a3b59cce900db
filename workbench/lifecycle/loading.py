"""From a YAML file and ``a.b=c`` overrides to a checked pipeline, errors with file and line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from workbench.errors import ConfigurationError

from .pipeline import Pipeline, Source

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the numbers and booleans of YAML 1.2.

    By YAML 1.1 an unquoted ``workers: 1:4`` is 64 (base 60), ``1e-3`` is a text, and ``no`` is
    false.
    """


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in ("int", "float", "bool")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
        r"|\.(nan|NaN|NAN))$",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)  # 010 is ten, not eight


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Return the pipeline in ``path`` with ``overrides`` such as ``train.epochs=3``.

    Values of overrides are read as YAML. ``prepare`` options named ``path`` or ending in
    ``_path`` are relative to the file's folder when the file gives them, and to the current
    folder when an override does.

    Raises:
        ConfigurationError: The file cannot be read, or a setting is unknown or impossible.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "pipeline.yaml"
        >>> _ = file.write_text('''
        ... name: tiny
        ... prepare: {call: "prepare:load"}
        ... train: {model: "model:build"}''')
        >>> load_pipeline(file, ["train.optimizer={name: sgd, lr: 1e-2}"]).train.optimizer.part()
        Part(name='sgd', options={'lr': 0.01})
    """
    pipeline, problems = _load(path, overrides)
    if pipeline is None:
        more = f" (and {len(problems) - 1} more: wb validate)" if len(problems) > 1 else ""
        raise ConfigurationError(problems[0] + more)
    return pipeline


def loading_problems(path: Path, overrides: Sequence[str] = ()) -> list[str]:
    """Return every problem that :func:`load_pipeline` would find, one line each.

    Example:
        >>> loading_problems(Path("/nowhere/pipeline.yaml"))
        ['/nowhere/pipeline.yaml does not exist; give the path of a pipeline file']
    """
    try:
        return _load(path, overrides)[1]
    except ConfigurationError as error:
        return [str(error)]


def apply_override(settings: Mapping[str, Any], override: str) -> dict[str, Any]:
    """Return ``settings`` with ``a.b=c`` applied; nothing given is changed.

    A number in the dotted name is an index into a list (its length appends). Missing mappings on
    the way are created.

    Raises:
        ConfigurationError: The override has no ``=``, or leads through a value.

    Example:
        >>> apply_override({"train": {"epochs": 1}}, "train.epochs=5")
        {'train': {'epochs': 5}}
        >>> apply_override({"gates": [{"max": 0.2}]}, "gates.0.max=0.01")
        {'gates': [{'max': 0.01}]}
    """
    name, equals, text = override.partition("=")
    if not equals or not name or "" in name.split("."):
        raise ConfigurationError(
            f"{override!r} is not an override; write a.b=c, such as train.epochs=3"
        )
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"{override!r}: the value is not YAML ({_short(error)}); quote it"
        ) from None
    changed = _placed(dict(settings), name.split("."), value, override)
    assert isinstance(changed, dict)
    return changed


def _placed(node: Any, names: Sequence[str], value: Any, override: str) -> Any:
    if not names:
        return value
    name, rest = names[0], names[1:]
    if node is None:
        node = {}
    if isinstance(node, Mapping):
        return {**node, name: _placed(node.get(name), rest, value, override)}
    if isinstance(node, list):
        if not name.isdigit() or int(name) > len(node):
            raise ConfigurationError(
                f"{override!r}: {name} is not an index of a list of {len(node)}; "
                f"allowed: 0 to {len(node)}"
            )
        index = int(name)
        old = node[index] if index < len(node) else None
        return [*node[:index], _placed(old, rest, value, override), *node[index + 1 :]]
    raise ConfigurationError(f"{override!r}: {node!r} has no setting {name!r} inside it")


def _load(path: Path, overrides: Sequence[str]) -> tuple[Pipeline | None, list[str]]:
    text = _read(path)
    lines: dict[Location, int] = {}
    given = _parse(path, text, lines)
    given = _with_absolute_paths(given, path.resolve().parent)
    for override in overrides:
        given = _with_override(given, override)
    source = Source(path=path.resolve(), text=text, overrides=tuple(overrides), lines=lines)
    try:
        pipeline = Pipeline.model_validate(given)
    except ValidationError as error:
        return None, _unique(_lines_of(error, source))
    pipeline._source = source
    return pipeline, []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} does not exist; give the path of a pipeline file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); give a YAML file") from None


def _parse(path: Path, text: str, lines: dict[Location, int]) -> dict[str, Any]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            _note_lines(path, node, (), lines)
        value = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path.name}{line}: not YAML: {_short(error)}") from None
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"{path.name}:1: a pipeline is a mapping with name, prepare and train; "
            f"got {'an empty file' if value is None else type(value).__name__}"
        )
    return value


def _note_lines(path: Path, node: yaml.Node, at: Location, lines: dict[Location, int]) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            where = (*at, str(key.value))
            if where in lines:
                raise ConfigurationError(
                    f"{path.name}:{key.start_mark.line + 1}: {'.'.join(map(str, where))} is given "
                    f"twice, first in line {lines[where]}; keep one"
                )
            lines[where] = key.start_mark.line + 1
            _note_lines(path, child, where, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _note_lines(path, child, (*at, index), lines)


def _with_override(given: dict[str, Any], override: str) -> dict[str, Any]:
    changed = apply_override(given, override)
    name = override.partition("=")[0].split(".")
    if name[0] == "prepare" and len(name) == 2 and _names_a_path(name[1]):
        changed["prepare"] = _absolute(changed["prepare"], Path.cwd(), only=name[1])
    return changed


def _with_absolute_paths(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    prepare = given.get("prepare")
    return {**given, "prepare": _absolute(prepare, folder)} if isinstance(prepare, dict) else given


def _absolute(options: dict[str, Any], folder: Path, only: str | None = None) -> dict[str, Any]:
    return {
        name: str((folder / Path(value).expanduser()).resolve())
        if isinstance(value, str) and _names_a_path(name) and only in (None, name)
        else value
        for name, value in options.items()
    }


def _names_a_path(name: str) -> bool:
    return name == "path" or name.endswith("_path")


def _lines_of(error: ValidationError, source: Source) -> list[str]:
    return [_line_of(dict(item), source) for item in error.errors(include_url=False)]


def _line_of(item: dict[str, Any], source: Source) -> str:
    location = tuple(part for part in item["loc"] if not _is_a_union_branch(part))
    dotted = ".".join(map(str, location))
    where = source.where(*location)
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        allowed = _fields_at(location[:-1])
        return f"{where}{dotted} is not a known setting; allowed: {', '.join(allowed)}" + _meant(
            str(location[-1]), allowed
        )
    if kind == "missing":
        return f"{where}{dotted} is missing; add it"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']+)'", item["ctx"]["expected"])
        return f"{where}{dotted} is {given!r}; allowed: {', '.join(allowed)}" + _meant(
            str(given), allowed
        )
    reason = item["msg"].removeprefix("Value error, ")
    if not dotted or isinstance(given, dict):
        return f"{where}{dotted + ': ' if dotted else ''}{reason}"
    return f"{where}{dotted} is {given!r}; {reason[0].lower()}{reason[1:]}"


def _is_a_union_branch(part: str | int) -> bool:
    # pydantic names the tried member of a union in the location: it is no setting of the user's
    return isinstance(part, str) and (part in {"int", "str"} or "[" in part)


def _fields_at(location: Location) -> list[str]:
    model: type[BaseModel] = Pipeline
    for part in location:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = _model_in(field.annotation) if field else None
        if inner is not None:
            model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(arg) for arg in getattr(annotation, "__args__", ()))
    return next((model for model in found if model is not None), None)


def _meant(given: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, allowed, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _short(error: Exception) -> str:
    return str(getattr(error, "problem", None) or error).split("\n")[0]


def _unique(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(lines))
