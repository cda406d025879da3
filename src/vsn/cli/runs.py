"""`vsn runs`: the run folders there are, and how far each has come."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from vsn.runs.listing import RunSummary

COLUMNS = ("run", "model", "data", "T", "epochs", "val", "best", "test", "written", "state")
WIDE_ONLY = ("data", "T", "written")
"""Columns that a terminal of fewer than 120 columns has no room for."""


def runs(
    folders: Annotated[list[Path], tyro.conf.Positional] = [Path("runs")],  # noqa: B006  (only read)
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """List run folders: how far each has come, its validation and test top-1, whether it can be resumed.

    Args:
        folders: run folders, or folders of them, two levels down; default runs.
        json_output: print JSON.
    """
    from vsn.runs.listing import list_runs

    found = list_runs(folders)
    if json_output:
        rows = [{**vars(run), "evaluations": [result.to_json() for result in run.evaluations]} for run in found]
        print(json.dumps(rows, indent=2, default=str))
    elif not found:
        print(f"No runs in {', '.join(map(str, folders))}: `vsn train` has written none there.")
    else:
        _print_table(found)


def _print_table(found: list[RunSummary]) -> None:
    console = Console()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    shown = [name for name in COLUMNS if console.width >= 120 or name not in WIDE_ONLY]
    for name in shown:
        right = name in ("T", "epochs", "val", "best", "test")
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for run in found:
        cells = dict(zip(COLUMNS, _cells(run), strict=True))
        table.add_row(*(cells[name] for name in shown))
    console.print(table, markup=False)
    for run in found:
        if run.reason:
            console.print(f"{run.path}: {run.reason}", highlight=False, soft_wrap=True, markup=False)


def _cells(run: RunSummary) -> list[str]:
    test = run.evaluations[0] if run.evaluations else None
    return [
        str(run.path),
        run.model,
        run.data,
        str(run.num_frames or ""),
        f"{run.epochs_done}/{run.epochs or '?'}",
        _percent(run.last_val_top1),
        f"{_percent(run.best_val_top1)} @{run.best_epoch}" if run.best_epoch else "",
        f"{_percent(test.top1)} {_protocol(test.split, test.protocol, test.order)}" if test else "",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(run.written)),
        run.state,
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _protocol(split: str, protocol: str, order: str) -> str:
    """The protocol, with what is not plain about it: another split than test, another order than forward."""
    return " ".join([protocol, *([split] if split != "test" else []), *([order] if order != "forward" else [])])
