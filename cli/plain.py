"""Plain lines for where there is no terminal: a log of stages, decisions and training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, TextIO

from workbench.lifecycle.ports import StageResult
from workbench.record import Record

from .board import STAGES, Board, Training
from .words import Told, duration, interval, number, tell

TRAINING_LINE_SECONDS = 5.0


class PlainLines:
    """A watcher that writes one line for each stage and decision, and one of training now and then.

    Args:
        out: Where lines go.
        stages: Names in order.
        every_seconds: Between two lines of training.
        clock: Seconds.

    Example:
        >>> import sys
        >>> lines = PlainLines(sys.stdout, clock=lambda: 0.0)
        >>> lines.stage_ended(StageResult(name="prepare", status="done", seconds=0.4,
        ...                               summary="1,797 rows"))
        prepare    done       0.4 s  1,797 rows
    """

    def __init__(
        self,
        out: TextIO,
        *,
        stages: Sequence[str] = STAGES,
        every_seconds: float = TRAINING_LINE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._out = out
        self._board = Board(stages=stages, clock=clock)
        self._every = every_seconds
        self._clock = clock
        self._next = clock()
        self._told: Record | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def pipeline_started(self, name: str, run_id: str, run_name: str) -> None:
        """Write what runs, and where it is recorded."""
        self._say(f"{name}: run {run_name} ({run_id})")

    def stage_started(self, name: str) -> None:
        """Start the stage's clock; only the long one is announced."""
        self._board.stage_started(name)
        if name == "train":
            self._next = self._clock()
            self._say(f"{name:<10} started")

    def stage_ended(self, result: StageResult) -> None:
        """Write how the stage ended."""
        if result.name == "train":
            self._say_training(self._board.look().training)
        self._board.stage_ended(result)
        self._say(stage_line(result))

    def training(self, record: Record, samples_total: int, epochs: int) -> None:
        """Write every decision, and a line of training when it is time."""
        self._board.training(record, samples_total, epochs)
        if record.decision.kind != "keep":
            self._say(decision_line(tell(record)))
        for fault in record.faults:
            self._say(f"note       {fault.part} raised and is off: {fault.error}")
        if self._clock() >= self._next:
            self._next = self._clock() + self._every
            self._say_training(self._board.look().training)

    def note(self, message: str) -> None:
        """Write it."""
        self._say(f"note       {message}")

    def _say_training(self, training: Training | None) -> None:
        if training is not None and training.record is not self._told:
            self._told = training.record
            self._say(training_line(training))

    def _say(self, line: str) -> None:
        with self._lock:
            print(line, file=self._out, flush=True)


def stage_line(result: StageResult) -> str:
    """Return the line of a stage that ended.

    Example:
        >>> stage_line(StageResult(name="audit", status="skipped", summary="not configured"))
        'audit      skipped    0.0 s  not configured'
    """
    taken = f"{duration(result.seconds):>7}"
    return f"{result.name:<10} {result.status:<7} {taken}  {result.summary}".rstrip()


def decision_line(told: Told) -> str:
    """Return the line of a decision: step, change, who asked and why, what became of it."""
    why = f": {told.reason}" if told.reason else ""
    answer = f" [{told.answer}]" if told.answer else ""
    return f"decision   step {told.step}: {told.change} ({told.policy}{why}){answer}"


def training_line(training: Training) -> str:
    """Return the line of training now."""
    facts = training.record.facts
    parts = [
        f"epoch {facts.epoch + 1}/{training.epochs}"
        if training.epochs
        else f"epoch {facts.epoch + 1}",
        f"step {facts.step:,}",
        f"{number(round(training.samples_per_second))} samples/s",
        f"loss {number(facts.loss)}" if facts.loss is not None else "",
        f"noise scale {interval(training.noise)}" if training.noise.determined else "",
        f"batch {facts.batch_size_target:,}",
        f"{facts.workers} worker{'s' if facts.workers > 1 else ''}",
    ]
    left = training.seconds_left
    if left is not None:
        parts.append(f"{training.done:.0%}" + (f", {duration(left)} left" if left else ""))
    return f"{'train':<10} " + "  ".join(part for part in parts if part)
