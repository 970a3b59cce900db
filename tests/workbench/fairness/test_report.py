"""The page: self-contained, escaped, the same twice, and true to its report."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.fairness import audit, save_report, to_html
from workbench.fairness.plot import axis

VOID = {"meta", "br", "link", "img"}


class _Balance(HTMLParser):
    """Every tag closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parse(page: str) -> _Balance:
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []
    return parser


def _table(task: str = "binary") -> pd.DataFrame:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"a": rng.choice(["x", "y", "z"], 200), "b": rng.integers(0, 99, 200)})
    frame.loc[frame.a == "z", "a"] = None
    frame["y"] = {
        "binary": rng.integers(0, 2, 200),
        "multiclass": rng.integers(0, 4, 200),
        "regression": rng.normal(size=200),
    }[task]
    frame["p"] = frame.y.sample(frac=1, random_state=0).to_numpy()
    return frame


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_page_is_well_formed_and_asks_for_nothing_from_outside(task: str) -> None:
    report = audit(_table(task), label="y", prediction="p", attributes=["a", "b"])
    assert report.task == task
    page = to_html(report)
    seen = _parse(page).seen
    assert not [tag for tag, _ in seen if tag in ("script", "link", "img", "iframe")]
    assert not [tag for tag, attrs in seen if {"src", "href", "style"} & set(attrs)]
    assert not re.search(r"https?:|url\(|@import", page)
    assert sum(tag == "svg" for tag, _ in seen) == 3
    assert len(page.encode()) < 500_000


def test_the_page_is_the_same_for_the_same_report() -> None:
    table = _table()
    pages = {
        to_html(audit(table, label="y", prediction="p", attributes=["a"]), provenance={"run": "1"})
        for _ in range(2)
    }
    assert len(pages) == 1


@pytest.mark.parametrize(
    ("gates", "headline"),
    [
        ([], "No gate was set"),
        (["accuracy_difference<=0.9"], "Pass"),
        (["accuracy_group_min>=0.99"], "Fail"),
        (["accuracy_difference<=0.01"], "Not enough evidence"),
    ],
)
def test_the_verdict_comes_first_with_every_reason(gates: list[str], headline: str) -> None:
    report = audit(_table(), label="y", prediction="p", attributes=["a"], gates=gates)
    page = to_html(report)
    assert f"<strong>{headline}</strong>" in page
    assert page.index(headline) < page.index("<svg")
    assert all(gate.reason in page for gate in report.gates)
    assert ("Deployment is refused." in page) == report.refused


def test_undefined_rates_are_words_in_plot_and_table() -> None:
    table = {"y": [0, 1, 0, 0], "p": [0, 1, 1, 0], "a": list("uuvv")}
    page = to_html(audit(table, label="y", prediction="p", attributes=["a"]))
    assert ">no positives</text>" in page
    assert '<td class="undefined">undefined<small>no positives</small>' in page
    assert "nan" not in page.lower().replace("tenant", "")


def test_text_of_the_data_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>&\"'"
    table = {"y": [0, 1, 0, 1], "p": [0, 1, 1, 0], evil: [evil, evil, "b", "b"]}
    report = audit(table, label="y", prediction="p", attributes=[evil])
    page = to_html(report, title=evil, provenance={evil: evil})
    assert not [tag for tag, _ in _parse(page).seen if tag == "script"]
    assert "&lt;script&gt;" in page


def test_many_groups_are_cut_and_the_page_says_so() -> None:
    rows = 3000
    table: dict[str, Any] = {"y": [0, 1] * (rows // 2), "p": [0, 0, 1] * (rows // 3)}
    table["a"] = [f"g{i % 500}" for i in range(rows)]
    page = to_html(audit(table, label="y", prediction="p", attributes=["a"]))
    assert "the 60 largest; 440 more are in the JSON" in page
    assert len(page.encode()) < 500_000


def test_saving_makes_the_folders(tmp_path: Path) -> None:
    report = audit(_table(), label="y", prediction="p", attributes=["a"])
    path = save_report(report, tmp_path / "deep" / "er" / "audit.html", title="T")
    assert path.read_text(encoding="utf-8") == to_html(report, title="T")


@given(low=st.floats(-1e6, 1e6), span=st.floats(0, 1e6))
@settings(max_examples=200, deadline=None)
def test_an_axis_holds_its_values_in_a_few_round_steps(low: float, span: float) -> None:
    start, end, step = axis(low, low + span)
    slack = 1e-6 * step + 1e-9 * max(abs(low), abs(low + span))
    assert start <= low + slack
    assert end >= low + span - slack
    assert 1 <= round((end - start) / step) <= 6


@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_the_report_without_scrolling_sideways(
    tmp_path: Path, browser: Callable[..., str], width: int
) -> None:
    gates = ["accuracy_difference<=0.5@a"]
    report = audit(_table(), label="y", prediction="p", attributes=["a", "b"], gates=gates)
    measure = "<script>document.title = document.documentElement.scrollWidth</script></body>"
    page = tmp_path / "report.html"
    page.write_text(to_html(report, title="Audit").replace("</body>", measure), encoding="utf-8")
    document = browser(page.as_uri(), width=width)
    shown = re.search(r"<title>(\d+)</title>", document)
    assert shown is not None
    assert int(shown[1]) <= width
    assert document.count("<svg") >= 2
    assert report.gates[0].reason in document
