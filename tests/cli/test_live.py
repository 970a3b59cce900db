"""The live view: what it draws, at any width, and on a real terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from workbench import Record
from workbench.cli.board import Board, Picture
from workbench.cli.live import draw
from workbench.decision import Applied, SetBatchSize
from workbench.lifecycle.ports import StageResult
from workbench.testing import FixedClock

PROGRAM = Path(__file__).with_name("live_program.py")


def _picture(records: list[Record]) -> Picture:
    board = Board(clock=FixedClock())
    board.pipeline_started("digits", "3f2a", "digits-3")
    board.stage_ended(
        StageResult(name="prepare", status="reused", seconds=0.4, summary="1,797 rows")
    )
    board.stage_started("train")
    for record in records:
        board.training(record, 512, 2)
    return board.look()


def _drawn(picture: Picture, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(draw(picture))
    return out.getvalue()


def test_the_view_shows_all_that_is_promised(growth: list[Record]) -> None:
    drawn = _drawn(_picture(growth[:2]), 100)
    for words in (
        "digits-3",
        "reused: 1,797 rows",
        "epoch 1/2",
        "step 2",
        "25%",
        "left",
        "loss",
        "noise scale  812 [640, 1,010] samples",
        "batch size",
        "6,400  2 workers",
        "batch size 64 → 128 after step 2",
        "because noise_scale 812 [640, 1010] samples is surely above batch size 64",
        "deploy",
    ):
        assert words in drawn


def test_a_refusal_says_why(growth: list[Record]) -> None:
    assert "(refused: more than the data set)" in _drawn(_picture(growth), 120)


@settings(deadline=None, max_examples=30)
@given(width=st.integers(30, 200), steps=st.integers(0, 30), data=st.data())
def test_no_line_is_wider_than_the_terminal(width: int, steps: int, data: st.DataObject) -> None:
    from dataclasses import replace

    base = _base_record()
    values = st.floats(allow_nan=True, allow_infinity=True)
    records = [
        replace(
            base,
            facts=replace(base.facts, step=step, samples=step * 64, loss=data.draw(values)),
            decision=SetBatchSize(data.draw(st.integers(1, 10**9)), reason="r" * step * 9),
            outcome=Applied(step=step),
        )
        for step in range(1, steps + 1)
    ]
    assert all(len(line) <= width for line in _drawn(_picture(records), width).splitlines())


def _base_record() -> Record:
    from workbench import Signals, StepFacts

    facts = StepFacts(
        step=1,
        epoch=0,
        samples=64,
        seconds=0.1,
        workers=1,
        batch_size_global=64,
        batch_size_target=64,
    )
    return Record(facts=facts, signals=Signals())


def test_the_board_may_be_written_and_looked_at_by_many_threads(make_record) -> None:  # type: ignore[no-untyped-def]
    board = Board()
    faults: list[BaseException] = []

    def write() -> None:
        try:
            for step in range(1, 2000):
                board.training(make_record(step), 128_000, 1)
        except BaseException as error:
            faults.append(error)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        draw(board.look())
    assert faults == []


def test_a_bracket_in_a_name_or_note_is_not_taken_for_markup() -> None:
    board = Board(stages=())
    board.pipeline_started("x", "id", "[bold]run[/]-1")
    assert "[bold]run[/]-1" in _drawn(board.look(), 80)


def test_on_a_terminal_the_view_is_live_and_leaves_only_notes_behind() -> None:
    seen = _on_a_terminal([sys.executable, str(PROGRAM)])
    assert "\x1b[" in seen
    assert "digits-3" in seen
    assert re.search(r"noise scale", seen)
    assert "the server is down" in seen
    assert seen.rstrip().endswith("the end")


def test_on_a_dumb_terminal_there_are_plain_lines() -> None:
    seen = _on_a_terminal([sys.executable, str(PROGRAM)], TERM="dumb")
    assert "\x1b[" not in seen
    assert "digits: run digits-3 (3f2a)" in seen


def _on_a_terminal(command: list[str], **environment: str) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color"} | environment,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            some = os.read(ours, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not some:
            break
        seen += some
    os.close(ours)
    assert process.wait(30) == 0
    return seen.decode()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_long_summary_is_cut_short_and_leaves_names_and_times(width: int) -> None:
    board = Board(clock=FixedClock())
    board.stage_ended(
        StageResult(name="contract", status="done", seconds=12.3, summary="a long word " * 30)
    )
    drawn = _drawn(board.look(), width)

    line = next(line for line in drawn.splitlines() if "contract" in line)
    assert "12.3 s" in line
    assert "a long" in line
    assert "…" in line
    assert "deploy" in drawn
