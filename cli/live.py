"""The live view on a terminal: stages, and training as it watches itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from workbench.lifecycle.ports import StageResult
from workbench.record import Record

from .board import STAGES, Board, Picture, StageLine, Training
from .words import duration, interval, number, sparkline

FRAMES_A_SECOND = 8
STYLES = {
    "waiting": ("·", "dim"),
    "done": ("✓", "green"),
    "reused": ("↺", "cyan"),
    "skipped": ("–", "dim"),
    "failed": ("✗", "bold red"),
    "refused": ("⊘", "bold yellow"),
    "interrupted": ("■", "yellow"),
}
_GRAPH_WIDTH = 24


class LiveView:
    """A watcher that keeps one panel up to date on a terminal.

    Args:
        console: Where it is drawn.
        stages: Names in order.
        transient: Whether the panel goes away at the end, where a table follows.
        clock: Seconds.

    Example:
        >>> from rich.console import Console
        >>> view = LiveView(Console(quiet=True))
        >>> view.stage_started("prepare")
        >>> view.board.look().stages[0].status
        'running'
    """

    def __init__(
        self,
        console: Console,
        *,
        stages: Sequence[str] = STAGES,
        transient: bool = True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.board = Board(stages=stages, clock=clock)
        self._spinner = Spinner("dots", style="bold cyan")
        self._console = console
        self._live = Live(
            console=console,
            refresh_per_second=FRAMES_A_SECOND,
            transient=transient,
            redirect_stdout=sys.stdout.isatty(),
            get_renderable=self._draw,
        )

    def __enter__(self) -> LiveView:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: Any) -> None:
        self._live.stop()

    def pipeline_started(self, name: str, run_id: str, run_name: str) -> None:
        """Show what runs."""
        self.board.pipeline_started(name, run_id, run_name)

    def stage_started(self, name: str) -> None:
        """Show the stage as running."""
        self.board.stage_started(name)

    def stage_ended(self, result: StageResult) -> None:
        """Show how the stage ended."""
        self.board.stage_ended(result)

    def training(self, record: Record, samples_total: int, epochs: int) -> None:
        """Show training at this step."""
        self.board.training(record, samples_total, epochs)
        for fault in record.faults:
            self.note(f"{fault.part} raised and is off: {fault.error}")

    def note(self, message: str) -> None:
        """Write it above the panel, where it stays."""
        self._console.print(f"[yellow]note[/] {escape(message)}", highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        return draw(self.board.look(), self._spinner)


def draw(picture: Picture, spinner: RenderableType = "…") -> RenderableType:
    """Return the panel of this moment.

    Example:
        >>> import sys
        >>> console = Console(width=60, file=sys.stdout, color_system=None)
        >>> console.print(draw(Picture(name="digits", stages=(StageLine(name="prepare"),))))
        ╭─ digits ──...
    """
    parts: list[RenderableType] = [_stages(picture.stages, spinner)]
    running = any(line.name == "train" and line.status == "running" for line in picture.stages)
    if picture.training is not None and running:
        parts.append(Padding(_training(picture.training, picture), (1, 0, 0, 2)))
    return Panel(
        Group(*parts),
        title=f"[bold]{escape(picture.run_name or picture.name or 'starting')}[/]",
        title_align="left",
        subtitle=duration(picture.seconds),
        subtitle_align="right",
        border_style="cyan",
        padding=(0, 1),
    )


def _stages(lines: Sequence[StageLine], spinner: RenderableType) -> Table:
    # Expanded, so that a long summary is cut short and not the names and times before it.
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=1)
    table.add_column(width=9)
    table.add_column(justify="right", width=8)
    table.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    for line in lines:
        running = line.status == "running"
        mark, style = STYLES.get(line.status, ("·", "bold"))
        took = "" if line.status in ("waiting", "skipped") else duration(line.seconds)
        told = line.summary if line.status in ("done", "waiting") else _status(line)
        table.add_row(
            spinner if running else Text(mark, style),
            Text(line.name, "bold" if running else style if style == "dim" else ""),
            Text(took, "dim"),
            Text(told, "dim" if line.status in ("done", "reused", "skipped") else style),
        )
    return table


def _status(line: StageLine) -> str:
    if line.status == "running":
        return ""
    return f"{line.status}: {line.summary}" if line.summary else line.status


def _training(training: Training, picture: Picture) -> RenderableType:
    facts = training.record.facts
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", min_width=11)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(width=_GRAPH_WIDTH, no_wrap=True)
    pace = f"{number(round(training.samples_per_second))}"
    workers = f"  {facts.workers} worker{'s' if facts.workers > 1 else ''}"
    loss = number(facts.loss) if facts.loss is not None else "not told"
    rows = (
        ("loss", Text(loss, "bold"), Text(sparkline(picture.losses, _GRAPH_WIDTH), "blue")),
        (
            "noise scale",
            _valued(interval(training.noise), known=training.noise.determined),
            Text(sparkline(picture.noises, _GRAPH_WIDTH), "magenta"),
        ),
        (
            "batch size",
            Text(f"{facts.batch_size_target:,}", "bold"),
            Text(sparkline(picture.batch_sizes, _GRAPH_WIDTH), "green"),
        ),
        ("samples/s", Text.assemble((pace, "bold"), (workers, "dim")), Text()),
    )
    for row in rows:
        table.add_row(*row)
    return Group(_progress(training), Text(), table, *_change(training))


def _valued(text: str, *, known: bool) -> Text:
    """Return a value in bold and its interval beside it."""
    value, bracket, rest = text.partition(" [")
    if not known:
        return Text(text, "dim")
    return Text.assemble((value, "bold"), (bracket + rest, "dim"))


def _progress(training: Training) -> Table:
    facts, left = training.record.facts, training.seconds_left
    epochs = f"/{training.epochs}" if training.epochs else ""
    line = Table.grid(padding=(0, 2, 0, 0), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(
        Text.assemble((f"epoch {facts.epoch + 1}{epochs}", "bold"), f"  step {facts.step:,}"),
        ProgressBar(total=1.0, completed=training.done) if training.samples_total else Text(),
        Text(f"{training.done:.0%}  {duration(left)} left" if left is not None else "", "dim"),
    )
    return line


def _change(training: Training) -> list[RenderableType]:
    told = training.last_change
    if told is None:
        return []
    answer = f" ({told.answer})" if told.outcome != "applied" else ""
    line = Text.assemble(
        (f"{told.change}", "bold green" if told.outcome == "applied" else "bold yellow"),
        f" after step {told.step:,}{answer}",
    )
    why = Text(f"because {told.reason}" if told.reason else "", "dim")
    return [Text(), line, why]
