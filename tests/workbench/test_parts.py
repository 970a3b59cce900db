"""Finding a callable by name: what is found, and one clear line for each way to miss it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.errors import ConfigurationError
from workbench.parts import resolve, search_path

MODULES = {
    "found_part": "class Outer:\n    class Inner:\n        pass\n\nLIMIT = 3\n",
    "needs_part": "import found_part\nimport nowhere_to_be_found\n",
    "needs_par": "import needs_pa\n",
    "raising_part": "raise ValueError('first line\\nsecond line')\n",
    "leaving_part": "raise SystemExit(7)\n",
    "broken_part": "def half(:\n",
    "missing_name": "from math import no_such_name\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    with search_path([str(tmp_path)]):
        yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def message(path: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve(path, what="policy")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("folder")
def test_a_nested_name_is_found() -> None:
    assert resolve("found_part:Outer.Inner").__qualname__ == "Outer.Inner"


@pytest.mark.parametrize("path", ["", "train", ":f", "train:", "train.py"])
def test_a_path_of_the_wrong_form_says_the_form(path: str) -> None:
    assert message(path) == (
        f"policy is {path!r}; allowed: 'module:name'; write for example 'train:build'"
    )


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.inner", "os.no_such_part"])
def test_a_module_that_is_not_there_is_named(module: str) -> None:
    assert f"there is no module {module!r}" in message(f"{module}:f")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("module", "missing"), [("needs_part", "nowhere_to_be_found"), ("needs_par", "needs_pa")]
)
def test_a_module_whose_own_import_is_missing_names_that_one(module: str, missing: str) -> None:
    assert f"its module needs {missing!r}, which is not installed" in message(f"{module}:f")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("raising_part", "ValueError: first line second line"),
        ("broken_part", "SyntaxError: "),
        ("missing_name", "ImportError: cannot import name 'no_such_name'"),
        (".relative", "TypeError: "),
    ],
)
def test_a_module_that_raises_on_import_tells_what_in_one_line(module: str, error: str) -> None:
    said = message(f"{module}:f")
    assert f"importing {module!r} raised {error}" in said
    assert said.endswith("mend the module, or name another")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("path", "has"),
    [("found_part:Inner", "LIMIT, Outer"), ("found_part:LIMIT.inner", "as_integer_ratio")],
)
def test_a_name_that_is_not_there_lists_those_that_are(path: str, has: str) -> None:
    assert has in message(path)


def test_the_search_path_is_as_before_even_after_an_error() -> None:
    before = list(sys.path)

    def fail() -> None:
        with search_path(["elsewhere", before[0]]):
            assert sys.path[0] == "elsewhere"
            assert sys.path.count(before[0]) == before.count(before[0])
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert sys.path == before


@pytest.mark.usefixtures("folder")
def test_a_module_that_leaves_the_process_while_imported_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"importing 'leaving_part' raised SystemExit: 7"):
        resolve("leaving_part:x")
