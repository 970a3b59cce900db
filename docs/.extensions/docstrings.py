"""Show our docstrings as mkdocstrings expects them: ``Example:`` is a section, roles are code."""

from __future__ import annotations

import re
from typing import Any

import griffe

RULES = (
    (re.compile(r"^( *)Example:$", re.MULTILINE), r"\1Examples:"),
    (re.compile(r":(?:class|func|meth|mod|data):`~?([^`]+)`"), r"`\1`"),
    (re.compile(r"^ *::\n", re.MULTILINE), ""),
)


class HouseStyle(griffe.Extension):
    """Rewrite each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Apply the rules to the object's docstring, if it has one."""
        if obj.docstring is not None:
            for pattern, replacement in RULES:
                obj.docstring.value = pattern.sub(replacement, obj.docstring.value)
