"""Frozen values to plain JSON types and back, by their type hints alone."""

from __future__ import annotations

import json
import types
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return ``value`` as dicts, lists, strings and numbers.

    Example:
        >>> from workbench.decision import Refused
        >>> to_plain(Refused("fixed"))
        {'reason': 'fixed', 'kind': 'refused'}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {name: to_plain(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{type(value).__name__} cannot be saved; allowed: frozen dataclasses, numbers, "
        "strings, tuples, dicts"
    )


def from_plain(kind: Any, plain: Any) -> Any:
    """Return the value of type ``kind`` that ``to_plain`` turned into ``plain``.

    A union of dataclasses is told apart by the field ``kind``. Fields that ``plain`` lacks take
    their defaults; fields that ``kind`` lacks are dropped, so that older readers can read on.

    Example:
        >>> from workbench.decision import Outcome, Refused
        >>> from_plain(Outcome, to_plain(Refused("fixed"))).reason
        'fixed'
    """
    if plain is None or kind is Any:
        return plain
    if is_dataclass(kind):
        return _build(kind, plain)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _pick(get_args(kind), plain)
    if origin is tuple:
        args = get_args(kind)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(from_plain(args[0], item) for item in plain)
        return tuple(from_plain(arg, item) for arg, item in zip(args, plain, strict=True))
    if origin is list:
        return [from_plain(get_args(kind)[0], item) for item in plain]
    if origin is dict:
        of_key, of_item = get_args(kind)
        named = int if of_key is int else str
        return {named(key): from_plain(of_item, item) for key, item in plain.items()}
    if kind is tuple:
        return tuple(plain)
    return float(plain) if kind is float else plain


def to_json(value: Any) -> str:
    """Return ``value`` as one line of JSON (``NaN`` and ``Infinity`` as Python writes them).

    Example:
        >>> from workbench.decision import Refused
        >>> to_json(Refused("fixed"))
        '{"reason":"fixed","kind":"refused"}'
    """
    return _ENCODER.encode(value)


def from_json(kind: type[T], line: str) -> T:
    """Return the value of type ``kind`` written by :func:`to_json`.

    Example:
        >>> from workbench.decision import Refused
        >>> from_json(Refused, '{"reason":"fixed","kind":"refused"}')
        Refused(reason='fixed', kind='refused')
    """
    value: T = from_plain(kind, json.loads(line))
    return value


def _members(value: Any) -> Any:
    """Return one level of a value that JSON does not know (the encoder asks again for the next)."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in _names(type(value))}
    if callable(getattr(value, "item", None)):  # a scalar of numpy or torch
        return value.item()
    return to_plain(value)


_ENCODER = json.JSONEncoder(default=_members, separators=(",", ":"))


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(item.name for item in fields(kind))


@cache
def _hints(kind: type) -> dict[str, tuple[Any, bool]]:
    hints = get_type_hints(kind)
    return {item.name: (hints[item.name], item.init) for item in fields(kind)}


def _build(kind: Any, plain: dict[str, Any]) -> Any:
    given = {
        name: from_plain(hint, plain[name])
        for name, (hint, settable) in _hints(kind).items()
        if settable and name in plain
    }
    return kind(**given)


def _pick(options: tuple[Any, ...], plain: Any) -> Any:
    if isinstance(plain, dict):
        for option in options:
            if is_dataclass(option) and _kind_of(option) == plain.get("kind"):
                return _build(option, plain)
        raise TypeError(f"no member of the union has kind {plain.get('kind')!r}")
    plain_options = [option for option in options if option is not type(None)]
    return from_plain(plain_options[0], plain) if len(plain_options) == 1 else plain


def _kind_of(option: Any) -> Any:
    defaults = {item.name: item.default for item in fields(option)}
    return defaults.get("kind")
