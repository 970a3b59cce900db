"""The audit as values: estimates, groups, disparities, gate results, the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "not enough evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One metric of one group.

    Attributes:
        metric: Such as ``selection_rate``; ``true_positive_rate[7]`` for class 7 against the rest.
        value: The estimate; ``None`` when it is undefined, and then ``reason`` says why.
        low: Lower end of the interval of this one group; ``None`` when there is none.
        high: Upper end.
        n: Cases behind it: the denominator of a rate, the smaller class of an AUC.
        reason: Why there is no value; empty when there is.

    Example:
        >>> str(Estimate(metric="true_positive_rate", value=None, low=None, high=None, n=0,
        ...              reason="no positives"))
        'true_positive_rate undefined (no positives)'
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str = ""

    @property
    def defined(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.metric} undefined ({self.reason})"
        return f"{self.metric} {self.value:.3f} {interval_text(self.low, self.high)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """One group of one attribute.

    Attributes:
        group: Its name.
        levels: One level name for each column of the attribute.
        rows: Labelled rows in it.
        unlabelled: Rows in it without a label; they enter no metric.
        cells: ``tn fp fn tp`` of a binary task; empty otherwise.
        estimates: Its metrics.
    """

    group: str
    levels: tuple[str, ...]
    rows: int
    unlabelled: int
    cells: dict[str, int]
    estimates: tuple[Estimate, ...]

    def estimate(self, metric: str) -> Estimate:
        """Return one metric.

        Raises:
            KeyError: It was not computed.
        """
        for found in self.estimates:
            if found.metric == metric:
                return found
        raise KeyError(metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A group whose metric entered no comparison, and why.

    Example:
        >>> str(LeftOut(group="Asian", metric="true_positive_rate", n=0, reason="no positives"))
        'Asian (no positives)'
    """

    group: str
    metric: str
    n: int
    reason: str

    def __str__(self) -> str:
        return f"{self.group} ({self.reason})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disparity:
    """How far the groups of one attribute lie apart in one metric.

    Attributes:
        metric: Such as ``demographic_parity_difference``.
        value: The figure over the groups that can be evaluated; ``None`` when fewer than two can.
        low: Lower end of its simultaneous interval.
        high: Upper end; ``None`` also when nothing bounds it.
        lowest: Group with the smallest value of the metric behind it.
        highest: Group with the largest.
        weakest: The groups whose comparison sets the end of the interval away from parity.
        detectable: Smallest gap between ``weakest`` this sample shows with 80 % power.
        unknown: Groups where the metric is undefined.
        left_out: Groups smaller than the ``min_count`` asked for.
        reason: Why there is no value; empty when there is.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    lowest: str = ""
    highest: str = ""
    weakest: tuple[str, ...] = ()
    detectable: float | None = None
    unknown: tuple[LeftOut, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.metric} not evaluable ({self.reason})"
        return f"{self.metric} {self.value:.3f} {interval_text(self.low, self.high)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeResult:
    """One attribute or intersection: its groups and their disparities."""

    attribute: str
    columns: tuple[str, ...]
    rule: str
    unseen: tuple[str, ...]
    groups: tuple[GroupResult, ...]
    disparities: tuple[Disparity, ...]

    def group(self, name: str) -> GroupResult:
        """Return one group by its name.

        Raises:
            KeyError: No row is in such a group.
        """
        for found in self.groups:
            if found.group == name:
                return found
        raise KeyError(name)

    def disparity(self, metric: str) -> Disparity:
        """Return one disparity by its name.

        Raises:
            KeyError: It was not computed.
        """
        for found in self.disparities:
            if found.metric == metric:
                return found
        raise KeyError(metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate says of one attribute.

    Attributes:
        metric: The disparity it looks at.
        attribute: The attribute or intersection.
        bound: ``max`` or ``min``.
        threshold: The bound's value.
        verdict: ``pass``, ``fail`` or ``not enough evidence``.
        refuses: Whether it refuses deployment: it failed, or lacks evidence and was told to refuse.
        on_not_enough: ``refuse`` or ``warn``.
        disparity: The figure it judged.
        reason: One sentence.
    """

    metric: str
    attribute: str
    bound: str
    threshold: float
    verdict: Verdict
    refuses: bool
    on_not_enough: str
    disparity: Disparity
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """A whole audit.

    Attributes:
        label: Column of the label.
        prediction: Column of the decision.
        score: Column of the score; ``None`` when not given.
        task: ``binary``, ``multiclass`` or ``regression``.
        classes: Class names; for a binary task the second is the positive one.
        level: Confidence of every interval.
        rows: Rows given.
        labelled: Rows with a label: all metrics are about these.
        overall: The metrics over all labelled rows.
        attributes: Attributes in the order named, then their intersections.
        gates: One result for each gate and attribute.
        notes: Sentences a reader must know: missing labels, binning, undefined rates.
    """

    label: str
    prediction: str
    score: str | None
    task: str
    classes: tuple[str, ...]
    level: float
    rows: int
    labelled: int
    overall: tuple[Estimate, ...]
    attributes: tuple[AttributeResult, ...]
    gates: tuple[GateResult, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict of all gates: fail, then not enough evidence; ``None`` without gates."""
        given: set[Verdict] = {gate.verdict for gate in self.gates}
        order: tuple[Verdict, ...] = ("fail", "not enough evidence", "pass")
        return next((verdict for verdict in order if verdict in given), None)

    @property
    def refused(self) -> bool:
        """Whether a gate refuses deployment."""
        return any(gate.refuses for gate in self.gates)

    @property
    def refusal(self) -> str:
        """One line that says which gates refuse and why; empty when none does."""
        reasons = [gate.reason for gate in self.gates if gate.refuses]
        more = f" (and {len(reasons) - 1} more gates)" if len(reasons) > 1 else ""
        return f"the audit refuses: {reasons[0]}{more}" if reasons else ""

    def attribute(self, name: str) -> AttributeResult:
        """Return one attribute or intersection by its name.

        Raises:
            KeyError: It was not audited.
        """
        for found in self.attributes:
            if found.attribute == name:
                return found
        raise KeyError(name)

    def to_plain(self) -> dict[str, Any]:
        """Return the report as dicts, lists, strings and finite numbers."""
        from workbench.codec import to_plain

        head = {"schema": SCHEMA, "verdict": self.verdict, "refused": self.refused}
        return {**head, **to_plain(self)}

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return strict JSON: no ``NaN``, no ``Infinity``; the same report gives the same bytes."""
        import json

        return json.dumps(self.to_plain(), indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> AuditReport:
        """Return the report that :meth:`to_json` wrote."""
        from workbench.codec import from_json

        return from_json(cls, text)


SCHEMA = "adaptive-workbench/audit/1"


def interval_text(low: float | None, high: float | None, *, digits: int = 3) -> str:
    """Return an interval as text; an open end is a dash.

    Example:
        >>> interval_text(0.1, None)
        '[0.100, –]'
    """
    ends = ("–" if end is None else f"{end:.{digits}f}" for end in (low, high))
    return "[" + ", ".join(ends) + "]"
