"""Show the progress of long work: count, rate and remaining time."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text


class RateColumn(ProgressColumn):
    """Items per second."""

    def __init__(self, unit: str) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Return the rate; empty before the first items."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self.unit}/s" if speed else "", style="progress.data.speed")


def progress_bar(unit: str, *, console: Console | None = None, disable: bool = False) -> Progress:
    """Create a `rich` progress bar that counts ``unit``; its ``note`` field shows free text.

    Add tasks with ``bar.add_task("decoding", total=n, note="")``. Nothing is drawn if the output is not a terminal, so
    that logs stay readable.
    """
    console = console or Console(stderr=True)
    is_wide = console.width >= 120  # else leave out the bar, so that the note fits
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        *([BarColumn(), MofNCompleteColumn()] if is_wide else [MofNCompleteColumn()]),
        RateColumn(unit),
        *([TimeElapsedColumn()] if is_wide else []),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        # It takes the place that is left, so that a long note is shortened and never the counts.
        TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        expand=True,
        console=console,
        transient=True,
        disable=disable or not console.is_terminal,
    )
