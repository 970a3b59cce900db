"""`wb validate`: everything that can be known about a pipeline without running it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.errors import UsageError

from .errors import USAGE, one_line
from .options import Debug, Json
from .output import print_json
from .targets import find_target, split_words

if TYPE_CHECKING:
    from workbench.lifecycle import Pipeline


def validate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="PIPELINE [a.b=c ...]", help="A pipeline.yaml or an example, and overrides."
        ),
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Say everything that can be known without running.

    Every problem is one line on stderr, with file and line where there is one.
    """
    del debug
    word, overrides = split_words(words)
    target = find_target(word)
    if target.script:
        raise UsageError(
            f"{target.path} is a script; allowed: a pipeline.yaml or a bundled example; "
            "wb run --dry-run says what a script would start"
        )
    path = target.path
    problems = _all_problems(path, overrides)
    if as_json:
        code = USAGE if problems else 0
        print_json(
            {"file": str(path), "valid": not problems, "problems": problems, "exit_code": code}
        )
    elif not problems:
        print(f"{path}: valid")
    for problem in problems:
        print(f"wb: {one_line(problem)}", file=sys.stderr)
    return USAGE if problems else 0


def problems_of(pipeline: Pipeline) -> list[str]:
    """Return the problems of a loaded pipeline: callables, policies, files, names."""
    from workbench.lifecycle import find_problems

    from .parts import check_part

    return find_problems(pipeline, check_part=check_part)


def _all_problems(path: Path, overrides: list[str]) -> list[str]:
    from workbench.lifecycle import load_pipeline, loading_problems

    return loading_problems(path, overrides) or problems_of(load_pipeline(path, overrides))
