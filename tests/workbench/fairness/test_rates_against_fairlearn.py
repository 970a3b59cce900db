"""fairlearn is the oracle wherever it defines a rate; where it prints 0 we say undefined."""

from __future__ import annotations

from typing import Any

import fairlearn.metrics as oracle
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, mean_absolute_error, precision_score, roc_auc_score

from workbench.fairness import AuditReport, audit

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:fairlearn", "ignore::sklearn.exceptions.UndefinedMetricWarning"
)
METRICS = {
    "accuracy": accuracy_score,
    "selection_rate": oracle.selection_rate,
    "true_positive_rate": oracle.true_positive_rate,
    "false_positive_rate": oracle.false_positive_rate,
    "true_negative_rate": oracle.true_negative_rate,
    "false_negative_rate": oracle.false_negative_rate,
    "precision": precision_score,
}
DISPARITIES = (
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equalized_odds_difference",
    "equalized_odds_ratio",
    "equal_opportunity_difference",
    "equal_opportunity_ratio",
)


def _people(seed: int, rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "y": rng.integers(0, 2, rows),
            "p": rng.integers(0, 2, rows),
            "a": rng.choice(["x", "y", "z"], rows, p=[0.7, 0.25, 0.05]),
            "b": rng.choice([1, 2], rows),
            "s": rng.integers(0, 12, rows) / 12,
        }
    )


def _audit(people: pd.DataFrame, **more: Any) -> AuditReport:
    return audit(people, label="y", prediction="p", attributes=["a", "b"], score="s", **more)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_every_defined_rate_of_every_slice_is_fairlearns_to_1e_12(seed: int) -> None:
    people = _people(seed)
    report = _audit(people)
    for name, columns in (("a", ["a"]), ("b", ["b"]), ("a × b", ["a", "b"])):
        frame = oracle.MetricFrame(
            metrics=METRICS,
            y_true=people.y,
            y_pred=people.p,
            sensitive_features=people[columns].astype(str),
        )
        found = report.attribute(name)
        assert len(found.groups) == len(people[columns].drop_duplicates())
        for group in found.groups:
            expected = frame.by_group.loc[group.levels if len(columns) > 1 else group.group]
            for metric in METRICS:
                estimate = group.estimate(metric)
                if estimate.value is not None:
                    assert estimate.value == pytest.approx(expected[metric], abs=1e-12)
                    assert estimate.low is not None
                    assert estimate.high is not None
                    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@given(seed=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_disparities_are_fairlearns_when_every_rate_is_defined(seed: int) -> None:
    people = _people(seed)
    found = _audit(people).attribute("a")
    for metric in DISPARITIES:
        mine = found.disparity(metric)
        if mine.unknown:
            continue
        theirs = getattr(oracle, metric)(people.y, people.p, sensitive_features=people.a)
        assert mine.value == pytest.approx(theirs, abs=1e-12)
        assert mine.low is not None
        assert mine.high is not None
        assert mine.low <= theirs + 1e-12
        assert theirs <= mine.high + 1e-12


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_auc_with_ties_is_scikit_learns(seed: int) -> None:
    people = _people(seed)
    for group in _audit(people).attribute("a").groups:
        rows = people[people.a == group.group]
        estimate = group.estimate("roc_auc")
        if rows.y.nunique() == 2:
            assert estimate.value == pytest.approx(roc_auc_score(rows.y, rows.s), abs=1e-12)
        else:
            assert estimate.value is None


def test_regression_errors_are_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"y": rng.normal(size=300), "a": rng.choice(list("uvw"), 300)})
    table["p"] = table.y + rng.normal(0.2, 1, 300)
    report = audit(table, label="y", prediction="p", attributes=["a"])
    assert report.task == "regression"
    for group in report.attribute("a").groups:
        rows = table[table.a == group.group]
        absolute = group.estimate("mean_absolute_error")
        assert absolute.value == pytest.approx(mean_absolute_error(rows.y, rows.p), abs=1e-12)
        assert group.estimate("mean_error").value == pytest.approx((rows.p - rows.y).mean())


def test_a_multi_class_task_is_the_binary_one_of_each_class_against_the_rest() -> None:
    rng = np.random.default_rng(6)
    table = pd.DataFrame({"y": rng.choice(list("rgb"), 500), "a": rng.choice(["u", "v"], 500)})
    table["p"] = np.where(rng.random(500) < 0.7, table.y, rng.choice(list("rgb"), 500))
    whole = audit(table, label="y", prediction="p", attributes=["a"])
    assert (whole.task, whole.classes) == ("multiclass", ("b", "g", "r"))
    gaps = []
    for name in whole.classes:
        one = audit(table, label="y", prediction="p", attributes=["a"], positive=name)
        for group in one.attribute("a").groups:
            mine = whole.attribute("a").group(group.group)
            for metric in ("selection_rate", "true_positive_rate", "precision"):
                expected = group.estimate(metric).value
                assert mine.estimate(f"{metric}[{name}]").value == expected
        gaps.append(one.attribute("a").disparity("demographic_parity_difference").value or 0.0)
    worst = whole.attribute("a").disparity("demographic_parity_difference")
    assert worst.value == max(gaps)


def test_ten_rows_without_negatives_do_not_lift_equalized_odds() -> None:
    people = _people(3)[["y", "p", "b", "s"]]
    odd = pd.DataFrame({"y": [1] * 10, "p": [1] * 10, "b": [9] * 10, "s": [0.5] * 10})
    before = audit(people, label="y", prediction="p", attributes=["b"])
    after = audit(pd.concat([people, odd]), label="y", prediction="p", attributes=["b"])
    name = "false_positive_rate_difference"
    assert after.attribute("b").disparity(name).value == before.attribute("b").disparity(name).value
    estimate = after.attribute("b").group("9").estimate("false_positive_rate")
    assert (estimate.value, estimate.n, estimate.reason) == (None, 0, "no negatives")
    left = after.attribute("b").disparity("equalized_odds_difference").unknown
    assert [str(item) for item in left] == ["9 (no negatives)"]
    assert any("9 is undefined (no negatives in 10 rows)" in note for note in after.notes)


def test_all_predictions_zero_make_the_parity_ratio_not_evaluable() -> None:
    table = {"y": [0, 1, 0, 1], "p": [0, 0, 0, 0], "a": list("uuvv")}
    found = audit(table, label="y", prediction="p", attributes=["a"]).attribute("a")
    ratio = found.disparity("demographic_parity_ratio")
    assert (ratio.value, ratio.reason) == (None, "selection_rate is 0 in every group")
    assert found.disparity("demographic_parity_difference").value == 0


def test_two_right_answers_do_not_make_a_certain_accuracy() -> None:
    table = {"y": [0, 1, 0, 1], "p": [0, 1, 0, 0], "a": list("uuvv")}
    group = audit(table, label="y", prediction="p", attributes=["a"]).attribute("a").group("u")
    accuracy = group.estimate("accuracy")
    assert accuracy.value == 1
    assert accuracy.low == pytest.approx(0.3424, abs=1e-4)
