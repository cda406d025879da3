"""Draw learning curves: loss, accuracy, learning rate, and the share of time spent waiting for data."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vsn.report.charts import Series, line_chart
from vsn.report.render import Lacks, render
from vsn.report.runs import ReportRun
from vsn.runs.run import is_number

# Title, whether values are shares of 1, and (phase, key of metrics.jsonl) of each line.
_CHARTS = (
    ("Loss", False, (("train", "train_loss"), ("validation", "val_loss"))),
    ("Top-1", True, (("train", "train_top1"), ("validation", "val_top1"))),
    ("mAP", True, (("validation", "val_map"),)),
    ("Learning rate", False, (("", "lr"),)),
    ("Waiting for data, share of the time", True, (("", "data_wait"),)),
)


def curves_section(runs: Sequence[ReportRun]) -> Markup | Lacks:
    """Charts side by side under one legend, whose boxes show and hide a run."""
    untrained = [(run.name, ["vsn", "train", "--resume", str(run.path)]) for run in runs if not run.metrics]
    if len(untrained) == len(runs):
        return Lacks("No epoch is finished yet.", [command for _, command in untrained])
    charts = []
    for label, is_share, lines in _CHARTS:
        series = [
            # A diverged epoch, whose loss is NaN, has no place on the axis.
            Series(run.name, index, phase, [(m["epoch"], m[key]) for m in run.metrics if is_number(m.get(key))])
            for index, run in enumerate(runs)
            for phase, key in lines
        ]
        # Loss and top-1 are always expected; the others only exist for some runs.
        if label in ("Loss", "Top-1") or any(one.points for one in series):
            charts.append(line_chart(series, label=label, is_share=is_share))
    return render(
        "curves.html",
        names=[run.name for run in runs],
        charts=charts,
        untrained=untrained,
    )
