"""Show the accuracy of each class, or its average precision, with counts and intervals: one bar per run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vsn.report.render import render
from vsn.report.runs import ReportRun
from vsn.scores.intervals import wilson_interval


def classes_section(runs: Sequence[ReportRun]) -> Markup:
    """Bars by class, highest first for the best run; the page's script can sort them by other runs."""
    tested = [(index, run) for index, run in enumerate(runs) if run.scores is not None]
    if not tested:
        return render("classes.html", tested=[])
    # The best run decides the order of the classes, and every run uses the same one.
    _, best = max(tested, key=lambda pair: pair[1].top1)
    assert best.scores is not None
    counts = [int(best.scores.members(index).sum()) for index in range(len(best.classes))]
    # Computed once: each share is used for the order, the bar and the script's sorting.
    shares = {run.name: [_class_share(run, name) for name in run.classes] for _, run in tested}
    ranked = sorted(range(len(best.classes)), key=lambda c: (-shares[best.name][c], best.classes[c]))

    def interval(share: float, count: int) -> tuple[float, float] | None:
        # The Wilson interval is for a share of videos, which an average precision is not.
        if best.is_multi_label or share < 0 or not count:
            return None
        low, high = np.clip(wilson_interval(share, count), 0.0, 1.0).tolist()
        return low, high

    return render(
        "classes.html",
        tested=tested,
        best=best,
        rows=[
            (
                best.classes[c],
                counts[c],
                [
                    (run.name, shares[run.name][c], index, interval(shares[run.name][c], counts[c]))
                    for index, run in tested
                ],
            )
            for c in ranked
        ],
    )


def _class_share(run: ReportRun, name: str) -> float:
    """The accuracy or average precision of a class; -1 if it has no video, so that it sorts last."""
    value = run.results["forward"].per_class.get(name)
    return float(value) if value is not None and math.isfinite(value) else -1.0
