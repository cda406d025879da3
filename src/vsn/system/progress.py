"""The progress bar of long work: how far, how fast, how long still."""

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
    """Items a second since the start of the task."""

    def __init__(self, unit: str) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        """The rate, once there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self.unit}/s" if speed else "", style="progress.data.speed")


def progress_bar(unit: str, *, console: Console | None = None, disable: bool = False) -> Progress:
    """A `rich` progress bar for a count of ``unit``; its ``note`` field shows free text.

    Add tasks with ``bar.add_task("decoding", total=n, note="")``. Where the output is no terminal
    nothing is drawn, so that logs stay readable.
    """
    console = console or Console(stderr=True)
    roomy = console.width >= 120  # else the bar makes room for the note
    return Progress(
        TextColumn("{task.description}"),
        *([BarColumn(), MofNCompleteColumn()] if roomy else [MofNCompleteColumn()]),
        RateColumn(unit),
        *([TimeElapsedColumn()] if roomy else []),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=console,
        transient=True,
        disable=disable or not console.is_terminal,
    )
