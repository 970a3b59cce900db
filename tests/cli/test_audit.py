"""`wb audit` on a small table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NAMES = ["--label", "y", "--prediction", "p", "--attribute", "sex"]


@pytest.fixture
def table(outside: Path) -> str:
    # 200 women of whom 20 are selected, 200 men of whom 180 are: the gap is surely large.
    rows = [f"{i % 2},{int(i < 20)},F" for i in range(200)]
    rows += [f"{i % 2},{int(i < 180)},M" for i in range(200)]
    (outside / "table.csv").write_text("\n".join(["y,p,sex", *rows]))
    return "table.csv"


def test_groups_are_shown_with_counts_and_intervals(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", table, *NAMES]) == 0
    out = capsys.readouterr().out
    assert "400" in out
    assert "selection rate" in out
    assert "0.900 [" in out


def test_a_gate_that_refuses_is_exit_code_3_with_its_reason(
    table: str, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = ["--gate", "demographic_parity_difference<=0.2@sex"]
    assert main(["audit", table, *NAMES, *gate, "--report", "out/audit.html"]) == 3
    out, err = capsys.readouterr()
    assert "fail" in out
    assert err.startswith("wb: the audit refuses: demographic_parity_difference")
    assert (outside / "out" / "audit.html").read_text().startswith("<!DOCTYPE html>")


def test_json_is_the_whole_report(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    gate = ["--gate", "demographic_parity_difference<=0.95"]
    assert main(["audit", table, *NAMES, *gate, "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda token: pytest.fail(token))
    assert (told["verdict"], told["rows"]) == ("pass", 400)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere.csv", *NAMES], "nowhere.csv"),
        (["table.csv", *NAMES[:-1], "age"], "age"),
        (["table.csv", *NAMES, "--gate", "parity=0.2"], "parity"),
    ],
)
def test_what_is_missing_is_named(
    args: list[str], said: str, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table
    assert main(["audit", *args]) == 2
    assert said in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_exit_code_4(
    table: str, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outside / "file").touch()
    assert main(["audit", table, *NAMES, "--report", "file/audit.html"]) == 4
    assert "cannot be written" in capsys.readouterr().err
