"""What a report reads: run folders, each checked, and all of them checked to be comparable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from zipfile import BadZipFile

import numpy as np

from vsn.config import FrameOrder, Protocol, Recipe
from vsn.recipes import load_recipe

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
        read = ~np.isnan(self.scores).any(axis=1)  # a video that could not be read was taken for nothing
        np.add.at(counts, (self.labels[read], self.scores[read].argmax(axis=1)), 1)
        return counts


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


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ReportError(
            f"{path} is missing. Is {path.parent} complete? `vsn train` and `vsn eval` write it."
        )
    return path


def read_json(path: Path, kind: type) -> Any:
    """A JSON file whose outermost value is a `kind`. Raises `ReportError` with the file's name."""
    try:
        value = json.loads(_existing(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is not JSON: {error}. Write it again, or leave this run out.") from error
    if not isinstance(value, kind):
        raise ReportError(f"{path} holds a {type(value).__name__}; it must hold a {kind.__name__}.")
    return value


def read_arrays(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """All arrays of an .npz file that must hold `keys`. Raises `ReportError` with the file's name."""
    try:
        # Opened here: np.load leaves the file open when it is not an archive.
        with _existing(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, EOFError, ValueError, BadZipFile) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(f"{path} is not a readable .npz file: {error}. Write it again.") from error
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise ReportError(f"{path} lacks {missing}; it holds {sorted(arrays)}. Write it again.")
    return arrays


def _read_classes(run_dir: Path) -> tuple[str, ...]:
    classes = tuple(str(name) for name in read_json(run_dir / "classes.json", list))
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
            raise ReportError(
                f"{path}, line {number}, is not JSON: {error}. Mend or delete that line."
            ) from error
        if not isinstance(epochs[-1], dict) or "epoch" not in epochs[-1]:
            raise ReportError(f"{path}, line {number}, has no 'epoch'. Mend or delete that line.")
    if not epochs:
        raise ReportError(f"{path} holds no epoch. Train the run, or leave it out.")
    return epochs


def _shared_protocol(run_dirs: Sequence[Path], recipes: Sequence[Recipe], split: str) -> str:
    """A protocol every run was tested with, frames in order; the recipes' own where that is possible."""
    found = [
        {p for p in get_args(Protocol) if (d / "eval" / f"{split}-{p}-forward.json").is_file()}
        for d in run_dirs
    ]
    shared = set.intersection(*found)
    if not shared:
        has = "; ".join(
            f"{d}: {', '.join(sorted(f)) or 'none'}" for d, f in zip(run_dirs, found, strict=True)
        )
        raise ReportError(
            f"No protocol in which every run was evaluated on split {split!r} ({has}). "
            "Run `vsn eval` with the same split and protocol for each."
        )
    wanted = {recipe.eval.protocol for recipe in recipes} & shared
    return sorted(wanted or shared)[-1]


def match_classes(names: Sequence[str], classes: tuple[str, ...], where: Path) -> np.ndarray:
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
    values: dict[str, Any] = read_json(path, dict)
    missing = [key for key in EVAL_KEYS if key not in values]
    if missing:
        raise ReportError(f"{path} lacks {missing}. Write it again with `vsn eval`.")
    return values


def _read_run(run_dir: Path, name: str, recipe: Recipe, *, classes: tuple[str, ...], stem: str) -> Run:
    match_classes(_read_classes(run_dir), classes, run_dir / "classes.json")
    folder = run_dir / "eval"
    found = {order: folder / f"{stem}-{order}.json" for order in get_args(FrameOrder)}
    evals = {order: _read_eval(path) for order, path in found.items() if path.is_file()}
    evals["forward"].setdefault("protocol", stem.rpartition("-")[2])
    path = folder / f"{stem}-forward.npz"
    arrays = read_arrays(path, ("video_ids", "scores", "labels", "classes"))
    stored = [str(n) for n in arrays["classes"]]
    columns = match_classes(stored, classes, path)
    scores, labels = arrays["scores"], arrays["labels"].astype(np.int64)
    count = len(arrays["video_ids"])
    if scores.shape != (count, len(classes)) or labels.shape != (count,) or count == 0:
        raise ReportError(
            f"{path}: scores {scores.shape} and labels {labels.shape} do not fit {count} videos and "
            f"{len(classes)} classes. Write it again with `vsn eval`."
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ReportError(
            f"{path}: labels run from {labels.min()} to {labels.max()}; allowed: 0 to {len(classes) - 1}. "
            "Evaluate on labelled videos."
        )
    # As the evaluation counts: a tie at the top is wrong. A stale pair of files would show a matrix that
    # contradicts the table.
    own = scores[np.arange(count), labels]
    right = float(((scores >= own[:, None]).sum(axis=1) == 1).mean())
    if abs(right - float(evals["forward"]["top1"])) > 0.5 / count:
        raise ReportError(
            f"{path} gives top-1 {right:.4f}, {path.with_suffix('.json').name} beside it says "
            f"{float(evals['forward']['top1']):.4f}. Write both again with `vsn eval`."
        )
    return Run(
        name=name,
        recipe=recipe,
        classes=classes,
        versions={str(k): str(v) for k, v in read_json(run_dir / "versions.json", dict).items()},
        metrics=_read_metrics(run_dir / "metrics.jsonl"),
        evals=evals,
        video_ids=tuple(str(v) for v in arrays["video_ids"]),
        labels=np.argsort(columns)[labels],
        scores=scores[:, columns],
    )
