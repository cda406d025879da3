"""Write the page of runs in training again until they are trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from vsn.report.page import write_page
from vsn.report.runs import read_runs
from vsn.report.training import is_training
from vsn.system.interrupt import stop_requests

WATCH_SECONDS = 10
"""From one page to the next."""


def watch_report(
    run_dirs: Sequence[Path],
    output: Path,
    *,
    title: str = "",
    split: str | None = None,
    command: Sequence[str] = (),
    every: float = WATCH_SECONDS,
) -> None:
    """Write the page of runs in training again and again, until none is trained any more; browsers load it again.

    Arguments and errors are those of `write_report`. Ctrl-C ends it with a page that no browser loads again.
    """
    with stop_requests() as stop:
        while True:
            runs = read_runs(run_dirs, split)
            goes_on = any(map(is_training, runs)) and not stop.requested
            if not goes_on:
                runs = read_runs(run_dirs, split)  # of the last epoch too, which may have ended in between
            refresh = max(1, round(every)) if goes_on else None
            write_page(runs, output, title=title, command=command, refresh_seconds=refresh)
            if not goes_on:
                stop.check()
                return
            until = time.monotonic() + every
            while time.monotonic() < until and not stop.requested:
                time.sleep(min(0.2, every))
