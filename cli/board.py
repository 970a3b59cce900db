"""What a running pipeline looks like now: the state that every live view draws."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

from workbench.lifecycle.ports import StageResult
from workbench.record import Record
from workbench.signal import Signal, undetermined

from .words import Told, tell

STAGES = ("prepare", "contract", "train", "evaluate", "audit", "register", "deploy")
RECENT = 64  # steps over which the pace for the time left is measured
KEPT = 4096  # points of a history; enough for any width of terminal
_SMOOTHING = 0.1  # weight of the newest step in samples/s when no monitor computes it


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLine:
    """One stage: ``waiting``, ``running``, or how it ended."""

    name: str
    status: str = "waiting"
    started: float = 0.0
    seconds: float = 0.0
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Training now.

    Attributes:
        record: The last step.
        samples_total: All samples that the job will show.
        epochs: Passes in all.
        samples_per_second: Measured by a monitor, or smoothed over steps.
        recent_per_second: Samples by the clock over the last steps, pauses included; 0 at first.
        noise: The noise scale, undetermined when nothing computes it.
        last_change: The last decision other than ``Keep``.
    """

    record: Record
    samples_total: int
    epochs: int
    samples_per_second: float
    recent_per_second: float
    noise: Signal
    last_change: Told | None = None

    @property
    def done(self) -> float:
        """Part of the samples shown, from 0 to 1."""
        if self.samples_total <= 0:
            return 0.0
        return min(1.0, self.record.facts.samples / self.samples_total)

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end at the recent pace, ``None`` while it is not known."""
        if self.samples_total <= 0 or not self.recent_per_second > 0:
            return None
        return max(0, self.samples_total - self.record.facts.samples) / self.recent_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One moment of the board, safe to draw while the job goes on."""

    name: str = ""
    run_name: str = ""
    seconds: float = 0.0
    stages: tuple[StageLine, ...] = ()
    training: Training | None = None
    losses: tuple[float, ...] = ()
    noises: tuple[float, ...] = ()
    batch_sizes: tuple[float, ...] = ()


@dataclass
class Board:
    """Collect the events of a pipeline; any thread may write, any thread may look.

    Example:
        >>> board = Board(stages=("train",), clock=lambda: 0.0)
        >>> board.stage_started("train")
        >>> board.look().stages[0].status
        'running'
    """

    stages: Sequence[str] = STAGES
    clock: Callable[[], float] = monotonic
    _lines: dict[str, StageLine] = field(init=False)
    _training: Training | None = field(default=None, init=False)
    _name: tuple[str, str] = field(default=("", ""), init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _recent: deque[tuple[float, int]] = field(
        default_factory=lambda: deque(maxlen=RECENT), init=False
    )
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT), init=False)
    _noises: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT), init=False)
    _batches: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT), init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()
        self._lines = {name: StageLine(name=name) for name in self.stages}

    def pipeline_started(self, name: str, run_id: str, run_name: str) -> None:  # noqa: ARG002
        """Hear that the parent run exists."""
        with self._lock:
            self._name = (name, run_name)

    def stage_started(self, name: str) -> None:
        """Hear that a stage begins."""
        with self._lock:
            self._lines[name] = StageLine(name=name, status="running", started=self.clock())

    def stage_ended(self, result: StageResult) -> None:
        """Hear how a stage ended."""
        with self._lock:
            self._lines[result.name] = StageLine(
                name=result.name,
                status=result.status,
                seconds=result.seconds,
                summary=result.summary,
            )

    def training(self, record: Record, samples_total: int, epochs: int) -> None:
        """Hear of a training step."""
        with self._lock:
            before = self._training
            noise = _signal(record, "noise_scale")
            if record.facts.loss is not None:
                self._losses.append(record.facts.loss)
            if noise.determined:
                self._noises.append(noise.value)
            self._recent.append((record.unix_time, record.facts.samples))
            self._batches.append(float(record.facts.batch_size_target))
            told = tell(record) if record.decision.kind != "keep" else None
            self._training = Training(
                record=record,
                samples_total=samples_total,
                epochs=epochs,
                samples_per_second=_pace(record, before),
                recent_per_second=_recent_pace(self._recent),
                noise=noise if noise.determined or before is None else _last(before.noise, noise),
                last_change=told or (before.last_change if before else None),
            )

    def look(self) -> Picture:
        """Return the state of this moment."""
        with self._lock:
            now = self.clock()
            name, run_name = self._name
            return Picture(
                name=name,
                run_name=run_name,
                seconds=now - self._started,
                stages=tuple(_timed(line, now) for line in self._lines.values()),
                training=self._training,
                losses=tuple(self._losses),
                noises=tuple(self._noises),
                batch_sizes=tuple(self._batches),
            )


def _timed(line: StageLine, now: float) -> StageLine:
    return replace(line, seconds=now - line.started) if line.status == "running" else line


def _signal(record: Record, name: str) -> Signal:
    if name in record.signals:
        return record.signals[name]
    return undetermined(name, reason="no monitor computes it")


def _last(known: Signal, unknown: Signal) -> Signal:
    # A step that was not split keeps the interval of the last one that was.
    return known if known.determined else unknown


def _recent_pace(recent: deque[tuple[float, int]]) -> float:
    (began, before), (now, samples) = recent[0], recent[-1]
    return (samples - before) / (now - began) if now > began and samples > before else 0.0


def _pace(record: Record, before: Training | None) -> float:
    measured = _signal(record, "throughput")
    if measured.determined:
        return measured.value
    if record.facts.seconds <= 0:
        return before.samples_per_second if before else 0.0
    now = record.facts.batch_size_global / record.facts.seconds
    return (
        now if before is None else before.samples_per_second * (1 - _SMOOTHING) + now * _SMOOTHING
    )
