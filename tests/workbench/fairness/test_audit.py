"""The audit as a whole: tasks, missing labels, JSON, files, bad input, speed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from workbench.errors import ConfigurationError, DataContractError, UsageError
from workbench.fairness import AuditReport, audit, audit_file

PEOPLE: dict[str, list[Any]] = {
    "y": [1, 0, 1, 0, 1, 0],
    "p": [1, 0, 1, 1, 0, 0],
    "s": [0.9, 0.1, 0.7, 0.6, 0.4, 0.2],
    "a": list("FFFMMM"),
    "one": ["x"] * 6,
}


def _audit(more: dict[str, Any] | None = None, **settings: Any) -> AuditReport:
    given: dict[str, Any] = {"label": "y", "prediction": "p", "attributes": ["a"], **settings}
    return audit({**PEOPLE, **(more or {})}, **given)


def test_rows_without_a_label_are_counted_and_enter_no_metric() -> None:
    report = _audit({"y": [1, 0, None, 0, None, 0]})
    labelled = audit(
        {name: [v for i, v in enumerate(values) if i not in (2, 4)] for name, values in
         PEOPLE.items()},
        label="y", prediction="p", attributes=["a"],
    )  # fmt: skip
    assert (report.rows, report.labelled) == (6, 4)
    assert report.notes[0] == "2 of 6 rows have no label: they enter no metric."
    for mine, theirs in zip(
        report.attribute("a").groups, labelled.attribute("a").groups, strict=True
    ):
        assert mine.estimates == theirs.estimates
        assert (mine.rows, mine.unlabelled) == (theirs.rows, 1)


def test_a_group_without_any_label_is_shown_and_undefined() -> None:
    report = _audit({"a": list("FFFMMZ"), "y": [1, 0, 1, 0, 1, None]})
    group = report.attribute("a").group("Z")
    assert (group.rows, group.unlabelled) == (0, 1)
    assert {estimate.value for estimate in group.estimates} == {None}
    assert group.estimate("accuracy").reason == "no rows"


@pytest.mark.parametrize(
    ("label", "prediction", "settings", "task", "classes"),
    [
        ([0, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0], {}, "binary", ("0", "1")),
        ([0.0, 1.0, None, 1, 0, 1], [0, 1, 1, 1, 0, 0], {}, "binary", ("0", "1")),
        ([False, True] * 3, [True, True] * 3, {}, "binary", ("False", "True")),
        ([-1, 1] * 3, [1, 1] * 3, {}, "binary", ("-1", "1")),
        (list("ynynyn"), list("yyyynn"), {"positive": "y"}, "binary", ("n", "y")),
        ([1, 2] * 3, [1, 1] * 3, {"positive": "2"}, "binary", ("1", "2")),
        ([0, 1, 2] * 2, [0, 1, 1] * 2, {}, "multiclass", ("0", "1", "2")),
        ([0, 1, 2] * 2, [0, 1, 1] * 2, {"positive": 2}, "binary", ("not 2", "2")),
        ([0, 1] * 3, [0, 0] * 3, {"task": "multiclass"}, "multiclass", ("0", "1")),
        ([3, 4, 9, 2, 1, 8], [3.5, 4, 8, 2, 1, 8], {}, "regression", ()),
        ([0, 1] * 3, [0.2, 0.7] * 3, {"task": "regression"}, "regression", ()),
    ],
)
def test_the_task_follows_from_the_values(
    label: list[Any],
    prediction: list[Any],
    settings: dict[str, Any],
    task: str,
    classes: tuple[str, ...],
) -> None:
    report = _audit({"y": label, "p": prediction}, **settings)
    assert (report.task, report.classes) == (task, classes)


@pytest.mark.parametrize(
    ("more", "settings", "message"),
    [
        ({}, {"label": "yy"}, "label column 'yy' .*did you mean 'y'"),
        ({}, {"prediction": "q"}, "prediction column 'q' is not in the table"),
        ({}, {"attributes": ["sex"]}, "attribute column 'sex' is not in the table"),
        ({}, {"attributes": ["one"]}, "'one' has one level .'x'. in all rows"),
        ({}, {"attributes": []}, "attributes is .*a list of one column"),
        ({}, {"attributes": "a"}, "a list of one column"),
        ({}, {"attributes": ["a", "a"]}, "named twice"),
        ({}, {"task": "ranking"}, "allowed: auto, binary, multiclass, regression"),
        ({}, {"level": 95}, "level is 95; allowed: between 0.5 and 1"),
        ({}, {"depth": 0}, "depth is 0"),
        ({}, {"positive": 7}, "positive is 7, .* allowed: 0, 1"),
        ({"y": [1] * 6}, {}, "one class only .'1'."),
        ({"y": [None] * 6}, {}, "missing in all 6 rows"),
        ({"p": [1, 0, None, 1, 0, 0]}, {}, "prediction 'p' is missing in 1 of 6 rows"),
        ({"p": [0.9, 0.1, 0.2, 0.3, 1.0, 0.0]}, {}, "threshold it, and give this column"),
        ({"p": list("101100")}, {}, "have no value in common"),
        ({"y": list("ynynyn"), "p": list("yynnyn")}, {}, "which is positive"),
        ({}, {"score": "a"}, "score 'a' holds text"),
        ({"s": [0.1, float("inf")] * 3}, {"score": "s"}, "infinite in 3 rows"),
        ({"s": [0.1, None] * 3}, {"score": "s"}, "score 's' is missing in 3 of 6"),
        ({"y": [0, 1, 2] * 2, "p": [0, 1, 2] * 2}, {"score": "s"}, "3 classes"),
        ({"y": [0, 1]}, {}, "differ in length"),
        ({name: [] for name in PEOPLE}, {}, "has no rows"),
        ({"y": [1.5, 2, 3, 4, 5, float("inf")]}, {"task": "regression"}, "infinite"),
    ],
)
def test_bad_input_gets_one_clear_line(
    more: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        _audit(more, **settings)
    assert isinstance(caught.value, (ConfigurationError, DataContractError))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_json_is_strict_and_comes_back_as_the_same_value() -> None:
    report = _audit({"y": [1, 1, 1, 0, 1, 0]}, score="s", gates=["equalized_odds_difference<=0.2"])
    text = report.to_json()

    def no_constant(token: str) -> None:
        raise AssertionError(token)

    plain = json.loads(text, parse_constant=no_constant)
    assert plain["verdict"] == "not enough evidence"
    assert plain["refused"] is True
    assert plain["attributes"][0]["groups"][0]["estimates"][3]["n"] == 3
    assert AuditReport.from_json(text) == report
    assert report.to_json() == text


def test_a_report_is_the_same_whatever_the_order_of_the_rows() -> None:
    frame = pd.DataFrame(PEOPLE)
    shuffled = frame.sample(frac=1, random_state=3)
    shuffled.index = [7] * len(frame)  # an index that aligns nothing
    settings: dict[str, Any] = {"label": "y", "prediction": "p", "attributes": ["a"], "score": "s"}
    assert audit(shuffled, **settings) == audit(frame, **settings)


def test_columns_with_indexes_of_their_own_are_taken_row_by_row() -> None:
    y = pd.Series(PEOPLE["y"], index=[5, 4, 3, 2, 1, 0])
    assert _audit({"y": y}) == _audit()


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_file_gives_the_same_report_as_its_table(kind: str, tmp_path: Path) -> None:
    path, frame = tmp_path / f"people.{kind}", pd.DataFrame(PEOPLE)
    frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False)
    found = audit_file(path, label="y", prediction="p", score="s", attributes=["a"])
    assert found == _audit(score="s")


def test_a_file_that_cannot_serve_gets_one_clear_line(tmp_path: Path) -> None:
    cases = {
        "none.csv": (None, "does not exist"),
        "rows.xlsx": (b"x", "unknown kind; allowed: .csv, .csv.gz, .parquet"),
        "empty.csv": (b"", "cannot be read"),
        "head.csv": (b"y,p,a\n", "no rows"),
        "other.csv": (b"y,q,a\n1,1,x\n", "'p' is not in the table"),
        "broken.csv": (b'y,p,a\n1,1,x\n1,1,"x\n', "cannot be read"),
        "broken.csv.gz": (b"not gzip", "cannot be read"),
        "broken.parquet": (b"not parquet", "cannot be read"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataContractError, match=message) as caught:
            audit_file(tmp_path / name, label="y", prediction="p", attributes=["a"])
        assert "\n" not in str(caught.value)
    with pytest.raises(DataContractError, match="is a folder"):
        audit_file(tmp_path, label="y", prediction="p", attributes=["a"])


def test_a_column_that_is_there_twice_is_refused() -> None:
    frame = pd.DataFrame([[1, 0, "x"], [0, 1, "y"]], columns=["y", "y", "a"])
    with pytest.raises(DataContractError, match="there 2 times"):
        audit(frame, label="y", prediction="y", attributes=["a"])


def test_a_third_of_a_million_rows_by_two_attributes_take_under_two_seconds() -> None:
    rng, rows = np.random.default_rng(0), 332_900
    frame = pd.DataFrame(
        {
            "y": rng.integers(0, 2, rows),
            "p": rng.integers(0, 2, rows),
            "a": rng.integers(1, 3, rows),
            "b": rng.integers(0, 9, rows),
        }
    )
    _audit()  # imports are not part of it
    start = time.process_time()
    report = audit(frame, label="y", prediction="p", attributes=["a", "b"])
    assert time.process_time() - start < 2
    assert len(report.attribute("a × b").groups) == 18


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, workbench.fairness; "
        "print([m for m in ('numpy', 'pandas', 'scipy', 'jinja2', 'fairlearn') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
