"""What is judged: the task, and its label, prediction and score as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import ConfigurationError, DataContractError

from .levels import Levels, levels_of, names_of
from .slices import missing_column

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .intervals import Floats

Task = Literal["binary", "multiclass", "regression"]
TASKS = ("auto", "binary", "multiclass", "regression")
_POSITIVE_BY_CUSTOM = ({0, 1}, {-1, 1})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """The labelled rows of a table.

    Attributes:
        task: ``binary``, ``multiclass`` or ``regression``.
        labelled: One boolean a row of the table; the arrays below hold the labelled rows only.
        truth: Index into ``classes`` a row (binary: 1 is positive); empty for regression.
        decision: The same of the prediction.
        classes: Names of the classes; two for a binary task, negative first.
        error: Prediction minus label; empty unless regression.
        score: A score that grows with the positive class; ``None`` when not given.
    """

    task: Task
    labelled: NDArray[np.bool_]
    truth: NDArray[np.int64]
    decision: NDArray[np.int64]
    classes: tuple[str, ...]
    error: Floats
    score: Floats | None


def outcomes(
    table: Any,
    *,
    label: str,
    prediction: str,
    score: str | None = None,
    positive: Any = None,
    task: str = "auto",
) -> Outcomes:
    """Return what is to be judged, and decide the task when it is ``auto``.

    ``auto``: a ``positive`` value, or two values in label and prediction together, make a binary
    task (1 or True is positive); numbers with fractions a regression; all else multi-class.

    Raises:
        DataContractError: A column is missing, empty, without a label, with one class, with a
            missing prediction; or label and prediction have no value in common.
        ConfigurationError: Task unknown, or the positive value not known or not there.
    """
    import numpy as np

    if task not in TASKS:
        raise ConfigurationError(f"task is {task!r}; allowed: {', '.join(TASKS)}")
    given = _column(table, "label", label)
    labelled = ~np.asarray(given.isna(), dtype=bool)
    guess = _column(table, "prediction", prediction)
    _complete("prediction", prediction, guess)
    if not labelled.any():
        raise DataContractError(
            f"label {label!r} is missing in all {len(given)} rows; allowed: some labelled rows"
        )
    given, guess = given[labelled], guess[labelled]
    scores = None if score is None else _score(table, score, labelled)
    if task == "regression" or (task == "auto" and positive is None and _fractions(given, guess)):
        return _regression(label, prediction, given, guess, labelled, scores)
    _not_a_score(label, prediction, given, guess)
    truth, decided = levels_of(given, name=label), levels_of(guess, name=prediction)
    _check_classes(label, prediction, truth, decided)
    values = _union(truth.values, decided.values)
    if positive is not None or task == "binary" or (task == "auto" and len(values) == 2):
        found = _binary(label, prediction, truth, decided, values, positive)
        return Outcomes(task="binary", labelled=labelled, score=scores, **found)
    if scores is not None:
        raise ConfigurationError(
            f"score {score!r} was given, but label {label!r} has {len(values)} classes; allowed: a "
            "score for a binary task; name the positive class, or leave the score out"
        )
    joint = levels_of(_objects([*given.tolist(), *guess.tolist()]), name=label)
    return Outcomes(
        task="multiclass",
        labelled=labelled,
        truth=joint.codes[: len(given)],
        decision=joint.codes[len(given) :],
        classes=joint.names,
        error=np.empty(0),
        score=None,
    )


def _column(table: Any, role: str, name: str) -> Any:
    import pandas as pd

    if name not in table:
        raise DataContractError(missing_column(role, name, table))
    column = table[name]
    if isinstance(column, pd.DataFrame):
        raise DataContractError(
            f"{role} column {name!r} is there {column.shape[1]} times; allowed: once; rename one"
        )
    series = pd.Series(column)
    if series.empty:
        raise DataContractError(f"{role} column {name!r} has no rows; allowed: one row or more")
    return series


def _complete(role: str, name: str, column: Any) -> None:
    missing = int(column.isna().sum())
    if missing:
        raise DataContractError(
            f"{role} {name!r} is missing in {missing} of {len(column)} rows; allowed: none missing; "
            f"drop these rows or fill the {role} in (labels may be missing)"
        )


def _numbers(role: str, name: str, column: Any) -> Floats:
    import numpy as np
    import pandas as pd

    try:
        values = np.asarray(pd.to_numeric(column), dtype=float)
    except (ValueError, TypeError):
        raise DataContractError(f"{role} {name!r} holds text; allowed: numbers") from None
    if not np.isfinite(values).all():
        raise DataContractError(
            f"{role} {name!r} is infinite in {int((~np.isfinite(values)).sum())} rows; "
            "allowed: finite numbers"
        )
    return values


def _score(table: Any, name: str, labelled: NDArray[np.bool_]) -> Floats:
    column = _column(table, "score", name)
    _complete("score", name, column)
    return _numbers("score", name, column[labelled])


def _fractions(given: Any, guess: Any) -> bool:
    """Both are numbers, the label has more than two values, and one of them has fractions."""
    import numpy as np
    import pandas as pd

    if not all(pd.api.types.is_numeric_dtype(column) for column in (given, guess)):
        return False
    if given.nunique() <= 2:
        return False
    numbers = (np.asarray(column, dtype=float) for column in (given, guess))
    return any(bool((column != np.floor(column)).any()) for column in numbers)


def _not_a_score(label: str, prediction: str, given: Any, guess: Any) -> None:
    import numpy as np
    import pandas as pd

    if given.nunique() > 2 or not pd.api.types.is_numeric_dtype(guess):
        return
    numbers = np.asarray(guess, dtype=float)
    if bool((numbers != np.floor(numbers)).any()):
        raise DataContractError(
            f"prediction {prediction!r} has fractions (such as {numbers[numbers % 1 != 0][0]:g}) "
            f"but label {label!r} has {given.nunique()} values; allowed: the decision itself; "
            "threshold it, and give this column as the score"
        )


def _regression(
    label: str,
    prediction: str,
    given: Any,
    guess: Any,
    labelled: NDArray[np.bool_],
    score: Floats | None,
) -> Outcomes:
    import numpy as np

    if score is not None:
        raise ConfigurationError(
            "a score was given for a regression; allowed: a score for a binary task; leave it out"
        )
    none = np.empty(0, dtype=np.int64)
    error = _numbers("prediction", prediction, guess) - _numbers("label", label, given)
    return Outcomes(
        task="regression",
        labelled=labelled,
        truth=none,
        decision=none,
        classes=(),
        error=error,
        score=None,
    )


def _check_classes(label: str, prediction: str, truth: Levels, decided: Levels) -> None:
    if len(truth.values) == 1:
        raise DataContractError(
            f"label {label!r} has one class only ({truth.names[0]!r}); allowed: two or more; an "
            "audit compares errors of different kinds, so take rows of every class"
        )
    if not set(truth.values) & set(decided.values):
        raise DataContractError(
            f"label {label!r} ({_few(truth.values)}) and prediction {prediction!r} "
            f"({_few(decided.values)}) have no value in common; write both in the same values"
        )


def _union(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    return levels_of(_objects([*first, *second]), name="classes").values


def _objects(values: list[Any]) -> Any:
    import pandas as pd

    return pd.Series(values, dtype=object)


def _binary(
    label: str,
    prediction: str,
    truth: Levels,
    decided: Levels,
    values: tuple[Any, ...],
    positive: Any,
) -> dict[str, Any]:
    import numpy as np

    if positive is None and len(values) > 2:
        raise DataContractError(
            f"label {label!r} has {len(truth.values)} values and prediction {prediction!r} "
            f"{len(decided.values)} ({_few(decided.values)}); allowed for a binary task: two "
            "together; name the positive one, or take task='multiclass'"
        )
    chosen = _positive(label, values, positive)
    rest = [value for value in values if value != chosen]
    return {
        "truth": _is(truth, chosen),
        "decision": _is(decided, chosen),
        "classes": _class_names(rest, chosen),
        "error": np.empty(0),
    }


def _class_names(rest: list[Any], chosen: Any) -> tuple[str, str]:
    if len(rest) != 1:
        name = names_of((chosen,))[0]
        return f"not {name}", name
    negative, positive = names_of((rest[0], chosen))
    return negative, positive


def _positive(label: str, values: tuple[Any, ...], positive: Any) -> Any:
    if positive is None:
        if set(values) in _POSITIVE_BY_CUSTOM:
            return values[1]
        raise ConfigurationError(
            f"label {label!r} has the values {_few(values)}: which is positive? say positive=… "
            "(0/1, -1/1 and False/True need no answer)"
        )
    for same in (lambda value: value == positive, lambda value: str(value) == str(positive)):
        for value in values:
            if same(value):
                return value
    raise ConfigurationError(
        f"positive is {positive!r}, which label {label!r} never is; allowed: {_few(values)}"
    )


def _is(levels: Levels, value: Any) -> NDArray[np.int64]:
    import numpy as np

    if value not in levels.values:
        return np.zeros(len(levels.codes), dtype=np.int64)
    return np.asarray(levels.codes == levels.values.index(value), dtype=np.int64)


def _few(values: tuple[Any, ...]) -> str:
    shown = ", ".join(repr(value) for value in values[:6])
    return shown + (f", … {len(values)} in all" if len(values) > 6 else "")
