"""Show the accuracy of each class, or its average precision, with counts and intervals: one bar per run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vsn.report.render import render
from vsn.report.runs import ReportRun
from vsn.runs.run import is_number
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
    # Used for the order, the bars and the script's sorting. A class without a video gets -1, so that it sorts last.
    shares = {
        run.name: [value if is_number(value := run.results["forward"].per_class.get(c)) else -1.0 for c in run.classes]
        for _, run in tested
    }
    ranked = sorted(range(len(best.classes)), key=lambda c: (-shares[best.name][c], best.classes[c]))

    def interval(share: float, count: int) -> tuple[float, float] | None:
        # The Wilson interval is for a share of videos, which an average precision is not.
        if best.is_multi_label or share < 0 or not count:
            return None
        low, high = np.clip(wilson_interval(share, count), 0.0, 1.0).tolist()
        return low, high

    rows = []
    for c in ranked:
        bars = [(run.name, share := shares[run.name][c], index, interval(share, counts[c])) for index, run in tested]
        rows.append((best.classes[c], counts[c], bars))
    return render("classes.html", tested=tested, best=best, rows=rows)
