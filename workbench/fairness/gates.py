"""A gate: a bound on a disparity, and the verdict the evidence allows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Literal

from workbench.errors import ConfigurationError

from .disparity import Figure, allowed_names, figure
from .results import Disparity, GateResult, LeftOut, Verdict, interval_text

OnNotEnough = Literal["refuse", "warn"]
_BOUND_OF = {"difference": "max", "group_max": "max", "ratio": "min", "group_min": "min"}
_TEXT = re.compile(r"^\s*([A-Za-z_]+)\s*(<=|>=)\s*([^@\s]+)\s*(?:@\s*(.+?)\s*)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A bound on one disparity.

    With ``[low, high]`` the simultaneous interval of the disparity, a ``max`` bound **fails** when
    ``low > max`` (the gap is surely larger), **passes** when ``high <= max`` (surely not larger)
    and no group is undefined, and in between there is **not enough evidence**. ``min`` mirrors it.

    Attributes:
        metric: A name such as ``demographic_parity_difference`` or ``accuracy_group_min``.
        max: Upper bound: for differences and ``group_max``.
        min: Lower bound: for ratios and ``group_min``.
        attribute: An attribute, or an intersection as ``"SEX × RAC1P"`` or ``"SEX*RAC1P"``;
            ``None`` for each single attribute of the audit.
        on_not_enough: ``refuse`` (the default: a promise that cannot be checked is not kept) or
            ``warn`` (deploy, and say so in the report).
        min_count: Groups with fewer cases behind the metric are left out and named; 0 leaves out
            none.

    Raises:
        ConfigurationError: Unknown form of metric, no bound or two, or an impossible bound.

    Example:
        >>> Gate(metric="demographic_parity_difference", max=0.2).bound
        'max'
    """

    metric: str
    max: float | None = None
    min: float | None = None
    attribute: str | None = None
    on_not_enough: OnNotEnough = "refuse"
    min_count: int = 0

    def __post_init__(self) -> None:
        found = figure(self.metric)
        if found is None:
            raise ConfigurationError(
                f"gate metric is {self.metric!r}; allowed: {_list('binary')}; for regression: "
                f"{_list('regression')}"
            )
        _check_bound(self, found)
        if self.on_not_enough not in ("refuse", "warn"):
            raise ConfigurationError(
                f"on_not_enough of gate {self.metric} is {self.on_not_enough!r}; "
                "allowed: refuse, warn"
            )
        if (
            isinstance(self.min_count, bool)
            or not isinstance(self.min_count, int)
            or (self.min_count < 0)
        ):
            raise ConfigurationError(
                f"min_count of gate {self.metric} is {self.min_count!r}; allowed: 0 or more rows"
            )

    @property
    def bound(self) -> str:
        """``max`` or ``min``."""
        return "min" if self.max is None else "max"

    @property
    def threshold(self) -> float:
        """The bound's value."""
        return float(self.min if self.max is None else self.max)  # type: ignore[arg-type]


def gate_from(given: Mapping[str, Any] | str | Gate) -> Gate:
    """Return the gate that a mapping (of YAML) or a text (of a command line) describes.

    Raises:
        ConfigurationError: A key is unknown, or the text is not ``METRIC<=X[@ATTRIBUTE]``.

    Example:
        >>> gate_from("demographic_parity_ratio >= 0.8 @ Race").min
        0.8
        >>> gate_from({"metric": "accuracy_difference", "max": 0.1}).max
        0.1
    """
    if isinstance(given, Gate):
        return given
    if isinstance(given, str):
        return _from_text(given)
    known = [item.name for item in fields(Gate)]
    unknown = [str(key) for key in given if key not in known]
    if unknown or "metric" not in given:
        wrong = f"has the unknown key {unknown[0]!r}" if unknown else "has no metric"
        raise ConfigurationError(f"gate {dict(given)!r} {wrong}; allowed: {', '.join(known)}")
    return Gate(**given)


def check_gate(
    gate: Gate, *, task: str, with_score: bool, singles: Sequence[str], crossed: Sequence[str]
) -> tuple[Figure, tuple[str, ...]]:
    """Return what the gate looks at, and for which attributes or intersections (``crossed``).

    Raises:
        ConfigurationError: The metric does not exist for the task, or the attribute in the audit.
    """
    found = figure(gate.metric)
    allowed = allowed_names(task, with_score=with_score)
    if found is None or not any(_same(found, figure(name)) for name in allowed):
        raise ConfigurationError(
            f"gate metric {gate.metric!r} is not known for a {task} task"
            f"{'' if with_score or 'roc_auc' not in gate.metric else ' without a score'}; "
            f"allowed: {', '.join(allowed)}"
        )
    if gate.attribute is None:
        return found, tuple(singles)
    attributes = (*singles, *crossed)
    wanted = frozenset(re.split(r"\s*[×*]\s*", gate.attribute.strip()))
    for name in attributes:
        if name == gate.attribute or frozenset(name.split(" × ")) == wanted:
            return found, (name,)
    raise ConfigurationError(
        f"gate {gate.metric} names the attribute {gate.attribute!r}, which is not audited; "
        f"allowed: {', '.join(attributes)}"
    )


def judge(gate: Gate, attribute: str, found: Disparity) -> GateResult:
    """Return the verdict of ``gate`` on a disparity of ``attribute``, with its reason.

    Example:
        >>> seen = Disparity(metric="demographic_parity_difference", value=0.15, low=0.12, high=0.18,
        ...                  lowest="F", highest="M")
        >>> judge(Gate(metric="demographic_parity_difference", max=0.2), "sex", seen).verdict
        'pass'
        >>> judge(Gate(metric="demographic_parity_difference", max=0.1), "sex", seen).verdict
        'fail'
        >>> judge(Gate(metric="demographic_parity_difference", max=0.16), "sex", seen).verdict
        'not enough evidence'
    """
    verdict = _verdict(gate, found)
    lacking = verdict == "not enough evidence"
    return GateResult(
        metric=gate.metric,
        attribute=attribute,
        bound=gate.bound,
        threshold=gate.threshold,
        verdict=verdict,
        refuses=verdict == "fail" or (lacking and gate.on_not_enough == "refuse"),
        on_not_enough=gate.on_not_enough,
        disparity=found,
        reason=_reason(gate, attribute, found, verdict),
    )


def _verdict(gate: Gate, found: Disparity) -> Verdict:
    if found.value is None:
        return "not enough evidence"
    if gate.bound == "max":
        broken = found.low is not None and found.low > gate.threshold
        kept = found.high is not None and found.high <= gate.threshold
    else:
        broken = found.high is not None and found.high < gate.threshold
        kept = found.low is not None and found.low >= gate.threshold
    if broken:
        return "fail"
    # a group that cannot be evaluated is no evidence at all, so nothing is surely kept
    complete = not found.unknown and not found.reason
    return "pass" if kept and complete else "not enough evidence"


def _reason(gate: Gate, attribute: str, found: Disparity, verdict: Verdict) -> str:
    sign = "at most" if gate.bound == "max" else "at least"
    bound = f"{sign} {gate.threshold:g}"
    if found.value is None:
        why = f"{gate.metric} over {attribute} cannot be evaluated: {found.reason}"
        return _ended(why + _unknown(found))
    head = f"{gate.metric} over {attribute} is {found.value:.3f}"
    head += f" {interval_text(found.low, found.high)}"
    if figure(gate.metric).kind in ("difference", "ratio"):  # type: ignore[union-attr]
        head += f" (lowest in group {found.lowest}, highest in group {found.highest})"
    if verdict == "pass":
        return _ended(f"{head}: {bound}, as the interval shows" + _small(found))
    if verdict == "fail":
        beyond = "above" if gate.bound == "max" else "below"
        return _ended(f"{head}: surely {beyond} {gate.threshold:g}" + _small(found))
    return _ended(f"{head}: whether it is {bound} is open" + _why_open(found))


def _why_open(found: Disparity) -> str:
    text = _unknown(found) + _small(found)
    if found.detectable is not None and len(found.weakest) == 2:
        text += (
            f"; between groups {found.weakest[0]} and {found.weakest[1]} these rows show only gaps of "
            f"{found.detectable:.2f} or more (80 % power)"
        )
    elif found.weakest:
        text += f"; least is known of group {found.weakest[0]}"
    return text


def _unknown(found: Disparity) -> str:
    return f"; undefined in {_names(found.unknown)}" if found.unknown else ""


def _small(found: Disparity) -> str:
    return f"; left out as too small: {_names(found.left_out)}" if found.left_out else ""


def _names(items: tuple[LeftOut, ...]) -> str:
    names = list(dict.fromkeys(str(item) for item in items))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _ended(sentence: str) -> str:
    return sentence + "."


def _same(one: Figure, other: Figure | None) -> bool:
    return other is not None and (one.kind, one.metrics) == (other.kind, other.metrics)


def _list(task: str) -> str:
    return ", ".join(allowed_names(task, with_score=True))


def _check_bound(gate: Gate, found: Figure) -> None:
    bound = _BOUND_OF[found.kind]
    given = {"max": gate.max, "min": gate.min}
    if given[bound] is None or any(v is not None for k, v in given.items() if k != bound):
        said = ", ".join(f"{k}: {v}" for k, v in given.items() if v is not None) or "no bound"
        raise ConfigurationError(
            f"gate {gate.metric} has {said}; allowed: {bound}, and nothing else; "
            f"write {bound}: {'0.1' if bound == 'max' else '0.8'}"
        )
    value, error = given[bound], "mean" in found.metrics[0]
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    top = float("inf") if error and found.kind != "ratio" else 1.0
    bottom = -float("inf") if found.metrics == ("mean_error",) and found.kind != "difference" else 0
    if not number or not bottom <= float(value or 0) <= top:
        limits = "a number" if bottom < 0 else f"0 to {top:g}" if top == 1 else "0 or more"
        raise ConfigurationError(
            f"{bound} of gate {gate.metric} is {value!r}; allowed: {limits}; no data could "
            "decide such a gate"
        )


def _from_text(text: str) -> Gate:
    match = _TEXT.match(text)
    try:
        value = float(match[3]) if match else None
    except ValueError:
        value = None
    if match is None or value is None:
        raise ConfigurationError(
            f"gate is {text!r}; allowed: METRIC<=X or METRIC>=X, with @ATTRIBUTE after it if it is "
            "for one; write 'demographic_parity_difference<=0.2@SEX'"
        )
    bound = {"<=": "max", ">=": "min"}[match[2]]
    return gate_from({"metric": match[1], bound: value, "attribute": match[4]})
