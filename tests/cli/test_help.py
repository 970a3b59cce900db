"""`wb --help` is fast, complete and true."""

from __future__ import annotations

import inspect
import resource
import subprocess
import sys
from importlib import import_module

import pytest

from workbench import __version__
from workbench.cli import main
from workbench.cli.app import COMMANDS, load_command

HEAVY = ("torch", "mlflow", "rich", "pydantic", "pandas", "numpy", "yaml", "psutil", "asyncio")


def test_help_lists_every_command_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for name, entry in COMMANDS.items():
        assert f"{name} {entry.sentence}" in told


def test_wb_alone_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: wb" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says_of_itself(name: str) -> None:
    function = getattr(import_module(f"workbench.cli.{COMMANDS[name].module}"), name)
    assert (inspect.getdoc(function) or "").splitlines()[0] == COMMANDS[name].sentence


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert COMMANDS[name].sentence in " ".join(told.split())
    for option in load_command(name).params:
        assert option.name in ("words", "run", "file", "model") or max(option.opts, key=len) in told


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from workbench.cli import main; code = main(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr);"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_help_takes_less_than_a_fifth_of_a_second_of_processor_time() -> None:
    # Processor time, the least of five: wall time is measured in benchmarks/cli.py, and depends on
    # what else this machine does.
    assert min(_cpu_seconds_of_help() for _ in range(5)) < 0.2


def _cpu_seconds_of_help() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "workbench.cli", "--help"], check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"wb {__version__}\n"
