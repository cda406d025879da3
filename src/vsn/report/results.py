"""The head of a report: which run is best and how sure that is, what was reached, and by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vsn.report import parts
from vsn.report.runs import ORDERS, ReportError, Run, read_json
from vsn.scores.intervals import bootstrap_interval
from vsn.scores.metrics import top_k_hits

Costs = Mapping[str, tuple[int, int]]
"""Run name -> parameters, multiply-adds of one view."""


def summary_sentence(runs: Sequence[Run]) -> str:
    """Which run is best by top-1, how sure that is, and on how many videos; plain text, one sentence."""
    tested = [run for run in runs if run.evals]
    if not tested:
        return f"None of {len(runs)} runs is tested yet." if len(runs) > 1 else "The run is not tested yet."
    if "mean_average_precision" in tested[0].evals["forward"]:
        return _sentence_of_several_labels(tested)
    best, *others = sorted(tested, key=lambda run: -run.top1)
    # One per cent sign ends the range: "56.0-66.8%".
    reached = f"{parts.percent(best.top1)} (95% interval {parts.percent_range(best.interval)})"
    where = f"on {parts.videos(int(best.evals['forward']['num_videos']))} of split {best.split}"
    if not others:
        return f"{best.name} names {reached} {where} rightly (top-1)."
    ties = [run.name for run in others if run.top1 == best.top1]
    if ties:
        return f"{parts.listed([best.name, *ties])} share the best top-1, {reached}, {where}."
    behind = parts.listed([f"{run.name} ({parts.percent(run.top1)})" for run in others])
    near = [run.name for run in others if run.interval[1] >= best.interval[0]]
    doubt = f"; its interval overlaps that of {parts.listed(near)}" if near else ""
    return f"{best.name} is best by top-1 {where}: {reached}, ahead of {behind}{doubt}."


def _sentence_of_several_labels(tested: Sequence[Run]) -> str:
    def precision(run: Run) -> float:
        return float(run.evals["forward"]["mean_average_precision"])

    best, *others = sorted(tested, key=lambda run: -precision(run))
    forward = best.evals["forward"]
    said = f"{best.name} has {'the best' if others else 'a'} mean average precision"
    said += f" on {parts.videos(int(forward['num_videos']))} of split {best.split}: {parts.percent(precision(best))}"
    if others:
        said += f", beside {parts.listed([f'{run.name} ({parts.percent(precision(run))})' for run in others])}"
    return f"{said}; its first choice is a label of {parts.percent(best.top1)} of them."


def results_section(runs: Sequence[Run], *, table: Path | None, costs: Costs) -> str:
    """The table of results, or `table`, then what the runs are, then what is missing."""
    tested = [run for run in runs if run.evals]
    shown = ""
    if table is not None:
        columns, rows = _read_table(table)
        shown = parts.data_table(columns, rows, note=f"{_where(tested or runs)} The table is {Path(table).name}.")
    elif tested:
        shown = parts.data_table(*_run_table(tested, costs), note=_where(tested))
    return shown + _facts(runs) + _what_is_missing(runs)


def _where(runs: Sequence[Run]) -> str:
    run = runs[0]
    views = {"fcn": "the whole frame", "center": "one center crop"}.get(run.protocol)
    protocol = f"{run.protocol} ({views})" if views else run.protocol
    count = f", {parts.videos(len(run.scores.video_ids))}" if run.scores is not None else ""
    several = " Top-1 and top-5 are hits on any label." if run.scores and run.scores.multi_label else ""
    return f"Split {run.split}, protocol {protocol}{count}.{several}"


def _read_table(path: Path) -> tuple[list[str], list[Mapping[str, Any]]]:
    given = read_json(Path(path), dict)
    columns, rows = given.get("columns"), given.get("rows")
    lists = isinstance(columns, list) and isinstance(rows, list)
    if not lists or not all(isinstance(row, dict) for row in rows):
        form = '{"columns": [names], "rows": [{name: value}]}'
        raise ReportError(f"{path} must be {form}; it has {sorted(given)}. Write it in that form.")
    return [str(c) for c in columns], rows


def _run_table(runs: Sequence[Run], costs: Costs) -> tuple[list[str], list[Mapping[str, Any]]]:
    rows: list[Mapping[str, Any]] = []
    for run in runs:
        forward = run.evals["forward"]
        row: dict[str, Any] = {"run": run.name + (" (best weights)" if run.weights == "best" else "")}
        row |= {key: forward[key] for key in ("top1", "top1_interval", "top5")}
        row |= {key: forward[key] for key in ("mean_class", "mean_average_precision") if key in forward}
        if run.scores is not None:
            hits = top_k_hits(run.scores, 5)
            row["top5_interval"] = list(bootstrap_interval(hits, groups=run.scores.groups))
        if run.best is not None:
            row |= {"top1_best": run.best["top1"], "top1_best_interval": run.best["top1_interval"]}
        row |= {f"top1_{order}": run.evals[order]["top1"] for order in ORDERS[1:] if order in run.evals}
        if run.name in costs:
            row["params"], row["multiply_adds"] = costs[run.name]
            row["views"] = int(forward.get("num_views", 1))
        rows.append(row)
    order = ["run", "top1", "top1_interval", "top5", "top5_interval", "mean_class", "mean_average_precision"]
    order += ["top1_best", "top1_best_interval", *(f"top1_{one}" for one in ORDERS[1:])]
    order += ["params", "multiply_adds", "views"]
    return [key for key in order if any(key in row for row in rows)], rows


def _facts(runs: Sequence[Run]) -> str:
    """What each run is: model, data, T, sampling, how long it trained."""
    head = ("Run", "Model", "Frames", "Data", "Trained", "Tested")
    body = []
    for run in runs:
        recipe, epochs = run.recipe, [m for m in run.metrics if "train_loss" in m]
        seconds = sum(float(m.get("seconds", 0)) for m in epochs)
        trained = (
            f"{epochs[-1]['epoch']:g} epochs, {parts.format_value('seconds', seconds)}" if epochs else parts.MISSING
        )
        start = "at random" if recipe.model.weights == "none" else Path(recipe.model.weights).name
        data = Path(recipe.data.root).name or recipe.data.root or parts.MISSING
        tested = f"split {run.split}, {run.protocol}, {run.weights} weights" if run.evals else "not yet"
        cells = [
            (recipe.model.name, f"weights began {start}"),
            (f"{recipe.model.num_frames}, {recipe.clip.sampling}", f"short side {recipe.clip.short_side}"),
            (data, f"{recipe.data.source}, {len(run.classes)} classes"),
            (trained, f"batch {recipe.train.batch_size}, {recipe.train.optimizer}, lr {recipe.train.lr:g}"),
            (tested, ""),
        ]
        body.append(
            f'<tr><th scope="row">{parts.text(run.name)}</th>'
            + "".join(f"<td>{parts.text(a)}<small>{parts.text(b)}</small></td>" for a, b in cells)
            + "</tr>"
        )
    names = "".join(f'<th scope="col">{name}</th>' for name in head)
    table = f'<table class="data facts"><thead><tr>{names}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return "<h3>The runs</h3>" + parts.scroll_box(table, "What the runs are")


def _what_is_missing(runs: Sequence[Run]) -> str:
    notes = []
    untested = [run for run in runs if not run.evals]
    if untested:
        said = f"Not tested on split {untested[0].split} under protocol {untested[0].protocol}: "
        notes.append(
            parts.lacking(
                f"{said}{parts.listed([run.name for run in untested])}.",
                [run.eval_command() for run in untested],
            )
        )
    no_best = [
        run
        for run in runs
        if run.evals and run.weights == "last" and not run.best and (run.path / "best.safetensors").is_file()
    ]
    if no_best:
        notes.append(
            parts.lacking(
                f"The best weights of {parts.listed([run.name for run in no_best])}, by validation, are not tested.",
                [run.eval_command("--weights", "best") for run in no_best],
            )
        )
    return "".join(notes)
