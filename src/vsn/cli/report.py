"""`vsn report`: one HTML page about runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from vsn.cli.options import Root


def report(
    runs: Annotated[list[Path], tyro.conf.Positional],
    out: Path = Path("report.html"),
    title: str = "",
    split: str = "",
    root: Root = None,
    videos: int = 4,
    stage: str = "auto",
    device: str = "auto",
    watch: bool = False,
) -> None:
    """Write one self-contained HTML page about one or several runs, finished or not.

    The page names what is missing, with the command that makes it.

    Args:
        runs: run folders.
        out: the page to write; it replaces a report that has one of the runs, and no other file.
        title: its heading; default the names of the runs.
        split: the split whose results are shown; default the one that most runs were tested on.
        videos: how many of the best and of the worst videos to show; 0 opens no video and no network.
        stage: Grad-CAM heat maps of the videos show the features of this stage, res2 to res5; auto: the deepest whose
            maps have enough cells.
        device: auto, cpu or cuda, for the heat maps.
        watch: write the page every ten seconds while a run is in training, with its curves and the time left; an open
            browser shows it. Videos are opened when the training has ended.
    """
    if videos < 0:
        raise ValueError(f"--videos is {videos}; it must be 0 or more.")
    from vsn.report.page import check_output

    check_output(out, runs)
    command = ["vsn", *sys.argv[1:]]
    if watch:
        from vsn.report.watch import WATCH_SECONDS, watch_report

        text = f"{out} is written every {WATCH_SECONDS} seconds until the training ends; open it in a browser."
        print(text, file=sys.stderr)
        watch_report(runs, out, title=title, split=split or None, command=command)
    if videos == 0:  # without heat maps the report needs no torch
        from vsn.report import write_report

        page = write_report(runs, out, title=title, split=split or None, command=command)
    else:  # opens the best and worst videos, and the networks for their heat maps
        from vsn.report.illustrate import illustrated_report

        page = illustrated_report(
            runs,
            out,
            title=title,
            split=split or None,
            root=root,
            num_videos=videos,
            stage=stage,
            device=device,
            command=command,
        )
    print(page)
