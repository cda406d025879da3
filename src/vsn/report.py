"""Run folders in, one self-contained HTML page out.

Nothing of a network is needed to read a run: its recipe, curves, accuracies and scores are files.
The page loads nothing from anywhere else and reads in light and dark, on a wide screen and on a phone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vsn import report_parts as parts
from vsn.config import FrameOrder
from vsn.report_runs import ReportError, Run, match_classes, read_arrays, read_json, read_runs


def write_report(
    run_dirs: Sequence[Path],
    output: Path,
    *,
    title: str,
    table: Path | None = None,
    strips: Path | None = None,
    split: str = "test",
) -> Path:
    """Write one self-contained HTML page over `run_dirs` to `output` and return `output`.

    table: JSON `{"columns": [...], "rows": [{...}]}` shown instead of the table made from the runs.
    strips: .npz with `frames` uint8 (K, T, h, w, 3), `video_ids` (K,) and `labels` (K,), indices into
    the first run's classes (or into an array `classes` of the file): videos shown frame by frame.
    Classes are matched by name, so runs may number them differently. The page is written beside
    `output` and then renamed: a reader never sees half of it.

    Raises `ReportError`, a `ValueError`, for a missing or unreadable file and for runs that cannot be
    compared: other classes, other videos, no protocol in common.
    """
    runs = read_runs([Path(d) for d in run_dirs], split)
    protocol = str(runs[0].evals["forward"]["protocol"])
    names = [run.name for run in runs]
    sections = [
        ("results", "Results", _results(runs, split, protocol, table)),
        ("curves", "Learning curves", _curves(runs)),
        ("time", "Temporal reliance", _reliance(runs)),
        ("classes", "Accuracy by class", _by_class(runs)),
        ("confusion", "Confusion", _confusion(runs)),
    ]
    if strips is not None:
        sections.append(("videos", "Videos", _videos(runs, Path(strips))))
    page = _page(
        title,
        summary=summary_sentence(runs, split),
        written=datetime.now(UTC),
        versions=[(run.name, run.versions) for run in runs],
        sections=sections,
        css=_static("report.css") + _toggle_css(len(names)),
        script=_static("report.js"),
    )
    return _write_beside(Path(output), page)


def summary_sentence(runs: Sequence[Run], split: str) -> str:
    """Which run is best by top-1, how sure that is, and on how many videos; plain text, one sentence."""
    best, *others = sorted(runs, key=lambda run: -run.top1)
    # One per cent sign ends the range: "56.0-66.8%".
    reached = f"{parts.percent(best.top1)} (95% interval {parts.percent_range(best.interval)})"
    where = f"on {len(best.video_ids):,} {split} videos"
    if not others:
        return f"{best.name} names {reached} {where} rightly (top-1)."
    ties = [run.name for run in others if run.top1 == best.top1]
    if ties:
        return f"{parts.listed([best.name, *ties])} share the best top-1, {reached}, {where}."
    behind = parts.listed([f"{run.name} ({parts.percent(run.top1)})" for run in others])
    near = [run.name for run in others if run.interval[1] >= best.interval[0]]
    doubt = f"; its interval overlaps that of {parts.listed(near)}" if near else ""
    return f"{best.name} is best by top-1 {where}: {reached}, ahead of {behind}{doubt}."


def softmax(scores: np.ndarray) -> np.ndarray:
    """float64 probabilities along the last axis of `scores`, safe for large logits."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


# ---------------------------------------------------------------- sections


def _results(runs: Sequence[Run], split: str, protocol: str, table: Path | None) -> str:
    views = {"fcn": "the whole frame", "center": "one centre crop"}.get(protocol, protocol)
    note = f"Split {split}, protocol {protocol} ({views}), {len(runs[0].video_ids):,} videos."
    if table is None:
        return parts.data_table(*_run_table(runs), note=note)
    given = read_json(Path(table), dict)
    columns, rows = given.get("columns"), given.get("rows")
    lists = isinstance(columns, list) and isinstance(rows, list)
    if not lists or not all(isinstance(row, dict) for row in rows):
        form = '{"columns": [names], "rows": [{name: value}]}'
        raise ReportError(f"{table} must be {form}; it has {sorted(given)}. Write it in that form.")
    return parts.data_table([str(c) for c in columns], rows, note=f"{note} The table is {Path(table).name}.")


def _run_table(runs: Sequence[Run]) -> tuple[list[str], list[Mapping[str, Any]]]:
    orders = [o for o in get_args(FrameOrder)[1:] if any(o in run.evals for run in runs)]
    columns = ["run", "model", "top1", "top5", "mean_class", *(f"top1_{order}" for order in orders)]
    columns += ["num_frames", "epochs", "seconds"]
    rows: list[Mapping[str, Any]] = []
    for run in runs:
        forward = run.evals["forward"]
        row = {"run": run.name, "model": run.recipe.model.name, "num_frames": run.recipe.model.num_frames}
        row |= {key: forward[key] for key in ("top1", "top1_interval", "top5", "mean_class")}
        row |= {f"top1_{order}": run.evals[order]["top1"] for order in orders if order in run.evals}
        row |= {
            "epochs": run.metrics[-1]["epoch"],
            "seconds": sum(float(m.get("seconds", 0)) for m in run.metrics),
        }
        rows.append(row)
    return columns, rows


def _curves(runs: Sequence[Run]) -> str:
    def points(run: Run, key: str) -> list[tuple[float, float]]:
        pairs = [(float(m["epoch"]), float(m[key])) for m in run.metrics if m.get(key) is not None]
        return [(x, y) for x, y in pairs if math.isfinite(y)]  # a diverged epoch has no place on the axis

    charts = []
    for what, label, is_share in (("loss", "Loss", False), ("top1", "Top-1", True)):
        series = [
            parts.Series(run.name, index, phase, points(run, f"{key}_{what}"))
            for index, run in enumerate(runs)
            for phase, key in (("train", "train"), ("validation", "val"))
        ]
        charts.append(parts.line_chart(series, label=label, is_share=is_share))
    return parts.curves([run.name for run in runs], charts)


def _reliance(runs: Sequence[Run]) -> str:
    orders = [o for o in get_args(FrameOrder) if any(o in run.evals for run in runs)]
    shares = {run.name: {o: float(e["top1"]) for o, e in run.evals.items()} for run in runs}
    return parts.order_table(shares, orders, chance=1 / len(runs[0].classes))


def _by_class(runs: Sequence[Run]) -> str:
    best = max(range(len(runs)), key=lambda index: runs[index].top1)
    counts = np.bincount(runs[0].labels, minlength=len(runs[0].classes))
    accuracies = {
        run.name: [run.evals["forward"]["per_class"].get(name) for name in run.classes] for run in runs
    }
    return parts.class_bars(runs[0].classes, counts.tolist(), accuracies, first=best)


def _confusion(runs: Sequence[Run]) -> str:
    key = (
        "<p>Rows are the truth, columns what the run said, by the row's number. Blue is right, orange is "
        "wrong; the stronger the colour, the larger the share of the row.</p>"
    )
    return key + "\n".join(
        parts.confusion(run.name, run.confusion, run.classes, is_open=len(runs) <= 4) for run in runs
    )


def _videos(runs: Sequence[Run], path: Path) -> str:
    arrays = read_arrays(path, ("frames", "video_ids", "labels"))
    frames, labels = arrays["frames"], arrays["labels"]
    count = len(arrays["video_ids"])
    is_rgb = frames.dtype == np.uint8 and frames.ndim == 5 and frames.shape[-1] == 3
    if not is_rgb or len(frames) != count or labels.shape != (count,):
        raise ReportError(
            f"{path}: frames are {frames.dtype} {frames.shape} for {count} videos and {labels.size} labels; "
            "they must be uint8 (K, T, h, w, 3) for K videos and K labels."
        )
    classes = runs[0].classes
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ReportError(f"{path}: labels run to {labels.max()}; allowed: 0 to {len(classes) - 1}.")
    if "classes" in arrays:
        labels = np.argsort(match_classes([str(n) for n in arrays["classes"]], classes, path))[labels]
    cards = []
    for clip, video_id, label in zip(frames, arrays["video_ids"].tolist(), labels.tolist(), strict=True):
        verdicts = [_verdict(run, str(video_id), label, path) for run in runs]
        cards.append(parts.strip_card(clip, str(video_id), truth=classes[label], verdicts=verdicts))
    return parts.strips(cards)


def _verdict(run: Run, video_id: str, label: int, path: Path) -> tuple[str, str, float, bool]:
    """The run's name, its first choice, the probability of it, and whether it is `label`."""
    if video_id not in run.video_ids:
        raise ReportError(f"{path}: {run.name} has no scores for {video_id!r}. Show videos of its split.")
    row = run.video_ids.index(video_id)
    truth = int(run.labels[row])
    if truth != label:
        raise ReportError(
            f"{path}: label {label} of {video_id!r} is not the {truth} ({run.classes[truth]!r}) of "
            f"{run.name}. Number the labels as the first run does, or store `classes` with them."
        )
    probabilities = softmax(run.scores[row])
    said = int(probabilities.argmax())
    return run.name, run.classes[said], float(probabilities[said]), said == label


# ---------------------------------------------------------------- page


def _page(
    title: str,
    *,
    summary: str,
    written: datetime,
    versions: Sequence[tuple[str, Mapping[str, str]]],
    sections: Sequence[tuple[str, str, str]],
    css: str,
    script: str,
) -> str:
    """The whole document; `sections` are (id, heading, HTML)."""
    links = "".join(f'<a href="#{key}">{parts.text(heading)}</a>' for key, heading, _ in sections)
    body = "\n".join(
        f'<section id="{key}" aria-labelledby="{key}-h">'
        f'<h2 id="{key}-h">{parts.text(heading)}</h2>\n{inner}\n</section>'
        for key, heading, inner in sections
    )
    # The policy makes the promise of one self-contained file hold in the browser too.
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{parts.text(title)}</title>
<style>
{css}
</style>
</head>
<body>
<header>
<h1>{parts.text(title)}</h1>
<p class="summary">{parts.text(summary)}</p>
<p class="date"><time datetime="{written:%Y-%m-%dT%H:%MZ}">{written:%d %B %Y, %H:%M} UTC</time></p>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<footer>{_versions(versions)}</footer>
<script>
{script}
</script>
</body>
</html>
"""


def _toggle_css(num_runs: int) -> str:
    """Rules that hide a run's curves while its box in the legend is not ticked; no script needed."""
    return "".join(
        f"\n.curves:has(#show-{i}:not(:checked)) .line-{i}{{display:none}}" for i in range(num_runs)
    )


def _versions(versions: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    groups: dict[str, list[str]] = {}
    for name, found in versions:
        line = " · ".join(f"{key} {value}" for key, value in found.items()) or "no versions recorded"
        groups.setdefault(line, []).append(name)
    lines = "".join(
        f"<dt>{parts.text(parts.listed(names))}</dt><dd>{parts.text(line)}</dd>"
        for line, names in groups.items()
    )
    return f"<h2>Versions</h2><dl>{lines}</dl>"


def _static(name: str) -> str:
    return (files("vsn") / "static" / name).read_text(encoding="utf-8")


def _write_beside(output: Path, page: str) -> Path:
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        beside.write_text(page, encoding="utf-8")
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)
    return output
