"""Published figures of real data sets, from the files themselves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from workbench.fairness import AuditReport, audit

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real data is not there"),
]


def _compas(name: str, text: str) -> pd.DataFrame:
    frame = pd.read_csv(DATA / "compas" / name)
    frame["flagged"] = (frame[text] != "Low").astype(int)
    return frame


def _audit(frame: pd.DataFrame, *attributes: str) -> AuditReport:
    return audit(frame, label="two_year_recid", prediction="flagged", attributes=list(attributes))


def _percent(report: AuditReport, group: str, metric: str) -> float:
    return round(100 * (report.attribute("race").group(group).estimate(metric).value or 0), 2)


def test_compas_error_rates_are_the_published_ones() -> None:
    report = _audit(_compas("compas-scores-two-years.csv.gz", "score_text"), "race", "sex")
    assert report.rows == 7214
    assert _percent(report, "African-American", "false_positive_rate") == 44.85
    assert _percent(report, "Caucasian", "false_positive_rate") == 23.45
    assert _percent(report, "African-American", "false_negative_rate") == 27.99
    assert _percent(report, "Caucasian", "false_negative_rate") == 47.72
    assert _percent(report, "African-American", "precision") == 62.97
    assert _percent(report, "Caucasian", "precision") == 59.13


def test_compas_intersections_of_two_and_four_people_show_how_little_they_say() -> None:
    frame = _compas("compas-scores-two-years.csv.gz", "score_text")
    gate = {"metric": "equalized_odds_difference", "max": 0.9, "attribute": "sex × race"}
    report = audit(
        frame,
        label="two_year_recid",
        prediction="flagged",
        attributes=["sex", "race"],
        gates=[gate, {**gate, "min_count": 5}],
    )
    crossed = report.attribute("sex × race")
    assert len(crossed.groups) == 12
    asian, native = crossed.group("Female × Asian"), crossed.group("Female × Native American")
    assert (asian.cells, asian.rows) == ({"tn": 1, "fp": 0, "fn": 1, "tp": 0}, 2)
    assert (native.cells, native.rows) == ({"tn": 1, "fp": 0, "fn": 0, "tp": 3}, 4)
    assert asian.estimate("precision").reason == "no predicted positives"
    # one negative gives a rate of 0, but one that could as well be 0.79
    for group in (asian, native):
        assert group.estimate("false_positive_rate").value == 0
        assert group.estimate("false_positive_rate").high == pytest.approx(0.793, abs=5e-4)
    with_them, without = report.gates
    assert with_them.verdict == "not enough evidence"
    assert {item.group for item in without.disparity.left_out} >= {asian.group, native.group}


def test_compas_without_the_rows_screened_after_april_2014() -> None:
    frame = _compas("compas-scores-two-years.csv.gz", "score_text")
    late = frame.compas_screening_date.astype(str) > "2014-04-01"
    assert (int(late.sum()), frame.two_year_recid[late].unique().tolist()) == (998, [1])
    report = _audit(frame[~late], "race")
    base = next(estimate for estimate in report.overall if estimate.metric == "base_rate")
    assert round(100 * (base.value or 0), 2) == 36.25
    assert _percent(report, "African-American", "precision") == 54.62
    assert _percent(report, "Caucasian", "precision") == 48.60


def test_the_violent_file_gives_its_own_rates_not_the_published_ones() -> None:
    frame = _compas("compas-scores-two-years-violent.csv.gz", "v_score_text")
    report = _audit(frame, "race")
    assert _percent(report, "African-American", "false_positive_rate") == 33.04
    assert _percent(report, "Caucasian", "false_positive_rate") == 15.55


def test_german_credit_by_age_and_sex() -> None:
    frame = pd.read_csv(DATA / "german_credit" / "german.csv.gz")
    frame["sex"] = frame.personal_status.map(lambda code: "female" if code == "A92" else "male")
    report = audit(
        frame, label="credit", prediction="credit", positive=1, attributes=["age@25", "sex"]
    )
    ages, sexes = report.attribute("age@25"), report.attribute("sex")
    assert ages.group("> 25").estimate("base_rate").value == pytest.approx(0.728395, abs=5e-7)
    assert ages.group("≤ 25").estimate("base_rate").value == pytest.approx(0.578947, abs=5e-7)
    difference = ages.disparity("base_rate_difference").value
    assert difference == pytest.approx(0.149448, abs=5e-7)
    assert ages.disparity("base_rate_ratio").value == pytest.approx(0.794826, abs=5e-7)
    assert sexes.group("female").estimate("base_rate").value == pytest.approx(0.648387, abs=5e-7)
    assert sexes.group("male").estimate("base_rate").value == pytest.approx(0.723188, abs=5e-7)


def test_ricci_pass_rates_and_the_four_fifths_rule() -> None:
    frame = pd.read_csv(DATA / "ricci" / "ricci.csv")
    frame["passed"] = (frame.Combine >= 70).astype(int)
    races = audit(frame, label="passed", prediction="passed", attributes=["Race"])
    cells = {group.group: group for group in races.attribute("Race").groups}
    counts = {name: (group.cells["tp"], group.rows) for name, group in cells.items()}
    assert counts == {"W": (41, 68), "B": (9, 27), "H": (6, 23)}
    two = frame[frame.Race != "H"]
    gate = "demographic_parity_ratio>=0.8"
    report = audit(two, label="passed", prediction="passed", attributes=["Race"], gates=[gate])
    ratio = report.attribute("Race").disparity("demographic_parity_ratio")
    assert round(ratio.value or 0, 3) == 0.553
    # 0.553 is below four fifths, but its interval reaches 0.91: 95 people cannot settle it
    assert report.verdict == "not enough evidence"


def test_acs_income_base_rates() -> None:
    frame = pd.read_parquet(
        DATA / "acs_income" / "ACSIncome.test.parquet", columns=["PINCP", "SEX", "RAC1P"]
    )
    gates = ["base_rate_difference<=0.01"]
    report = audit(
        frame, label="PINCP", prediction="PINCP", attributes=["SEX", "RAC1P"], gates=gates
    )
    sexes = report.attribute("SEX")
    male, female = sexes.group("1"), sexes.group("2")
    assert (male.rows, female.rows) == (173_263, 159_637)
    assert round(male.estimate("base_rate").value or 0, 4) == 0.4426
    assert round(female.estimate("base_rate").value or 0, 4) == 0.2892
    assert [gate.verdict for gate in report.gates] == ["fail", "fail"]
    assert report.refused
