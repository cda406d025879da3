"""Run folders in, one self-contained HTML page out.

Nothing of a network is needed to read a run: its recipe, curves, accuracies and scores are files.
The page loads nothing from anywhere else and reads in light and dark, on a wide screen and on a phone.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np

from vsn import report_parts as parts
from vsn.config import FrameOrder, Protocol, Recipe, load_recipe

EVAL_KEYS = ("num_videos", "top1", "top1_interval", "top5", "mean_class", "per_class")


class ReportError(ValueError):
    """A report that cannot be written; the message says what is wrong, in which file, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a report reads of one run folder, for one split and one protocol."""

    name: str
    recipe: Recipe
    classes: tuple[str, ...]
    """Names in the report's order, the same for all runs; the columns of `scores`."""
    versions: dict[str, str]
    metrics: list[dict[str, Any]]
    """One dict an epoch, as in metrics.jsonl."""
    evals: dict[str, dict[str, Any]]
    """Frame order -> what its evaluation wrote; "forward" is always there."""
    video_ids: tuple[str, ...]
    labels: np.ndarray
    """int64 (N,), indices into `classes`."""
    scores: np.ndarray
    """float32 (N, num_classes), logits of the forward order."""

    @property
    def top1(self) -> float:
        """Share of videos named rightly, frames in their order."""
        return float(self.evals["forward"]["top1"])

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of `top1`."""
        low, high = self.evals["forward"]["top1_interval"]
        return float(low), float(high)

    @property
    def confusion(self) -> np.ndarray:
        """int64 (num_classes, num_classes): rows are the truth, columns what the run said."""
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        np.add.at(counts, (self.labels, self.scores.argmax(axis=1)), 1)
        return counts


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
    page = parts.page(
        title,
        summary=summary_sentence(runs, split),
        written=datetime.now(UTC),
        versions=[(run.name, run.versions) for run in runs],
        sections=sections,
        css=_static("report.css") + parts.toggle_css(len(names)),
        script=_static("report.js"),
    )
    return _write_beside(Path(output), page)


def read_runs(run_dirs: Sequence[Path], split: str) -> list[Run]:
    """Read run folders that can be compared. Raises `ReportError` when one cannot be read or compared."""
    if not run_dirs:
        raise ReportError("No run folders were given; a report needs at least one.")
    for run_dir in run_dirs:
        if not run_dir.is_dir():
            raise ReportError(f"No run folder at {str(run_dir)!r}. Give folders that `vsn train` wrote.")
    resolved = [run_dir.resolve() for run_dir in run_dirs]
    if len(set(resolved)) < len(resolved):
        raise ReportError(f"A run folder was given twice: {[str(d) for d in run_dirs]}. Give each once.")
    # Folders of one name (a/vsn, b/vsn) are told apart by their whole path.
    same = len({path.name for path in resolved}) < len(resolved)
    names = [str(given) if same else path.name for given, path in zip(run_dirs, resolved, strict=True)]
    recipes = [load_recipe(_existing(run_dir / "recipe.toml")) for run_dir in run_dirs]
    protocol = _shared_protocol(run_dirs, recipes, split)
    classes = _read_classes(run_dirs[0])
    runs = [
        _read_run(run_dir, name, recipe, classes=classes, stem=f"{split}-{protocol}")
        for run_dir, name, recipe in zip(run_dirs, names, recipes, strict=True)
    ]
    first_truth = dict(zip(runs[0].video_ids, runs[0].labels.tolist(), strict=True))
    for run, run_dir in zip(runs, run_dirs, strict=True):
        truth = dict(zip(run.video_ids, run.labels.tolist(), strict=True))
        if truth != first_truth:
            odd = sorted(v for v in truth.keys() | first_truth.keys() if truth.get(v) != first_truth.get(v))
            raise ReportError(
                f"{run_dirs[0]} and {run_dir} were tested on other videos or labels: {len(odd)} differ, "
                f"such as {odd[0]!r}. Evaluate both on the same data with `vsn eval`."
            )
    return runs


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


# ---------------------------------------------------------------- reading


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ReportError(f"{path} is missing. Is {path.parent} complete? `vsn train` and `vsn eval` write it.")
    return path


def _read_json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(_existing(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is not JSON: {error}. Write it again, or leave this run out.") from error
    if not isinstance(value, kind):
        raise ReportError(f"{path} holds a {type(value).__name__}; it must hold a {kind.__name__}.")
    return value


def _read_arrays(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(_existing(path), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(f"{path} is not a readable .npz file: {error}. Write it again.") from error
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise ReportError(f"{path} lacks {missing}; it holds {sorted(arrays)}. Write it again.")
    return arrays


def _read_classes(run_dir: Path) -> tuple[str, ...]:
    classes = tuple(str(name) for name in _read_json(run_dir / "classes.json", list))
    if len(set(classes)) < max(len(classes), 1):
        raise ReportError(f"{run_dir / 'classes.json'} must list at least one class, each name once.")
    return classes


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    epochs = []
    for number, line in enumerate(_existing(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            epochs.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ReportError(f"{path}, line {number}, is not JSON: {error}. Mend or delete that line.") from error
        if not isinstance(epochs[-1], dict) or "epoch" not in epochs[-1]:
            raise ReportError(f"{path}, line {number}, has no 'epoch'. Mend or delete that line.")
    if not epochs:
        raise ReportError(f"{path} holds no epoch. Train the run, or leave it out.")
    return epochs


def _shared_protocol(run_dirs: Sequence[Path], recipes: Sequence[Recipe], split: str) -> str:
    """A protocol every run was tested with, frames in order; the recipes' own where that is possible."""
    found = [
        {p for p in get_args(Protocol) if (d / "eval" / f"{split}-{p}-forward.json").is_file()} for d in run_dirs
    ]
    shared = set.intersection(*found)
    if not shared:
        has = "; ".join(f"{d}: {', '.join(sorted(f)) or 'none'}" for d, f in zip(run_dirs, found, strict=True))
        raise ReportError(
            f"No protocol in which every run was evaluated on split {split!r} ({has}). "
            "Run `vsn eval` with the same split and protocol for each."
        )
    wanted = {recipe.eval.protocol for recipe in recipes} & shared
    return sorted(wanted or shared)[-1]


def _by_name(names: Sequence[str], classes: tuple[str, ...], where: Path) -> np.ndarray:
    """Position in `names` of each of `classes`. Raises `ReportError` when the names differ."""
    odd = sorted(set(names) ^ set(classes))
    if odd or len(names) != len(classes):
        raise ReportError(
            f"{where} has {len(names)} classes that are not the {len(classes)} of the first run; "
            f"they differ in {odd[:3]}. Compare runs of one data set."
        )
    at = {name: index for index, name in enumerate(names)}
    return np.array([at[name] for name in classes])


def _read_eval(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = _read_json(path, dict)
    missing = [key for key in EVAL_KEYS if key not in values]
    if missing:
        raise ReportError(f"{path} lacks {missing}. Write it again with `vsn eval`.")
    return values


def _read_run(run_dir: Path, name: str, recipe: Recipe, *, classes: tuple[str, ...], stem: str) -> Run:
    _by_name(_read_classes(run_dir), classes, run_dir / "classes.json")
    folder = run_dir / "eval"
    found = {order: folder / f"{stem}-{order}.json" for order in get_args(FrameOrder)}
    evals = {order: _read_eval(path) for order, path in found.items() if path.is_file()}
    evals["forward"].setdefault("protocol", stem.rpartition("-")[2])
    path = folder / f"{stem}-forward.npz"
    arrays = _read_arrays(path, ("video_ids", "scores", "labels", "classes"))
    stored = [str(n) for n in arrays["classes"]]
    columns = _by_name(stored, classes, path)
    scores, labels = arrays["scores"], arrays["labels"].astype(np.int64)
    count = len(arrays["video_ids"])
    if scores.shape != (count, len(classes)) or labels.shape != (count,) or count == 0:
        raise ReportError(
            f"{path}: scores {scores.shape} and labels {labels.shape} do not fit {count} videos and "
            f"{len(classes)} classes. Write it again with `vsn eval`."
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ReportError(f"{path}: labels run from {labels.min()} to {labels.max()}; allowed: 0 to {len(classes) - 1}.")
    right = float((scores.argmax(axis=1) == labels).mean())
    # A stale pair of files would show a matrix that contradicts the table. A tie may fall either way.
    if abs(right - float(evals["forward"]["top1"])) > 1.5 / count:
        raise ReportError(
            f"{path} gives top-1 {right:.4f}, {path.with_suffix('.json').name} beside it says "
            f"{float(evals['forward']['top1']):.4f}. Write both again with `vsn eval`."
        )
    return Run(
        name=name,
        recipe=recipe,
        classes=classes,
        versions={str(k): str(v) for k, v in _read_json(run_dir / "versions.json", dict).items()},
        metrics=_read_metrics(run_dir / "metrics.jsonl"),
        evals=evals,
        video_ids=tuple(str(v) for v in arrays["video_ids"]),
        labels=np.argsort(columns)[labels],
        scores=scores[:, columns],
    )


# ---------------------------------------------------------------- sections


def _results(runs: Sequence[Run], split: str, protocol: str, table: Path | None) -> str:
    views = {"fcn": "the whole frame", "center": "one centre crop"}.get(protocol, protocol)
    note = f"Split {split}, protocol {protocol} ({views}), {len(runs[0].video_ids):,} videos."
    if table is None:
        return parts.data_table(*_run_table(runs), note=note)
    given = _read_json(Path(table), dict)
    columns, rows = given.get("columns"), given.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ReportError(f'{table} must be {{"columns": [names], "rows": [{{name: value}}]}}; it has {sorted(given)}.')
    return parts.data_table([str(c) for c in columns], rows, note=f"{note} The table is {Path(table).name}.")


def _run_table(runs: Sequence[Run]) -> tuple[list[str], list[Mapping[str, Any]]]:
    orders = [o for o in get_args(FrameOrder)[1:] if any(o in run.evals for run in runs)]
    columns = ["run", "model", "num_frames", "top1", "top5", "mean_class"]
    columns += [*(f"top1_{order}" for order in orders), "epochs", "seconds"]
    rows: list[Mapping[str, Any]] = []
    for run in runs:
        forward = run.evals["forward"]
        row = {"run": run.name, "model": run.recipe.model.name, "num_frames": run.recipe.model.num_frames}
        row |= {key: forward[key] for key in ("top1", "top1_interval", "top5", "mean_class")}
        row |= {f"top1_{order}": run.evals[order]["top1"] for order in orders if order in run.evals}
        row |= {"epochs": run.metrics[-1]["epoch"], "seconds": sum(float(m.get("seconds", 0)) for m in run.metrics)}
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
    return "\n".join(parts.confusion(run.name, run.confusion, run.classes, is_open=len(runs) <= 4) for run in runs)


def _videos(runs: Sequence[Run], path: Path) -> str:
    arrays = _read_arrays(path, ("frames", "video_ids", "labels"))
    frames, labels = arrays["frames"], arrays["labels"]
    count = len(arrays["video_ids"])
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or len(frames) != count:
        raise ReportError(
            f"{path}: frames are {frames.dtype} {frames.shape}; they must be uint8 (K, T, h, w, 3), K = {count}."
        )
    classes = runs[0].classes
    if "classes" in arrays:
        labels = np.argsort(_by_name([str(n) for n in arrays["classes"]], classes, path))[labels]
    cards = []
    for index, video_id in enumerate(str(v) for v in arrays["video_ids"]):
        verdicts = []
        for run in runs:
            if video_id not in run.video_ids:
                raise ReportError(f"{path}: {run.name} has no scores for {video_id!r}; show videos of its split.")
            row = run.video_ids.index(video_id)
            if run.labels[row] != labels[index]:
                raise ReportError(
                    f"{path}: label {labels[index]} of {video_id!r} is not the {run.labels[row]} "
                    f"({classes[run.labels[row]]!r}) of {run.name}. Number the labels as the first run does."
                )
            probabilities = softmax(run.scores[row])
            said = int(probabilities.argmax())
            verdicts.append((run.name, classes[said], float(probabilities[said]), said == labels[index]))
        cards.append(parts.strip_card(frames[index], video_id, truth=classes[int(labels[index])], verdicts=verdicts))
    return parts.strips(cards)


# ---------------------------------------------------------------- writing


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
