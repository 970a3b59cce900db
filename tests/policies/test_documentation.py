"""The pages on policies are executed: every block of Python in them, in order."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

from workbench.policies import POLICIES

PAGES = ("index", "grow_with_noise", "schedule", "none", "own", "learning_rate", "limits")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_does_what_the_page_says(repository: Path, page: str) -> None:
    path = repository / "docs" / "policies" / f"{page}.md"
    blocks = re.findall(r"```(python|pycon)\n(.*?)```", path.read_text("utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for kind, code in blocks:
        if kind == "python":
            exec(compile(code, path.name, "exec", dont_inherit=True), names)
        else:
            examples = doctest.DocTestParser().get_doctest(code, names, page, str(path), 0)
            runner.run(examples, clear_globs=False)
            names.update(examples.globs)
    assert blocks, "a page without an example"
    assert runner.failures == 0


def test_every_policy_has_its_page_with_equation_and_source(repository: Path) -> None:
    folder = repository / "docs" / "policies"
    assert set(POLICIES) <= {path.stem for path in folder.glob("*.md")}
    for name in set(POLICIES) - {"none"}:
        text = (folder / f"{name}.md").read_text("utf-8")
        assert "**Equation.**" in text
        assert "Source: " in text


def test_the_pages_under_test_are_all_there_are(repository: Path) -> None:
    assert {path.stem for path in (repository / "docs" / "policies").glob("*.md")} == set(PAGES)
