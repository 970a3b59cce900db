"""Predictions from raw outputs, their metrics, and the check before deployment."""

from __future__ import annotations

from math import isclose
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from workbench.errors import StageError
from workbench.lifecycle.score_check import compare
from workbench.lifecycle.scoring import default_metrics, predictions_of, score


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5), rows=st.integers(20, 60))
def test_metrics_are_scikit_learns(seed: int, classes: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(classes), random.integers(0, classes, rows)])
    outputs = random.normal(size=(len(targets), classes)).astype(np.float32)
    predictions = predictions_of(outputs, classes)
    found, undefined = score(
        ["accuracy", "balanced_accuracy", "f1", "log_loss"], targets, predictions
    )
    average = "binary" if classes == 2 else "macro"
    assert undefined == {}
    assert (predictions.values == outputs.argmax(axis=1)).all()
    assert isclose(found["accuracy"], sk.accuracy_score(targets, predictions.values))
    expected = sk.balanced_accuracy_score(targets, predictions.values)
    assert isclose(found["balanced_accuracy"], expected)
    assert isclose(
        found["f1"], sk.f1_score(targets, predictions.values, average=average, zero_division=0)
    )
    exact = outputs.astype(float)[np.arange(len(targets)), targets]
    log_sum = np.log(np.exp(outputs.astype(float)).sum(axis=1))
    assert isclose(found["log_loss"], float((log_sum - exact).mean()), rel_tol=1e-6)


def test_one_logit_and_two_logits_agree() -> None:
    logit = np.linspace(-50, 50, 41)
    two = predictions_of(np.stack([np.zeros_like(logit), logit], axis=1), 2)
    one = predictions_of(logit[:, None], 2)
    assert one.score is not None
    assert two.score is not None
    assert np.allclose(one.score, two.score, atol=1e-12)


def test_regression_metrics_are_of_the_outputs_themselves() -> None:
    targets = np.array([1.0, 2.0, 4.0])
    predictions = predictions_of(np.array([[1.0], [2.0], [3.0]]), 0)
    found, _ = score(["mae", "mse", "rmse", "r2"], targets, predictions)
    assert found["mae"] == pytest.approx(1 / 3)
    assert found["rmse"] == pytest.approx(found["mse"] ** 0.5)
    assert default_metrics(0) == ("mae", "rmse", "r2")


@pytest.mark.parametrize(
    ("outputs", "classes", "said"),
    [
        (np.zeros((3, 2)), 0, "shape (3, 2); allowed: (n,) or (n, 1) for regression"),
        (np.zeros((3, 2)), 3, "shape (3, 2); allowed: (n, 3) for 3 classes"),
        (np.zeros((3, 2, 2)), 2, "shape (3, 2, 2)"),
        (np.array([[0.0, np.nan], [0.0, 1.0]]), 2, "NaN for 1 of 2 rows"),
    ],
)
def test_outputs_of_the_wrong_shape_say_what_is_allowed(
    outputs: np.ndarray, classes: int, said: str
) -> None:
    with pytest.raises(StageError) as caught:
        predictions_of(outputs, classes)
    assert said in str(caught.value)


def test_a_metric_that_is_undefined_is_named_and_not_numbered() -> None:
    predictions = predictions_of(np.zeros((2, 3)), 3)
    found, undefined = score(["roc_auc", "accuracy"], np.array([0, 1]), predictions)
    assert set(found) == {"accuracy"}
    assert undefined == {"roc_auc": "the test rows hold nothing of class 2"}


@settings(deadline=None, max_examples=40)
@given(size=st.floats(1e-6, 1e3), off=st.floats(0, 3), tolerance=st.floats(1e-6, 1e-2))
def test_served_outputs_pass_exactly_within_the_tolerance(
    size: float, off: float, tolerance: float
) -> None:
    trained = np.array([size, -size])
    allowed = tolerance + tolerance * size
    served = trained + off * allowed * np.array([1, 0])
    if off < 0.999:
        assert compare(served, trained, tolerance, "m").largest_difference <= allowed
    elif off > 1.001:
        with pytest.raises(StageError, match="in 1 of 2 rows"):
            compare(served, trained, tolerance, "m")


def test_nan_and_other_shapes_never_pass() -> None:
    with pytest.raises(StageError, match="the alias was not moved"):
        compare(np.array([np.nan]), np.array([1.0]), 1.0, "m")
    with pytest.raises(StageError, match="shape"):
        compare(np.zeros((2, 3)), np.zeros((2, 2)), 1.0, "m")


def test_a_version_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    from workbench.lifecycle.score_check import check_version

    np.save(tmp_path / "in.npy", np.zeros((2, 2)))
    np.save(tmp_path / "out.npy", np.zeros((2, 2)))
    with pytest.raises(
        StageError, match="cannot be loaded and scored in a fresh process"
    ) as caught:
        check_version(
            tracking_uri=f"sqlite:///{tmp_path}/none.db",
            model_uri=str(tmp_path / "no-model"),
            folder=tmp_path,
            inputs=tmp_path / "in.npy",
            outputs=tmp_path / "out.npy",
            rows=2,
            tolerance=1e-4,
            timeout_seconds=120,
        )
    assert "\n" not in str(caught.value)
