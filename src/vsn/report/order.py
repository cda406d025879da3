"""Show temporal reliance: what is left of a run's accuracy when its frames come in another order."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vsn.report.render import UNTESTED, Lacks, render
from vsn.report.runs import ReportRun, read_scores
from vsn.scores.reliance import ORDERS, Reliance, temporal_reliance

_MEANING = {
    "forward": "as filmed",
    "reversed": "last frame first",
    "shuffled": "random order",
    "still": "one frame repeated",
}


def order_section(runs: Sequence[ReportRun]) -> Markup | Lacks:
    """Top-1 of all runs by order, then a sentence and a table by class for each run."""
    tested = [(index, run) for index, run in enumerate(runs) if run.results]
    reliances = [
        (index, run.name, temporal_reliance({order: read_scores(run, order) for order in run.results}))
        for index, run in tested
        if len(run.results) > 1
    ]
    # Each run may lack other orders, so each has its own command.
    commands = [
        run.eval_command("--order", *absent, weights=run.weights)
        for _, run in tested
        if (absent := [order for order in ORDERS if order not in run.results])
    ]
    if not tested:
        return UNTESTED
    if not reliances:
        return Lacks("Frames were tested in one order only.", commands)
    # With several labels per video, chance is not one over the number of classes.
    has_chance = not any(run.is_multi_label for _, run in tested)
    return render(
        "order.html",
        reliances=reliances,
        chance=reliances[0][2].chance if has_chance else None,
        orders=[order for order in ORDERS if any(order in one.orders for _, _, one in reliances)],
        meaning=_MEANING,
        commands=commands,
        by_class=[(name, one, _losses(one)) for _, name, one in reliances],
    )


def _losses(reliance: Reliance) -> list[tuple[str, float]]:
    """Return (class, top-1 lost in the judging order), largest loss first."""
    losses = [
        (name, by_order["forward"].top1 - by_order[reliance.judged_by].top1)
        for name, by_order in reliance.classes.items()
    ]
    return sorted(losses, key=lambda pair: (-pair[1], pair[0]))
