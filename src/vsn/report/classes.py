"""Show the accuracy of each class, or its average precision, with counts and intervals: one bar per run."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vsn.report.render import UNTESTED, Lacks, render
from vsn.report.runs import ReportRun
from vsn.runs.run import is_number
from vsn.scores.metrics import per_class_intervals


def classes_section(runs: Sequence[ReportRun]) -> Markup | Lacks:
    """Bars by class, lowest first for the best run; the page's script can sort them by other runs."""
    tested = [(index, run) for index, run in enumerate(runs) if run.scores is not None]
    if not tested:
        return UNTESTED
    # The best run decides the order of the classes, and every run uses the same one.
    _, best = max(tested, key=lambda pair: pair[1].top1)
    assert best.scores is not None
    counts = [int(best.scores.members(index).sum()) for index in range(len(best.classes))]
    # Used for the order, the bars and the script's sorting. A class without a video gets -1, so that it sorts last.
    shares = {
        run.name: [value if is_number(value := run.results["forward"].per_class.get(c)) else -1.0 for c in run.classes]
        for _, run in tested
    }
    # The worst first: those are to be looked at. Classes without a video come last.
    own = shares[best.name]
    mean = [sum(of_run[c] for of_run in shares.values()) for c in range(len(own))]
    ranked = sorted(range(len(best.classes)), key=lambda c: (own[c] < 0, own[c], mean[c], best.classes[c]))

    # An average precision, of multi-label data, is no share of videos and has no interval.
    intervals = {
        run.name: per_class_intervals(run.scores) for _, run in tested if run.scores and not best.is_multi_label
    }
    rows = []
    for c in ranked:
        name = best.classes[c]
        bars = [(run.name, shares[run.name][c], index, intervals.get(run.name, {}).get(name)) for index, run in tested]
        rows.append((c, name, counts[c], bars))
    best_place = next(place for place, (_, run) in enumerate(tested) if run is best)
    return render("classes.html", tested=tested, best=best, best_place=best_place, rows=rows)
