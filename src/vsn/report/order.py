"""Temporal reliance: what is left of a run's accuracy when its frames come in another order."""

from __future__ import annotations

from collections.abc import Sequence

from vsn.report import parts
from vsn.report.parts import color, percent, percent_range, text
from vsn.report.runs import ORDERS, Run, read_scores
from vsn.scores.reliance import OrderAccuracy, Reliance, temporal_reliance

MEANING = {
    "forward": "as filmed",
    "reversed": "last frame first",
    "shuffled": "random order",
    "still": "one frame repeated",
}


def order_section(runs: Sequence[Run]) -> str:
    """Top-1 by order of all runs, then a sentence and a table by class of each."""
    tested = [run for run in runs if run.evals]
    if not tested:
        return parts.untested()
    found = {
        run.name: temporal_reliance({order: read_scores(run, order) for order in run.evals})
        for run in tested
        if len(run.evals) > 1
    }
    commands = [
        run.eval_command("--order", *absent, *(["--weights", "best"] if run.weights == "best" else []))
        for run in tested
        if (absent := [order for order in ORDERS if order not in run.evals])
    ]
    note = parts.lacking("Orders that were not tested:", commands) if commands else ""
    if not found:
        return note
    several = any(run.scores is not None and run.scores.multi_label for run in tested)
    # One of C classes is no guess at several labels, nor is there a share of what lies above it.
    chance = None if several else next(iter(found.values())).chance
    orders = [order for order in ORDERS if any(order in one.orders for one in found.values())]
    indices = {run.name: index for index, run in enumerate(runs)}
    by_class = "".join(_by_class(name, one, is_alone=len(found) == 1) for name, one in found.items())
    return f"{_overall(found, orders, indices, chance)}{'' if several else _sentences(found)}{by_class}{note}"


def _overall(found: dict[str, Reliance], orders: Sequence[str], indices: dict[str, int], chance: float | None) -> str:
    head = "".join(f'<th scope="col">{text(order)}<small>{text(MEANING[order])}</small></th>' for order in orders)
    rows = []
    for name, one in found.items():
        cells = "".join(_cell(name, order, one.orders.get(order), indices[name]) for order in orders)
        rows.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>')
    blind = (
        " A video counts when the first choice is one of its labels."
        if chance is None
        else f" The mark in each bar is blind guessing, {percent(chance)}."
    )
    style = "" if chance is None else f' style="--chance:{chance:.4f}"'
    table = (
        f'<table class="data orders"{style}><thead><tr><th scope="col">Run</th>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return (
        "<p>Top-1 when the same frames are shown in another order. A model that ignores order scores alike "
        "forward, reversed and shuffled; what a model loses is what it read from order."
        f"{blind}</p>{parts.scroll_box(table, 'Accuracy by frame order')}"
    )


def _cell(name: str, order: str, values: OrderAccuracy | None, index: int) -> str:
    if values is None:
        return f'<td><span class="note">{parts.MISSING}</span></td>'
    low, high = values.interval
    change = "" if order == "forward" else f"<small>{text(parts.points(-values.loss))}</small>"
    return (
        f'<td><span class="bar" style="--v:{values.top1:.4f};{color(index)}">'
        f'<span class="sr">{text(f"{name}, {order}")}: </span><span class="track"><i></i>'
        f'<u style="--l:{low:.3f};--h:{high:.3f}"></u></span><b>{percent(values.top1)}</b></span>'
        f"<small>{percent_range((low, high))}</small>{change}</td>"
    )


def _sentences(found: dict[str, Reliance]) -> str:
    items = "".join(f"<li><b>{text(name)}</b> {text(one.describe())}</li>" for name, one in found.items())
    return f'<ul class="said-of">{items}</ul>'


def _by_class(name: str, one: Reliance, *, is_alone: bool) -> str:
    """Classes by what they lose in the judging order, most first."""
    orders, judge = list(one.orders), one.judged_by

    def loss(key: str) -> float:
        values = one.classes[key]
        return float(values["forward"].top1 - values[judge].top1)

    head = "".join(f'<th scope="col">{text(order)}</th>' for order in orders)
    rows = []
    for key in sorted(one.classes, key=lambda key: (-loss(key), key)):
        cells = "".join(
            f"<td>{percent(values.top1)}<small>{percent_range(values.interval)}</small></td>"
            for values in one.classes[key].values()
        )
        rows.append(f'<tr><th scope="row">{text(key)}</th>{cells}<td>{text(parts.points(-loss(key)))}</td></tr>')
    table = (
        f'<table class="data dense"><thead><tr><th scope="col">Class</th>{head}'
        f'<th scope="col">{text(judge)} \u2212 forward</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    box = parts.scroll_box(table, f"Accuracy of {name} by class and order", tall=len(rows) > 12)
    return (
        f"<details{' open' if is_alone and len(rows) <= 30 else ''}><summary><h3>{text(name)} by class</h3>"
        f"</summary>{box}</details>"
    )
