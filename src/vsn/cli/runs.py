"""`vsn runs`: list run folders and their progress."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from vsn.cli.options import Json
from vsn.system.files import to_json
from vsn.system.numbers import percent
from vsn.system.terminal import make_table

if TYPE_CHECKING:
    from vsn.runs.listing import RunSummary

LEFT_OUT = ("data", "written", "T", "model", "val", "epochs", "best")
"""Columns that a narrow terminal has no place for, the first to go first: names of runs must stay whole."""
TEXT = ("model", "data", "written", "state")


def runs(
    folders: Annotated[list[Path], tyro.conf.Positional] = [Path("runs")],  # noqa: B006  (only read)
    json_output: Json = False,
) -> None:
    """List run folders: progress, validation and test top-1, whether they can be resumed.

    Args:
        folders: run folders, or folders of them, two levels down; default runs.
    """
    from vsn.runs.listing import list_runs

    summaries = list_runs(folders)
    if json_output:
        rows = [
            {
                **vars(run),
                "path": str(run.path),
                "evaluations": [{**result.to_json(), "is_stale": result.is_stale} for result in run.evaluations],
            }
            for run in summaries
        ]
        print(to_json(rows, indent=2))
    elif not summaries:
        print(f"No runs in {', '.join(map(str, folders))}; `vsn train` writes them.")
    else:
        console = Console()
        # Rich would squeeze all columns; leaving some out keeps the others readable.
        cells = [_cells(run) for run in summaries]
        columns = _fitting_columns(cells, console.width)
        if _table_width(cells, columns) > console.width:
            for number, row in enumerate(cells, 1):
                print(f"{number}: {row['run']}")
                row["run"] = str(number)
            columns = _fitting_columns(cells, console.width)
        table = make_table(columns, left=TEXT, ruled=False)
        for row in cells:
            table.add_row(*(row[name] for name in columns))
        console.print(table, markup=False)
        # Reasons are sentences, too long for a cell.
        for run in summaries:
            if run.reason:
                print(f"{run.path}: {run.reason}")


def _fitting_columns(rows: list[dict[str, str]], width: int) -> list[str]:
    """Return the columns that fit into a width without breaking a cell; if none do, those that should not be left out."""
    columns = list(rows[0])
    for name in LEFT_OUT:
        if _table_width(rows, columns) <= width:
            break
        columns.remove(name)
    return columns


def _table_width(rows: list[dict[str, str]], columns: list[str]) -> int:
    # One space between columns.
    return sum(max(len(column), *(len(row[column]) for row in rows)) for column in columns) + len(columns) - 1


def _cells(run: RunSummary) -> dict[str, str]:
    """Map the columns to the cells of a run."""
    test = ""
    if run.evaluations:
        main = run.evaluations[0]
        # Split and order are left out where they are the usual ones.
        # A split that chose the weights is not what a reader takes "test" for.
        split = "validation" if main.is_of_validation else main.split
        details = [main.protocol, *({split} - {"test"}), *({main.order} - {"forward"})]
        details += [] if main.is_own else [main.variant.lstrip("-")]
        # The run was trained on since.
        details += ["(outdated)"] if main.is_stale else []
        test = f"{percent(main.top1)} {' '.join(details)}"
    return {
        "run": str(run.path),
        "model": run.model,
        "data": run.data,
        "T": str(run.num_frames or ""),
        # A damaged run may not tell its number of epochs.
        "epochs": f"{run.epochs_done}/{run.epochs or '?'}",
        "val": percent(run.last_val_top1),
        "best": f"{percent(run.best_val_top1)} @{run.best_epoch}" if run.best_epoch else "",
        "test": test,
        "written": time.strftime("%Y-%m-%d %H:%M", time.localtime(run.written)),
        "state": run.state,
    }
