"""Print the results of `vsn eval`, `fuse`, `compare` and `calibrate`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from vsn.system.numbers import counted, percent, percent_interval, percent_range, points, short_count
from vsn.system.terminal import make_table, print_note, shell_quote

if TYPE_CHECKING:
    from vsn.runs.results import EvalResult
    from vsn.scores.calibrate import AppliedCalibration, Calibration, CalibrationQuality
    from vsn.scores.compare import Comparison, VideoChange
    from vsn.scores.fuse import FusionReport
    from vsn.scores.reliance import ClassAccuracy

MEANS = {"mean_class": "mean class", "mean_average_precision": "mAP"}
"""The mean over classes of a result, and its heading: average precision for videos with several labels."""
ITEMS_SHOWN = 8
"""Classes, or videos, of each side that `vsn compare` prints without --all."""


def print_results(run: Path, results: Sequence[EvalResult]) -> None:
    """Print the results of a run: one table row per order of the frames, then the classes."""
    console, first = Console(), results[0]
    title = f"{run}: {first.tested_videos}, protocol {first.protocol}"
    if not first.is_measured:
        print(f"{title}: {first.num_unlabeled} have no label, so no accuracy was computed.")
        return
    # A row per order of the frames: forward, reversed, shuffled, still.
    with_top5 = any(result.top5 is not None for result in results)
    columns = ("frames", "top-1", "95% interval", *["top-5"] * with_top5, MEANS[first.mean_name])
    table = make_table(columns, title=title)
    for result in results:
        assert result.top1_interval is not None, "measured with top1"
        shares = (percent(result.top1), percent_interval(result.top1_interval))
        table.add_row(result.order, *shares, *[percent(result.top5)] * with_top5, percent(result.mean))
    console.print(table)
    if first.choice_note:
        print_note(console, first.choice_note)
    if first.multiply_adds and first.num_views and first.videos_per_second:
        views = f"{first.num_views} views, " if first.num_views > 1 else ""
        seconds = 1 / first.videos_per_second
        print(f"{views}{short_count(first.multiply_adds)} multiply-adds and {seconds:.2g} s per video.")
    if bad := first.bad_videos:
        example = f"{bad[0]['path']}: {bad[0]['reason']}"
        print_note(
            console, f"{counted(len(bad), 'video')} could not be read, and counted as wrong; for example {example}"
        )
    # The dependence on order is a difference to forward, so it needs forward and another order.
    orders = [result.order for result in results]
    compared = "forward" in orders and len(set(orders)) > 1
    if compared:
        _print_reliance(console, results)
    # The table by order has the classes' top-1 already, but not their average precision.
    if first.mean_name != "mean_class" or not compared:
        measure = "top-1" if first.mean_name == "mean_class" else "average precision"
        classes = make_table(("class", *orders), title=f"{measure} by class")
        for name in first.per_class:
            classes.add_row(escape(name), *(percent(result.per_class[name]) for result in results))
        console.print(classes)
    for result in results:
        if result.order == "forward" and result.scores_file.is_file():
            from vsn.scores.mistakes import worst_class
            from vsn.scores.scores import load_scores

            if worst := worst_class(load_scores(result.scores_file)):
                print_note(console, f"{worst} `vsn report {shell_quote(run)}` shows its videos.")


def _print_reliance(console: Console, results: Sequence[EvalResult]) -> None:
    """Print top-1 by class and order, and how much of it depends on the order."""
    from vsn.scores.reliance import temporal_reliance
    from vsn.scores.scores import load_scores

    reliance = temporal_reliance({result.order: load_scores(result.scores_file) for result in results})
    orders = list(reliance.orders)
    table = make_table(("class", *orders), title="top-1 by order of the frames, 95% intervals")
    rows: list[tuple[str, Mapping[str, ClassAccuracy]]] = [("all videos", reliance.orders), *reliance.classes.items()]
    for name, row in rows:
        # Intervals without "%": four of them fit next to a class name.
        cells = ((row[order].top1, *row[order].interval) for order in orders)
        texts = (f"{percent(top1)} ({percent_range((low, high))[:-1]})" for top1, low, high in cells)
        table.add_row(escape(name), *texts, end_section=name == "all videos")
    # A loss of 30 points is printed as -30.0; low and high change places with the sign.
    for order in orders[1:]:
        accuracy = reliance.orders[order]
        low, high = accuracy.loss_interval
        interval = f"95% interval {points(-high)} to {points(-low)}"
        print(f"{order}: {points(-accuracy.loss)} points against forward ({interval})")
    console.print(table)
    print_note(console, reliance.describe())


def print_fusion(report: FusionReport) -> None:
    """Print each input, the fused scores, and the gain over the best input."""
    console, rows = Console(), [*report.inputs, report.fused]
    numbers = [str(number) for number in range(1, len(rows))]
    for number, row in zip(numbers, report.inputs, strict=True):  # paths are too long for a table
        print(f"{number}: {row.name}")
    with_top5 = report.fused.summary.top5 is not None
    # Costs as in the paper's Table 2, per video over all its views.
    columns = ("scores", "weight", "frames", "params", "mult-adds", "top-1", "95% interval", *["top-5"] * with_top5)
    table = make_table(
        (*columns, MEANS[report.fused.summary.mean_name]),
        title=f"{report.num_videos} videos, mean of {report.fusion} scores",
    )
    for name, row in zip([*numbers, report.fused.name], rows, strict=True):
        costs, summary = row.costs, row.summary
        table.add_row(
            name,
            "" if row.weight is None else f"{row.weight:.2f}",
            costs.frames or "-",
            "-" if costs.parameters is None else short_count(costs.parameters),
            "-" if costs.multiply_adds is None else short_count(costs.multiply_adds),
            *(percent(summary.top1), percent_interval(summary.top1_interval)),
            *([percent(summary.top5)] * with_top5),
            percent(summary.mean),
        )
    console.print(table)
    if report.num_unreadable:
        print_note(console, f"{counted(report.num_unreadable, 'video')} that a model could not read count as wrong.")
    low, high = report.gain_interval
    print_note(
        console,
        f"Top-1 against the best input, {report.best_single}: {points(report.gain)} points "
        f"(95% interval of the paired difference {points(low)} to {points(high)}).",
    )
    if report.map_gain is not None:
        print(f"Mean average precision: {points(report.map_gain)} points (no interval).")


def print_comparisons(names: Sequence[str], comparisons: Sequence[Comparison]) -> None:
    """Print the accuracy of models, and the difference of each to the first; ``comparisons`` are with the first."""
    console, first = Console(), comparisons[0]
    means = (MEANS[first.mean_name], [one.mean for one in comparisons])
    for measure, differences in (("top-1", [one.top1 for one in comparisons]), means):
        title = f"{measure} of {counted(first.num_videos, 'video')}; differences to {names[0]} in points"
        is_top1 = measure == "top-1"
        table = make_table(("model", measure, "difference", "95% interval", *["p"] * is_top1), title=title)
        table.add_row(escape(names[0]), percent(differences[0].a))
        for name, metric, comparison in zip(names[1:], differences, comparisons, strict=True):
            interval = f"{points(metric.interval[0])} to {points(metric.interval[1])}" if metric.interval else "-"
            p_value = [f"{comparison.mcnemar_p:.2g}"] * is_top1
            table.add_row(escape(name), percent(metric.b), points(metric.difference), interval, *p_value)
        console.print(table)
    many = f" of each pair, not corrected for {len(comparisons)} pairs" if len(comparisons) > 1 else ""
    print_note(console, f"p: McNemar's exact test{many}. Intervals are of the paired difference.")
    unreadable = {names[0]: first.num_unreadable[0]}
    unreadable |= {name: one.num_unreadable[1] for name, one in zip(names[1:], comparisons, strict=True)}
    if any(unreadable.values()):
        counts = ", ".join(f"{name} {number}" for name, number in unreadable.items())
        print_note(console, f"Videos that could not be read and count as wrong: {counts}.")


def print_changes(names: Sequence[str], comparison: Comparison, *, show_all: bool = False) -> None:
    """Print the classes and videos in which two models differ, in about 60 lines unless ``show_all``."""
    console, (a, b) = Console(), names
    # The classes that b won most, then those it lost most; unchanged ones are left out.
    classes = comparison.classes if show_all else [row for row in comparison.classes if row["won"] or row["lost"]]
    too_many = not show_all and len(classes) > 2 * ITEMS_SHOWN
    if too_many:
        classes = [*classes[:ITEMS_SHOWN], *classes[-ITEMS_SHOWN:]]
    table = make_table(
        ("class", "videos", _heading(a), _heading(b), "won", "lost"),
        title=f"classes, most won by {b} first ({len(classes)} of {len(comparison.classes)})",
    )
    for index, row in enumerate(classes):
        cells = (str(row["num_videos"]), percent(row["a"]), percent(row["b"]), str(row["won"]), str(row["lost"]))
        table.add_row(escape(row["class"]), *cells, end_section=too_many and index == ITEMS_SHOWN - 1)
    console.print(table)

    # One line per video, not a table: ids and class names are long.
    for side, winner in (("won", b), ("lost", a)):
        videos = [video for video in comparison.changed if video["side"] == side]
        shown = videos if show_all else _one_per_class(videos)[:ITEMS_SHOWN]
        more = "" if len(shown) == len(videos) else f", {len(shown)} shown; --all prints all of them"
        in_classes = counted(len({video["label"] for video in videos}), "class")
        where = f" of {in_classes}" if videos else ""
        print_note(console, f"{side}: {counted(len(videos), 'video')}{where} that only {winner} gets right{more}")
        for video in shown:
            print(f"  {video['id']}: {video['label']}; {a} predicts {video['a']}, {b} predicts {video['b']}")


def _one_per_class(videos: Sequence[VideoChange]) -> list[VideoChange]:
    """Sort videos so that every class has one of its videos before any has two: a list that is cut shows all kinds."""
    seen: Counter[str] = Counter()
    turns = []
    for video in videos:
        turns.append(seen[video["label"]])
        seen[video["label"]] += 1
    return [video for _, video in sorted(zip(turns, videos, strict=True), key=lambda pair: pair[0])]


def _heading(name: str, width: int = 16) -> str:
    """Break the name of a run into lines for a narrow column, after hyphens and underscores."""
    lines = [""]
    for part in re.findall(r"[^-_]*[-_]?", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def print_calibration(fitted: Calibration, applied: AppliedCalibration | None) -> None:
    """Print what was fitted, and its effect on the videos it was fitted on and on others."""
    console, source = Console(), fitted.fitted_on
    summary = f"Temperature {fitted.temperature:.3f}, fitted on {source['num_videos']} videos of {source['file']}"
    print_note(console, summary)
    # Two rows at most: the videos it was fitted on, and those of --apply.
    rows: list[tuple[str, CalibrationQuality]] = [("fitted on", fitted)]
    if applied:
        rows.append(("applied to", applied))
    table = make_table(("videos", "likelihood loss", "with T", "calibration error", "with T"))
    for name, row in rows:
        losses = (f"{row.nll_before:.4f}", f"{row.nll_after:.4f}")
        table.add_row(name, *losses, percent(row.ece_before), percent(row.ece_after))
    console.print(table)
    if fitted.threshold is not None:
        print_note(
            console,
            f"Threshold {fitted.threshold:.4f}: below it the label is 'unknown'. "
            f"Requested precision {percent(fitted.wanted_precision)}, with 95% certainty.",
        )
        for name, row in rows:
            accepted = f"{name.capitalize()}: accepts {percent(row.coverage)} of the videos"
            if row.precision_interval is not None:
                interval = percent_interval(row.precision_interval)
                accepted += f", of which {percent(row.precision)} are right (95% interval {interval})"
            print_note(console, f"{accepted}.")
    if not applied:
        print_note(console, "These results are on the videos it was fitted on; measure others with --apply TEST.npz.")
    elif applied.note:
        print_note(console, f"Note: {applied.note}")
