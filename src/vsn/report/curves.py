"""Draw learning curves: loss, accuracy, learning rate, and the share of time spent waiting for data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from vsn.report.charts import Series, line_chart
from vsn.report.render import render
from vsn.report.runs import ReportRun

# Title, whether values are shares of 1, and (phase, key of metrics.jsonl) of each line.
_CHARTS = (
    ("Loss", False, (("train", "train_loss"), ("validation", "val_loss"))),
    ("Top-1", True, (("train", "train_top1"), ("validation", "val_top1"))),
    ("mAP", True, (("validation", "val_map"),)),
    ("Learning rate", False, (("", "lr"),)),
    ("Waiting for data, share of the time", True, (("", "data_wait"),)),
)


def curves_section(runs: Sequence[ReportRun]) -> Markup:
    """Charts side by side under one legend, whose boxes show and hide a run."""
    charts = []
    for label, is_share, lines in _CHARTS:
        series = [
            Series(run.name, index, phase, _points(run, key)) for index, run in enumerate(runs) for phase, key in lines
        ]
        # Loss and top-1 are always expected; the others only exist for some runs.
        if label in ("Loss", "Top-1") or any(one.points for one in series):
            charts.append(line_chart(series, label=label, is_share=is_share))
    return render(
        "curves.html",
        names=[run.name for run in runs],
        charts=charts if any(run.metrics for run in runs) else [],
        untrained=[(run.name, ["vsn", "train", "--resume", str(run.path)]) for run in runs if not run.metrics],
    )


def _points(run: ReportRun, key: str) -> list[tuple[float, float]]:
    pairs = [(float(line["epoch"]), float(line[key])) for line in run.metrics if line.get(key) is not None]
    return [(x, y) for x, y in pairs if math.isfinite(y)]  # a diverged epoch has no place on the axis
