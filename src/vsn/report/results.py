"""Summarize a report: which run is best and how certain that is, a table of results, and how settings differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vsn.report.differences import Pair, difference_sentence
from vsn.report.render import MISSING, join_names, percent, percent_range, render
from vsn.report.runs import ReportError, ReportRun, read_json
from vsn.runs.run import RESUMABLE_SETTINGS, flat_settings, weights_file
from vsn.scores.intervals import share_interval
from vsn.scores.metrics import has_top5, top_k_hits
from vsn.scores.reliance import ORDERS
from vsn.system.files import to_json

Costs = Mapping[str, tuple[int, int]]
"""Run name -> parameters, multiply-adds of one view."""
_VIEWS = {"fcn": " (the whole frame)", "fcn-windows": " (windows of the whole frame)", "center": " (one center crop)"}
_COLUMNS = (
    "run", "top1", "top1_interval", "top5", "top5_interval", "mean_class", "mean_average_precision", "top1_best",
    "top1_best_interval", *(f"top1_{order}" for order in ORDERS[1:]), "params", "multiply_adds", "views",
)  # fmt: skip


def summary_sentence(runs: Sequence[ReportRun], pairs: Sequence[Pair]) -> str:
    """Return plain text: which run is best by top-1, by how much, how certain that is, and on how many videos.

    Args:
        runs: of the report.
        pairs: the best run against each other one, of `compare_with_best`.
    """
    tested = [run for run in runs if run.results]
    if not tested:
        return f"None of {len(runs)} runs is tested yet." if len(runs) > 1 else "The run is not tested yet."
    if tested[0].results["forward"].mean_average_precision is not None:
        return _multi_label_sentence(tested)
    best, *others = sorted(tested, key=lambda run: -run.top1)
    top1 = f"{percent(best.top1)} (95% interval {percent_range(best.interval)})"
    where = f"on {best.results['forward'].tested_videos}"
    if not others:
        return f"{best.name} has a top-1 accuracy of {top1} {where}."
    # On small splits two runs often have exactly the same number of hits.
    ties = [run.name for run in others if run.top1 == best.top1]
    if ties:
        behind = [pair for pair in pairs if pair.other not in ties]
        rest = f" {difference_sentence(behind, 'They are')}" if behind else ""
        return f"{join_names([best.name, *ties])} share the best top-1, {top1}, {where}.{rest}"
    return f"{best.name} is best by top-1 {where}: {top1}. {difference_sentence(pairs)}"


def _multi_label_sentence(tested: Sequence[ReportRun]) -> str:
    best, *others = sorted(tested, key=lambda run: -(run.results["forward"].mean or 0.0))
    behind = [f"{run.name} ({percent(run.results['forward'].mean)})" for run in others]
    result = best.results["forward"]
    return (
        f"{best.name} has {'the best' if others else 'a'} mean average precision on {result.tested_videos}: "
        f"{percent(result.mean)}{f', ahead of {join_names(behind)}' if behind else ''}; its first "
        f"choice is a label of {percent(best.top1)} of them."
    )


def results_section(runs: Sequence[ReportRun], *, table: Path | None, costs: Costs) -> Markup:
    """The table of results, or ``table``; what the runs are; and which tests are missing."""
    tested = [run for run in runs if run.results]
    columns: list[str] = []
    rows: list[Mapping[str, Any]] = []
    first = (tested or runs)[0]
    videos = first.results["forward"].tested_videos if first.results else f"split {first.split}"
    note = f"{videos[:1].upper()}{videos[1:]}, protocol {first.protocol}{_VIEWS.get(first.protocol, '')}."
    if first.is_multi_label:
        note += " Top-1 and top-5 are hits on any label."
    choices = dict.fromkeys(run.results["forward"].choice_note for run in tested)
    note += "".join(f" {text}" for text in choices if text)
    if table is not None:
        columns, rows = _read_table(table)
        note += f" The table is {Path(table).name}."
    elif tested:
        # A column exists if any run has a value, so one run without costs does not hide them.
        rows = [_result_row(run, costs) for run in tested]
        columns = [key for key in _COLUMNS if any(key in row for row in rows)]
    top1s = [row["top1"] for row in rows if isinstance(row.get("top1"), int | float)]
    return render(
        "results.html",
        # An interval is shown below its value, not in its own column.
        columns=[c for c in columns if not (c.endswith("_interval") and c.removesuffix("_interval") in columns)],
        rows=rows,
        best_top1=max(top1s) if len(rows) > 1 and top1s else None,
        note=note,
        settings=_differing_settings(runs),
        tops=[(run.name, run.results["forward"].top1 if run.results else None) for run in runs],
        notes=list(_missing_tests(runs)),
    )


def _missing_tests(runs: Sequence[ReportRun]) -> Iterator[tuple[str, list[list[str]]]]:
    """Sentences about tests that are missing or outdated, each with the commands that run them."""
    # Not shown: a report of a resumed run would mix new curves with old results.
    if outdated := [run for run in runs if run.outdated]:
        names = join_names([run.name for run in outdated])
        sentence = f"Results of {names} are left out: the weights have changed since they were tested."
        yield sentence, [run.eval_command(weights=weights) for run in outdated for weights in run.outdated]
    if untested := [run for run in runs if not run.results and not run.outdated]:
        names = join_names([run.name for run in untested])
        sentence = f"Not tested on split {untested[0].split} with protocol {untested[0].protocol}: {names}."
        yield sentence, [run.eval_command() for run in untested]
    tested = [run for run in runs if run.results and run.weights == "last" and not run.best]
    if no_best := [run for run in tested if weights_file(run, "best").is_file()]:
        names = join_names([run.name for run in no_best])
        sentence = f"The best weights of {names}, by validation, are not tested."
        yield sentence, [run.eval_command(weights="best") for run in no_best]


def _read_table(path: Path) -> tuple[list[str], list[Mapping[str, Any]]]:
    given = read_json(path)
    columns, rows = given.get("columns"), given.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ReportError(f'{path} must be {{"columns": [names], "rows": [{{name: value}}]}}; it has {sorted(given)}.')
    return [str(column) for column in columns], rows


def _result_row(run: ReportRun, costs: Costs) -> dict[str, Any]:
    forward = run.results["forward"].to_json()
    row: dict[str, Any] = {"run": run.name + (" (best weights)" if run.weights == "best" else "")}
    shown = ("top1", "top1_interval", "mean_class", "mean_average_precision", *["top5"] * has_top5(len(run.classes)))
    row |= {key: forward[key] for key in shown if key in forward}
    if run.scores is not None and "top5" in row:
        # The result file has no interval of top-5, so compute it from the scores.
        row["top5_interval"] = share_interval(top_k_hits(run.scores, 5), groups=run.scores.groups)
    if run.best is not None:
        row |= {"top1_best": run.best.top1, "top1_best_interval": run.best.top1_interval}
    row |= {f"top1_{order}": result.top1 for order, result in run.results.items() if order != "forward"}
    if run.name in costs:
        row["params"], row["multiply_adds"] = costs[run.name]
        row["views"] = run.results["forward"].num_views or 1
    return row


def _differing_settings(runs: Sequence[ReportRun]) -> list[tuple[str, list[str]]]:
    """Return (setting, value of each run) of the settings that change a result and are not the same in all runs."""
    settings = [flat_settings(run.recipe) for run in runs]
    return [
        (key, [_shown(one.get(key)) for one in settings])
        for key in settings[0]
        if key not in RESUMABLE_SETTINGS and len({_shown(one.get(key)) for one in settings}) > 1
    ]


def _shown(value: Any) -> str:
    return value or MISSING if isinstance(value, str) else to_json(value)
