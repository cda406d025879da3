"""Compare the accuracies of runs on each group of videos, such as each person."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vsn.report.render import render
from vsn.report.runs import ReportRun
from vsn.scores.metrics import accuracy_by_group

GROUPS_SHOWN = 40
"""Groups that are listed, those with the lowest accuracy of the first run."""


def with_groups(runs: Sequence[ReportRun]) -> list[ReportRun]:
    """Return the runs that were tested on videos with stated groups."""
    return [run for run in runs if run.scores is not None and run.scores.stated_groups is not None]


def groups_section(runs: Sequence[ReportRun]) -> Markup:
    """Return a table of top-1 by group, hardest first, one column per run."""
    by_run = [accuracy_by_group(run.scores) for run in runs if run.scores is not None]
    top1 = [{row.group: row.top1 for row in rows} for rows in by_run]
    rows = [(row.group, row.num_videos, [of_run.get(row.group) for of_run in top1]) for row in by_run[0]]
    return render("groups.html", runs=runs, rows=rows[:GROUPS_SHOWN], num_groups=len(rows))
