"""Ctrl-C and SIGTERM, in a real process with a real child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

PROGRAM = """
import subprocess, sys, time
from workbench.cli.errors import guarded
from workbench.cli.stopping import StopSwitch
from workbench.errors import Interrupted

def job():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                             start_new_session=True)
    with StopSwitch(lambda line: print(line, file=sys.stderr, flush=True)) as switch:
        print(child.pid, flush=True)
        while not (switch.thrown() and {stops}):
            time.sleep(0.02)
    child.kill()
    child.wait()
    raise Interrupted("interrupted")

sys.exit(guarded(job, []))
"""


def _start(stops: bool) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(stops=stops)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_in_good_order(number: signal.Signals) -> None:
    process, _ = _start(stops=True)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopping in good order; Ctrl-C again kills" in err
    assert err.endswith("wb: interrupted\n")


def test_the_second_signal_kills_and_leaves_no_child() -> None:
    process, child = _start(stops=False)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "stopping" in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.communicate()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_outside_the_block_the_signals_are_as_before() -> None:
    from workbench.cli.stopping import StopSwitch

    before = signal.getsignal(signal.SIGTERM)
    with StopSwitch(lambda _: None) as switch:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert switch.thrown()
    assert signal.getsignal(signal.SIGTERM) is before
