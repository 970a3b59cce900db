"""From a model's raw outputs to predictions and scores, and from these to metrics (scikit-learn's)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import ConfigurationError, StageError

from .pipeline import METRICS_OF_CLASSES, METRICS_OF_NUMBERS

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Predictions of ``n`` rows.

    Attributes:
        values: Classes (int64) or numbers (float64), shape ``(n,)``.
        probabilities: Shape ``(n, classes)``; ``None`` for regression.
    """

    values: np.ndarray
    probabilities: np.ndarray | None = None

    @property
    def score(self) -> np.ndarray | None:
        """Probability of class 1 when there are two classes, else ``None``."""
        if self.probabilities is None or self.probabilities.shape[1] != 2:
            return None
        return self.probabilities[:, 1]


def default_metrics(classes: int) -> tuple[str, ...]:
    """Return the usual metrics for ``classes`` (0: regression).

    Example:
        >>> default_metrics(2), default_metrics(0)
        (('accuracy', 'balanced_accuracy', 'roc_auc', 'log_loss'), ('mae', 'rmse', 'r2'))
    """
    if classes == 0:
        return ("mae", "rmse", "r2")
    extra = ("roc_auc",) if classes == 2 else ()
    return ("accuracy", "balanced_accuracy", *extra, "log_loss")


def check_metrics(metrics: Sequence[str], classes: int) -> None:
    """Raise when a metric does not fit the targets.

    Raises:
        ConfigurationError: A metric of classes for numbers, or the reverse.

    Example:
        >>> check_metrics(["accuracy"], 0)
        Traceback (most recent call last):
        workbench.errors.ConfigurationError: evaluate.metrics names accuracy, but the targets are
        numbers; allowed: mae, mse, rmse, r2
    """
    allowed = METRICS_OF_CLASSES if classes else METRICS_OF_NUMBERS
    for metric in metrics:
        if metric not in allowed:
            kind = f"{classes} classes" if classes else "numbers"
            raise ConfigurationError(
                f"evaluate.metrics names {metric}, but the targets are {kind}; "
                f"allowed: {', '.join(allowed)}"
            )


def predictions_of(outputs: np.ndarray, classes: int) -> Predictions:
    """Return the predictions behind raw ``outputs``.

    ``(n, C)`` logits: softmax and argmax. ``(n,)`` or ``(n, 1)`` with two classes: the sigmoid,
    class 1 from 0.5. Regression: the outputs as they are.

    Raises:
        StageError: The shape fits neither, or an output is NaN.

    Example:
        >>> import numpy as np
        >>> predictions_of(np.array([[0.0, 2.0], [1.0, 0.0]]), 2).values
        array([1, 0])
        >>> predictions_of(np.array([3.0, -1.0]), 2).values
        array([1, 0])
    """
    import numpy as np

    flat = outputs.reshape(len(outputs)) if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs
    if np.isnan(flat).any():
        rows = int(np.isnan(flat).reshape(len(flat), -1).any(axis=1).sum())
        raise StageError(
            f"the model returned NaN for {rows:,} of {len(flat):,} rows", stage="evaluate"
        )
    flat = flat.astype(np.float64)
    if classes == 0 and flat.ndim == 1:
        return Predictions(values=flat)
    if classes == 2 and flat.ndim == 1:
        one = 1.0 / (1.0 + np.exp(-np.clip(flat, -700, 700)))
        return Predictions(
            values=(flat >= 0).astype(np.int64), probabilities=np.stack([1 - one, one], axis=1)
        )
    if classes and flat.ndim == 2 and flat.shape[1] >= classes:
        exponent = np.exp(flat - flat.max(axis=1, keepdims=True))
        probabilities = exponent / exponent.sum(axis=1, keepdims=True)
        return Predictions(values=flat.argmax(axis=1), probabilities=probabilities)
    wanted = f"(n, {classes})" if classes else "(n,) or (n, 1)"
    raise StageError(
        f"the model returned outputs of shape {outputs.shape}; allowed: {wanted} for "
        f"{f'{classes} classes' if classes else 'regression'}",
        stage="evaluate",
    )


def score(
    metrics: Sequence[str], targets: np.ndarray, predictions: Predictions
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the metrics that are defined, and why the others are not.

    Precision, recall and F1 are those of class 1 when there are two classes, else the unweighted
    mean over classes; ``roc_auc`` with more than two classes is one-versus-rest, unweighted.

    Example:
        >>> import numpy as np
        >>> same = Predictions(values=np.array([1, 0]), probabilities=np.eye(2)[[1, 0]])
        >>> score(["accuracy"], np.array([1, 0]), same)
        ({'accuracy': 1.0}, {})
        >>> score(["roc_auc"], np.array([1, 1]), same)[1]
        {'roc_auc': 'the test rows hold class 1 only'}
    """
    defined: dict[str, float] = {}
    undefined: dict[str, str] = {}
    for metric in metrics:
        reason = _undefined(metric, targets, predictions)
        if reason:
            undefined[metric] = reason
        else:
            defined[metric] = float(_metric(metric, targets, predictions))
    return defined, undefined


def _undefined(metric: str, targets: np.ndarray, predictions: Predictions) -> str:
    import numpy as np

    present = np.unique(targets)
    if metric in ("roc_auc", "balanced_accuracy") and len(present) < 2:
        return f"the test rows hold class {present[0]} only"
    if metric == "roc_auc" and predictions.probabilities is not None:
        classes = predictions.probabilities.shape[1]
        if classes > 2 and len(present) < classes:
            absent = sorted(set(range(classes)) - set(present.tolist()))
            return f"the test rows hold nothing of class {absent[0]}"
    if metric == "r2" and len(targets) < 2:
        return "one test row only"
    return ""


def _metric(metric: str, targets: np.ndarray, predictions: Predictions) -> float:
    import numpy as np
    from sklearn import metrics as sk

    values, probabilities = predictions.values, predictions.probabilities
    if metric in ("f1", "precision", "recall"):
        assert probabilities is not None
        average = "binary" if probabilities.shape[1] == 2 else "macro"
        function = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}
        return float(function[metric](targets, values, average=average, zero_division=0.0))
    if metric == "roc_auc":
        if predictions.score is not None:
            return float(sk.roc_auc_score(targets, predictions.score))
        return float(sk.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro"))
    if metric == "log_loss":
        assert probabilities is not None
        return float(sk.log_loss(targets, probabilities, labels=range(probabilities.shape[1])))
    if metric == "balanced_accuracy":
        recalls = [np.mean(values[targets == c] == c) for c in np.unique(targets)]
        return float(np.mean(recalls))  # as scikit-learn's, without its warning on unseen classes
    plain = {
        "accuracy": sk.accuracy_score,
        "mae": sk.mean_absolute_error,
        "mse": sk.mean_squared_error,
        "rmse": sk.root_mean_squared_error,
        "r2": sk.r2_score,
    }
    return float(plain[metric](targets, values))
