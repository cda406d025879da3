"""What `vsn eval`, `fuse`, `compare` and `calibrate` print: shares of 1 as percent with one decimal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_COSTS = ("frames", "params", "mult-adds")
"""Columns of the paper's Table 2; the costs are of a video, all its views."""
_SHOWN = 8
"""Classes, or videos, of each side that a page of `vsn compare` shows."""


def print_results(run: Path, results: list[dict[str, Any]]) -> None:
    """Tables of the results of one run under several orders of the frames."""
    console, first = Console(), results[0]
    title = f"{run}: {first['num_videos']} videos of split {first['split']}, protocol {first['protocol']}"
    if "num_unlabeled" in first:
        _say(console, f"{title}: {first['num_unlabeled']} without a label, so that nothing was measured.")
        return
    mean = _mean_key(first)
    table = _table(title, ("frames", "top-1", "95% interval", "top-5", _MEANS[mean]))
    for result in results:
        table.add_row(
            result["order"],
            f"{result['top1']:.1%}",
            _interval(result["top1_interval"]),
            f"{result['top5']:.1%}",
            f"{result[mean]:.1%}",
        )
    console.print(table)
    cost = first.get("multiply_adds")
    if cost:
        views = f"{first['num_views']} views, " if first["num_views"] > 1 else ""
        _say(
            console,
            f"{views}{cost / 1e9:.3g} G multiply-adds and {1 / first['videos_per_second']:.2g} s a video.",
        )
    bad = first["bad_videos"]
    if bad:
        _say(
            console,
            f"{len(bad)} videos could not be read and count as wrong, for example {bad[0]['path']}: {bad[0]['reason']}",
        )
    orders = [result["order"] for result in results]
    if "forward" in orders and len(set(orders)) > 1:
        _print_reliance(console, run, results)
    if mean != "mean_class" or "forward" not in orders or len(set(orders)) == 1:
        what = "top-1" if mean == "mean_class" else "average precision"
        classes = _table(f"{what} by class", ("class", *orders))
        for name in first["per_class"]:
            classes.add_row(escape(name), *(f"{result['per_class'][name]:.1%}" for result in results))
        console.print(classes)


def _print_reliance(console: Console, run: Path, results: Sequence[dict[str, Any]]) -> None:
    """Top-1 by class and order, from the scores the evaluation has just written, and what rests on order."""
    from vsn.runs.results import list_results
    from vsn.scores.reliance import ClassAccuracy, temporal_reliance
    from vsn.scores.scores import load_scores

    first = results[0]
    saved = list_results(run, split=first["split"], protocol=first["protocol"], weights=first["weights"], damaged=[])
    files = {result.order: result.scores_file for result in saved}
    reliance = temporal_reliance({result["order"]: load_scores(files[result["order"]]) for result in results})
    orders = list(reliance.orders)
    table = _table("top-1 by order of the frames, 95% intervals", ("class", *orders))
    rows: list[tuple[str, Mapping[str, ClassAccuracy]]] = [("all videos", reliance.orders), *reliance.classes.items()]
    for name, row in rows:
        cells = (f"{row[order].top1:.1%} ({_short(row[order].interval)})" for order in orders)
        table.add_row(escape(name), *cells, end_section=name == "all videos")
    for order in orders[1:]:
        one = reliance.orders[order]
        _say(
            console,
            f"{order}: {_points(-one.loss)} points against forward (95% interval "
            f"{_points(-one.loss_interval[1])} to {_points(-one.loss_interval[0])})",
        )
    console.print(table)
    _say(console, reliance.describe())


def print_fusion(report: dict[str, Any]) -> None:
    """Each input, the fused scores, and the gain over the best input."""
    console = Console()
    if report["left_out"]:
        _say(console, f"{report['left_out']} videos are not in all files and were left out.")
    if "fused" not in report:
        _say(console, f"{report['num_videos']} videos, some without a label: nothing was measured.")
        return
    searched = report.get("searched")
    if searched:
        _say(
            console,
            f"Weights searched on {searched['num_videos']} videos (seed {searched['seed']}): "
            f"{' '.join(f'{w:g}' for w in searched['weights'])}. What follows is of the other videos alone.",
        )
    rows = [*report["inputs"], report["fused"]]
    mean = _mean_key(rows[0])
    names = [str(number) for number, _ in enumerate(report["inputs"], 1)]  # paths leave a terminal's table no room
    _say(console, "\n".join(f"{name}: {row['name']}" for name, row in zip(names, rows, strict=False)))
    table = _table(
        f"{report['num_videos']} videos, mean of {report['fusion']} scores",
        ("scores", "weight", *_COSTS, "top-1", "95% interval", "top-5", _MEANS[mean]),
    )
    for name, row in zip([*names, report["fused"]["name"]], rows, strict=True):
        parameters, cost = row["parameters"], row["multiply_adds"]
        table.add_row(
            name,
            "" if row["weight"] is None else f"{row['weight']:.2f}",
            row["frames"] or "-",
            "-" if parameters is None else f"{parameters / 1e6:.3g}M",
            "-" if cost is None else f"{cost / 1e9:.3g}G",
            f"{row['top1']:.1%}",
            _interval(row["top1_interval"]),
            f"{row['top5']:.1%}",
            f"{row[mean]:.1%}",
        )
    console.print(table)
    if report["num_unreadable"]:
        _say(console, f"{report['num_unreadable']} videos could not be read by a model and count as wrong.")
    low, high = report["gain_interval"]
    _say(
        console,
        f"Top-1 against {report['best_single']}, the best alone: {_points(report['gain'])} points "
        f"(95% interval of the paired difference {_points(low)} to {_points(high)}).",
    )
    if "map_gain" in report:
        _say(console, f"Mean average precision: {_points(report['map_gain'])} points (no interval).")


def print_comparison(result: dict[str, Any], *, show_all: bool = False) -> None:
    """The page of `vsn compare`: at most about 60 lines, or everything."""
    console = Console()
    mean = _mean_key(result)
    _say(console, f"a: {result['a']}\nb: {result['b']}")
    if result["left_out"]:
        _say(console, f"{result['left_out']} videos are not in both and were left out.")
    table = _table(f"{result['num_videos']} videos", ("", "a", "b", "b - a", "95% interval"))
    for label, key in (("top-1", "top1"), (_MEANS[mean], mean)):
        interval = result.get(f"{key}_interval")
        table.add_row(
            label,
            *(f"{share:.1%}" for share in result[key]),
            _points(result[f"{key}_difference"]),
            f"{_points(interval[0])} to {_points(interval[1])}" if interval else "not drawn",
        )
    console.print(table)
    _say(
        console,
        f"Right by a alone {result['only_a']}, by b alone {result['only_b']}: McNemar's exact p = "
        f"{result['mcnemar_p']:.2g}. Differences are points, their intervals the paired bootstrap's.",
    )
    if any(result["num_unreadable"]):
        counts = result["num_unreadable"]
        _say(console, f"Videos that could not be read, and count as wrong: a {counts[0]}, b {counts[1]}.")
    _print_classes(console, result["classes"], show_all)
    _print_changed(console, result["changed"], show_all)


def _print_classes(console: Console, classes: Sequence[dict[str, Any]], show_all: bool) -> None:
    moved = classes if show_all else [row for row in classes if row["won"] or row["lost"]]
    shown = moved if show_all or len(moved) <= 2 * _SHOWN else [*moved[:_SHOWN], *moved[-_SHOWN:]]
    table = _table(
        f"classes, most won by b first ({len(shown)} of {len(classes)})",
        ("class", "videos", "a", "b", "won", "lost"),
    )
    for index, row in enumerate(shown):
        table.add_row(
            escape(row["class"]),
            str(row["num_videos"]),
            f"{row['a']:.1%}",
            f"{row['b']:.1%}",
            str(row["won"]),
            str(row["lost"]),
            end_section=len(shown) < len(moved) and index == _SHOWN - 1,
        )
    console.print(table)


def _print_changed(console: Console, changed: Sequence[dict[str, Any]], show_all: bool) -> None:
    """Videos on lines of their own, not in a table: ids and class names are long."""
    for side, meaning in (("won", "b alone is right"), ("lost", "a alone is right")):
        rows = [row for row in changed if row["side"] == side]
        shown = rows if show_all else rows[:_SHOWN]
        more = "" if len(shown) == len(rows) else f", {len(shown)} shown; --all prints every one"
        _say(console, f"{side}: {len(rows)} videos, {meaning}{more}")
        for row in shown:
            _say(console, f"  {row['id']}: {row['label']}; a said {row['a']}, b said {row['b']}")


def print_calibration(report: dict[str, Any]) -> None:
    """What was fitted, and what it does on the videos it was fitted on and on others."""
    console = Console()
    fitted = report["fitted_on"]
    _say(
        console,
        f"Temperature {report['temperature']:.3f}, fitted on {fitted['num_videos']} videos of {fitted['file']}",
    )
    applied = report["applied"]
    table = _table("", ("videos", "likelihood loss", "with T", "calibration error", "with T"))
    for name, row in (("fitted on", report), *((("applied to", applied),) if applied else ())):
        table.add_row(
            name,
            f"{row['nll_before']:.4f}",
            f"{row['nll_after']:.4f}",
            f"{row['ece_before']:.1%}",
            f"{row['ece_after']:.1%}",
        )
    console.print(table)
    if report["threshold"] is not None:
        _say(
            console,
            f"Threshold {report['threshold']:.4f}: below it the answer is 'unknown'. "
            f"Wanted precision {report['wanted_precision']:.1%}.",
        )
        for name, row in (("Fitted on", report), *((("Applied to", applied),) if applied else ())):
            if row["precision"] is None:
                _say(console, f"{name}: accepts none of the videos.")
                continue
            _say(
                console,
                f"{name}: accepts {row['coverage']:.1%} of the videos, of which {row['precision']:.1%} are right "
                f"(95% interval {_interval(row['precision_interval'])}).",
            )
    if not applied:
        _say(
            console,
            "These figures are of the videos it was fitted on; --apply TEST.npz tells what it does on others.",
        )
    elif applied["note"]:
        _say(console, f"Note: {applied['note']}")


_MEANS = {"mean_class": "mean class", "mean_average_precision": "mAP"}


def _mean_key(row: dict[str, Any]) -> str:
    return "mean_class" if "mean_class" in row else "mean_average_precision"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=escape(title) or None)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold" if place == 0 else "ellipsis")
    return table


def _interval(shares: Sequence[float]) -> str:
    return f"{shares[0]:.1%} to {shares[1]:.1%}"


def _short(shares: Sequence[float]) -> str:
    """An interval in few letters: four of them fit beside a class name."""
    return f"{100 * shares[0]:.1f}-{100 * shares[1]:.1f}"


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # no minus before a zero


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
