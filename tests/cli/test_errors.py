"""Every exception becomes one line on stderr and its exit code."""

from __future__ import annotations

import json

import pytest

from workbench import errors
from workbench.cli import main
from workbench.cli.errors import guarded, one_line

CODES = [
    (errors.WorkbenchError("x"), 1),
    (errors.StageError("x", stage="train"), 1),
    (errors.NonFiniteError("x", step=3), 1),
    (errors.UsageError("x"), 2),
    (errors.ConfigurationError("x"), 2),
    (errors.DataContractError("x"), 2),
    (errors.GateError("x"), 3),
    (errors.InfrastructureError("x"), 4),
    (errors.Interrupted("x"), 130),
    (KeyboardInterrupt(), 130),
    (ZeroDivisionError("division by zero"), 1),
]


def _raising(error: BaseException) -> object:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(("error", "code"), CODES)
def test_each_error_has_its_code_and_one_line(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(_raising(error), []) == code  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("wb: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), CODES)
def test_with_json_the_error_is_one_object_on_stdout(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded(_raising(error), ["--json"])  # type: ignore[arg-type]
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["exit_code"]) == ("failed", code)


def test_a_fault_of_ours_says_how_to_see_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(_raising(ValueError("odd")), [])  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert "internal error: ValueError: odd" in err
    assert "--debug" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no-such-thing", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert main(["--debug", "run", "no-such-thing"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_debug_after_the_dashes_is_the_scripts_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no-such-thing", "--", "--debug"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["rnu"], "did you mean 'wb run'?"),
        (["frobnicate"], "there is no command 'frobnicate'"),
        (["--frobnicate"], "--frobnicate"),
        (["run", "--wrokers", "2"], "--wrokers"),
        (["audit"], "FILE"),
        (["ui", "--port", "many"], "'--port': Input should be a valid integer"),
        (["validate"], "see 'wb validate --help'"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_word(
    args: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    err = capsys.readouterr().err
    assert named in err
    assert err.count("\n") == 1


def test_many_lines_become_one() -> None:
    assert one_line("first\n   second\tthird ") == "first second third"
