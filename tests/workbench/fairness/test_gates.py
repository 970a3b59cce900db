"""Three verdicts, what refuses, and gates that make no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigurationError
from workbench.fairness import AuditReport, Gate, audit, gate_from

PARITY = "demographic_parity_difference"


def _selected(first: tuple[int, int], second: tuple[int, int], *gates: Any) -> AuditReport:
    """An audit of two groups of (selected, rows)."""
    rows = [(int(i < k), name) for name, (k, n) in (("u", first), ("v", second)) for i in range(n)]
    table = pd.DataFrame(rows, columns=["p", "a"])
    table["y"] = np.arange(len(table)) % 2
    return audit(table, label="y", prediction="p", attributes=["a"], gates=gates)


def test_a_gap_surely_above_the_bound_fails_and_refuses() -> None:
    report = _selected((4000, 10_000), (2000, 10_000), f"{PARITY}<=0.01")
    assert (report.verdict, report.refused) == ("fail", True)
    assert report.refusal.startswith(f"the audit refuses: {PARITY} over a is 0.200 [0.1")
    assert "surely above 0.01" in report.refusal
    assert "\n" not in report.refusal


def test_a_gap_surely_within_the_bound_passes() -> None:
    report = _selected((4000, 10_000), (3900, 10_000), f"{PARITY}<=0.1")
    assert (report.verdict, report.refused, report.refusal) == ("pass", False, "")


@pytest.mark.parametrize(("choice", "refused"), [("refuse", True), ("warn", False)])
def test_too_few_rows_are_not_enough_evidence_and_the_gate_says_what_follows(
    choice: str, refused: bool
) -> None:
    gate = {"metric": PARITY, "max": 0.2, "on_not_enough": choice}
    report = _selected((4, 10), (3, 10), gate)
    assert (report.verdict, report.refused) == ("not enough evidence", refused)
    reason = report.gates[0].reason
    assert "between groups u and v these rows show only gaps of" in reason
    assert "80 % power" in reason


def test_a_surely_broken_gate_refuses_even_when_told_to_warn() -> None:
    gate = {"metric": PARITY, "max": 0.01, "on_not_enough": "warn"}
    assert _selected((400, 1000), (200, 1000), gate).refused


def test_a_group_that_cannot_be_evaluated_keeps_a_gate_from_passing() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"y": rng.integers(0, 2, 4000), "a": rng.choice(["u", "v"], 4000)})
    table["p"] = np.where(rng.random(4000) < 0.9, table.y, 1 - table.y)
    gate = {"metric": "equal_opportunity_difference", "max": 0.2}
    columns: dict[str, Any] = {"label": "y", "prediction": "p", "attributes": ["a"]}
    assert audit(table, gates=[gate], **columns).verdict == "pass"
    odd = pd.concat([table, pd.DataFrame({"y": [0] * 3, "a": ["w"] * 3, "p": [0] * 3})])
    report = audit(odd, gates=[gate], **columns)
    assert report.verdict == "not enough evidence"
    assert "undefined in w (no positives)" in report.gates[0].reason
    spared = audit(odd, gates=[{**gate, "min_count": 30}], **columns)
    assert spared.verdict == "pass"
    assert "left out as too small: w (n 0 < 30)" in spared.gates[0].reason


def test_a_gate_without_attribute_holds_for_each_single_one_and_a_named_one_for_itself() -> None:
    table = {"y": [0, 1] * 8, "p": [0, 1] * 8, "a": list("uv") * 8, "b": [1] * 8 + [2] * 8}
    columns: dict[str, Any] = {"label": "y", "prediction": "p", "attributes": ["a", "b"]}
    each = audit(table, gates=[f"{PARITY}<=0.2"], **columns)
    assert [gate.attribute for gate in each.gates] == ["a", "b"]
    for spelling in ("a × b", "b*a", "a * b"):
        crossed = audit(table, gates=[f"{PARITY}<=0.2@{spelling}"], **columns)
        assert [gate.attribute for gate in crossed.gates] == ["a × b"]


@given(k=st.integers(0, 60), m=st.integers(0, 60), low=st.floats(0, 1), high=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_looser_bound_never_turns_a_pass_into_less(
    k: int, m: int, low: float, high: float
) -> None:
    order = ["fail", "not enough evidence", "pass"]
    low, high = min(low, high), max(low, high)
    report = _selected(
        (k, 60), (m, 60), Gate(metric=PARITY, max=low), Gate(metric=PARITY, max=high)
    )
    tight, loose = (order.index(gate.verdict) for gate in report.gates)
    assert tight <= loose
    assert report.verdict == order[min(tight, loose)]


def test_four_fifths_as_a_ratio_gate() -> None:
    assert _selected((600, 1000), (300, 1000), "demographic_parity_ratio>=0.8").verdict == "fail"
    assert _selected((600, 1000), (590, 1000), "demographic_parity_ratio>=0.8").verdict == "pass"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "nonsense", "max": 0.1}, "allowed: demographic_parity_difference"),
        ({"metric": PARITY}, "no bound; allowed: max"),
        ({"metric": PARITY, "min": 0.1}, "min: 0.1; allowed: max"),
        ({"metric": PARITY, "max": 0.1, "min": 0.1}, "allowed: max, and nothing else"),
        ({"metric": PARITY, "max": -0.1}, "max of gate .* is -0.1; allowed: 0 to 1"),
        ({"metric": PARITY, "max": 1.5}, "allowed: 0 to 1"),
        ({"metric": PARITY, "max": float("nan")}, "allowed: 0 to 1"),
        ({"metric": PARITY, "max": "much"}, "'much'; allowed: 0 to 1"),
        ({"metric": PARITY, "max": True}, "True; allowed: 0 to 1"),
        ({"metric": "mean_error_difference", "max": -1}, "allowed: 0 or more"),
        ({"metric": PARITY, "max": 0.1, "maxx": 1}, "unknown key 'maxx'; allowed: metric"),
        ({"max": 0.1}, "has no metric"),
        ({"metric": PARITY, "max": 0.1, "on_not_enough": "shrug"}, "allowed: refuse, warn"),
        ({"metric": PARITY, "max": 0.1, "min_count": -1}, "allowed: 0 or more rows"),
        ({"metric": "equalized_odds_group_min", "min": 0.1}, "gate metric is"),
        (f"{PARITY}<0.2", "METRIC<=X"),
        (f"{PARITY}<=big", "METRIC<=X"),
    ],
)
def test_an_impossible_gate_is_refused_in_one_line(given: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        gate_from(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("mean_absolute_error_difference<=1", "not known for a binary task"),
        ("sillyness_difference<=0.1", "allowed: demographic_parity_difference"),
        ("roc_auc_difference<=0.1", "without a score"),
        (f"{PARITY}<=0.1@zip", "'zip', which is not audited; allowed: a"),
    ],
)
def test_a_gate_that_does_not_fit_the_audit_is_refused(gate: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _selected((3, 10), (4, 10), gate)
