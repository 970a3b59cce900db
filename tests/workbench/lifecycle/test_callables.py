"""The user's callables: found, refused clearly, and digested with what they import."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigurationError
from workbench.lifecycle.callables import code_digest, code_files, code_paths, load_callable
from workbench.lifecycle.keys import StageKey, with_file_digests

values = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def project(folder: Path) -> tuple[str, ...]:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "helper.py").write_text("SCALE = 2\n")
    (folder / "wb_rows.py").write_text(
        "import json\nimport numpy\n\ndef load():\n    from package import helper\n"
        "    return helper.SCALE\n"
    )
    (folder / "unrelated.py").write_text("X = 1\n")
    return (str(folder),)


def test_the_digest_follows_the_users_imports_and_nothing_else(tmp_path: Path) -> None:
    path = project(tmp_path)
    files = [file.relative_to(tmp_path).as_posix() for file in code_files("wb_rows:load", path)]
    assert files == ["wb_rows.py", "package/__init__.py", "package/helper.py"]
    before = code_digest("wb_rows:load", path)
    (tmp_path / "unrelated.py").write_text("X = 2\n")
    assert code_digest("wb_rows:load", path) == before
    (tmp_path / "package" / "helper.py").write_text("SCALE = 3\n")
    assert code_digest("wb_rows:load", path) != before


def test_files_to_ship_with_a_model_are_the_tops_below_the_search_path(tmp_path: Path) -> None:
    shipped = code_paths("wb_rows:load", project(tmp_path))
    assert sorted(Path(path).name for path in shipped) == ["package", "wb_rows.py"]


def test_a_changed_module_is_imported_again(tmp_path: Path) -> None:
    path = project(tmp_path)
    assert load_callable("wb_rows:load", path)() == 2
    (tmp_path / "package" / "helper.py").write_text("SCALE = 30\n")
    (tmp_path / "wb_rows.py").write_text("def load():\n    return 'new'\n")
    assert load_callable("wb_rows:load", path)() == "new"


def test_the_same_name_in_another_folder_is_another_module(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wb_twin.py").write_text(f"def load():\n    return {name!r}\n")
        assert load_callable("wb_twin:load", (str(tmp_path / name),))() == name


@pytest.mark.parametrize(
    ("text", "call", "said"),
    [
        ("", "wb_absent:load", "there is no module wb_absent; looked in"),
        ("def other(): ...", "wb_case:load", "wb_case has no load; it has: other"),
        ("load = 3", "wb_case:load", "that is a int; give a function"),
        ("import wb_nothing_such", "wb_case:load", "needs No module named 'wb_nothing_such'"),
        ("1 / 0", "wb_case:load", "raised ZeroDivisionError: division by zero"),
        ("def load(:", "wb_case:load", "raised SyntaxError"),
        ("", "load", 'write "module:function"'),
    ],
)
def test_a_callable_that_cannot_be_had_gets_one_line(
    tmp_path: Path, text: str, call: str, said: str
) -> None:
    (tmp_path / "wb_case.py").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_callable(call, (str(tmp_path),), setting="prepare.call")
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"prepare.call is {call!r}")


@settings(deadline=None, max_examples=60)
@given(settings_=st.dictionaries(st.text(max_size=4), values, max_size=4), more=values)
def test_a_key_depends_on_every_part_and_not_on_their_order(
    settings_: dict[str, object], more: object
) -> None:
    def key(**changes: object) -> StageKey:
        given_: dict[str, object] = {
            "settings": settings_,
            "inputs": {"a": "1"},
            "code": {"b": "2"},
        }
        return StageKey(stage="train", **(given_ | changes))  # type: ignore[arg-type]

    backwards = dict(reversed(list(settings_.items())))
    assert key(settings=backwards).digest == key().digest
    assert key(settings=backwards).changed_since(key()) == ""
    assert key(settings={**settings_, "extra setting": more}).digest != key().digest
    assert key(inputs={"a": "2"}).digest != key().digest
    assert key(code={"b": "3"}).changed_since(key()) == "code changed: b"


def test_a_file_counts_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("a\n1\n")
    two.write_text("a\n1\n")
    assert with_file_digests({"path": str(one)}) == with_file_digests({"path": str(two)})
    two.write_text("a\n2\n")
    assert with_file_digests({"path": str(one)}) != with_file_digests({"path": str(two)})
