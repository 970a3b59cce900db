"""The key of a stage: what its result depends on, in one digest, and in words when it changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.records.digests import json_digest, path_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StageKey:
    """All that a stage's result depends on, part by part.

    Attributes:
        stage: Its name.
        settings: Its settings, files among them by digest of their content.
        inputs: Digests of what earlier stages produced.
        code: Digests of the user's callables and the version of the stage itself.

    Example:
        >>> one = StageKey(stage="train", settings={"epochs": 1}, inputs={}, code={})
        >>> two = StageKey(stage="train", settings={"epochs": 2}, inputs={}, code={})
        >>> one.digest == two.digest, two.changed_since(one)
        (False, 'settings changed: epochs')
    """

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of its canonical JSON."""
        return json_digest(json.loads(_canonical(self.plain()))).removeprefix("sha256:")[:16]

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "stage": self.stage,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "code": dict(self.code),
        }

    def changed_since(self, earlier: StageKey) -> str:
        """Return what differs from ``earlier`` in words, or an empty text."""
        said = []
        for what, now, then in (
            ("settings", self.settings, earlier.settings),
            ("inputs", self.inputs, earlier.inputs),
            ("code", self.code, earlier.code),
        ):
            names = sorted(
                name
                for name in {*now, *then}
                if _canonical(now.get(name)) != _canonical(then.get(name))
            )
            if names:
                said.append(f"{what} changed: {', '.join(names)}")
        return "; ".join(said)


def with_file_digests(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` where ``path`` and ``*_path`` of a file say its content, not its place.

    Example:
        >>> with_file_digests({"rows": 5, "path": None})
        {'path': None, 'rows': 5}
    """
    return {name: _content(name, value) for name, value in sorted(options.items())}


def _content(name: str, value: Any) -> Any:
    names_a_path = name == "path" or name.endswith("_path")
    if names_a_path and isinstance(value, str) and Path(value).exists():
        return path_digest(value)
    return value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
