"""What a report reads: run folders, each checked, and all of them checked to be comparable.

A run needs its recipe and its class names. Curves and evaluations may be missing, and the page says so;
files that are there must be whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import numpy as np

from vsn.config import FrameOrder, Recipe
from vsn.config.recipes import load_recipe
from vsn.scores.metrics import top_k_hits
from vsn.scores.scores import Scores, load_scores

EVAL_KEYS = ("split", "protocol", "order", "num_videos", "top1", "top1_interval", "top5", "per_class")
MEANS = ("mean_class", "mean_average_precision")
ORDERS: tuple[str, ...] = get_args(FrameOrder)


class ReportError(ValueError):
    """A report that cannot be written; the message says what is wrong, in which file, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a report reads of one run folder, for one split and one protocol."""

    name: str
    path: Path
    recipe: Recipe
    classes: tuple[str, ...]
    """Names in the report's order, the same for all runs."""
    split: str
    protocol: str
    versions: dict[str, str] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """As in metrics.jsonl: one dict an epoch, and one a validation within an epoch."""
    weights: Literal["last", "best"] = "last"
    """Which weights `evals` and `scores` are of: the last, or the best where only those were tested."""
    evals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Frame order -> what its evaluation wrote; "forward" is there, or none is."""
    best: dict[str, Any] | None = None
    """The evaluation of the best weights, frames forward, beside that of the last."""
    scores: Scores | None = None
    """Of the forward order; videos and classes in the report's order."""

    @property
    def top1(self) -> float:
        """Share of videos named rightly, frames in their order; -1 without an evaluation."""
        return float(self.evals["forward"]["top1"]) if self.evals else -1.0

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of `top1`."""
        low, high = self.evals["forward"]["top1_interval"]
        return float(low), float(high)

    @property
    def confusion(self) -> np.ndarray:
        """int64 (num_classes, num_classes): rows are the truth, columns what the run said."""
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        if self.scores is not None and not self.scores.multi_label:
            read = ~self.scores.unreadable  # a video that could not be read was taken for nothing
            np.add.at(counts, (self.scores.labels[read], self.scores.logits[read].argmax(axis=1)), 1)
        return counts

    def scores_file(self, order: str) -> Path:
        """The file of scores of an order of the frames."""
        suffix = "-best" if self.weights == "best" else ""
        return self.path / "eval" / f"{self.split}-{self.protocol}-{order}{suffix}.npz"

    def eval_command(self, *arguments: str) -> list[str]:
        """The command that tests this run as the report's other figures were."""
        return ["vsn", "eval", str(self.path), "--split", self.split, "--protocol", self.protocol, *arguments]


def read_runs(run_dirs: Sequence[Path], split: str | None = None) -> list[Run]:
    """Read run folders that can be compared.

    Args:
        run_dirs: one or more folders.
        split: whose results; default the one that most runs were tested on, the recipes' own if it can be.

    Raises:
        ReportError: a folder cannot be read, or the runs have other classes or other videos.
        ScoresError: a file of scores is damaged or foreign.
    """
    if not run_dirs:
        raise ReportError("No run folders were given; a report needs at least one.")
    run_dirs = [Path(run_dir) for run_dir in run_dirs]
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
    found = [_read_evals(run_dir) for run_dir in run_dirs]
    chosen = _choose(found, recipes, split)
    classes = _read_classes(run_dirs[0])
    runs = [
        _read_run(run_dir, name, recipe, classes=classes, chosen=chosen, found=evals)
        for run_dir, name, recipe, evals in zip(run_dirs, names, recipes, found, strict=True)
    ]
    _check_same_videos(runs)
    return runs


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


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ReportError(f"{path} is missing. Is {path.parent} complete? `vsn train` and `vsn eval` write it.")
    return path


def _read_classes(run_dir: Path) -> tuple[str, ...]:
    classes = tuple(str(name) for name in read_json(run_dir / "classes.json", list))
    if len(set(classes)) < max(len(classes), 1):
        raise ReportError(f"{run_dir / 'classes.json'} must list at least one class, each name once.")
    return classes


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    epochs: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            epochs.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ReportError(f"{path}, line {number}, is not JSON: {error}. Mend or delete that line.") from error
        if not isinstance(epochs[-1], dict) or "epoch" not in epochs[-1]:
            raise ReportError(f"{path}, line {number}, has no 'epoch'. Mend or delete that line.")
    return epochs


Found = dict[tuple[str, str], dict[tuple[str, str], dict[str, Any]]]
"""(split, protocol) -> (weights, order) -> what an evaluation wrote."""


def _read_evals(run_dir: Path) -> Found:
    found: Found = {}
    for path in sorted((run_dir / "eval").glob("*.json")):
        best = path.stem.endswith("-best")
        if path.stem.removesuffix("-best").rpartition("-")[2] not in ORDERS:
            continue  # a calibration, say
        values: dict[str, Any] = read_json(path, dict)
        if values.get("num_unlabeled", 0) == values.get("num_videos", -1):
            continue  # a split without labels, scored for `vsn submit`
        lacks = [key for key in EVAL_KEYS if key not in values]
        if lacks or not any(mean in values for mean in MEANS):
            raise ReportError(f"{path} lacks {lacks or MEANS[0]}. Write it again with `vsn eval`.")
        kind = ("best" if best else "last", str(values["order"]))
        found.setdefault((str(values["split"]), str(values["protocol"])), {})[kind] = values
    return found


def _choose(found: Sequence[Found], recipes: Sequence[Recipe], split: str | None) -> tuple[str, str]:
    """The split and protocol that most runs were tested on, frames in order; the recipes' own where it can be."""

    def worth(key: tuple[str, str]) -> tuple[int, bool, bool, tuple[str, str]]:
        runs = sum(any(order == "forward" for _, order in one.get(key, {})) for one in found)
        own = [recipe.data.test_split == key[0] for recipe in recipes]
        usual = [recipe.eval.protocol == key[1] for recipe in recipes]
        return runs, any(own), any(usual), key

    keys = {key for one in found for key in one if split in (None, key[0])}
    keys = {key for key in keys if worth(key)[0]}
    if not keys:
        return split or recipes[0].data.test_split, recipes[0].eval.protocol
    return max(keys, key=worth)


def _read_run(
    run_dir: Path,
    name: str,
    recipe: Recipe,
    *,
    classes: tuple[str, ...],
    chosen: tuple[str, str],
    found: Found,
) -> Run:
    match_classes(_read_classes(run_dir), classes, run_dir / "classes.json")
    versions = run_dir / "versions.json"
    here = found.get(chosen, {})
    weights: Literal["last", "best"] = "last" if ("last", "forward") in here else "best"
    run = Run(
        name=name,
        path=run_dir,
        recipe=recipe,
        classes=classes,
        split=chosen[0],
        protocol=chosen[1],
        versions={str(k): str(v) for k, v in read_json(versions, dict).items()} if versions.is_file() else {},
        metrics=_read_metrics(run_dir / "metrics.jsonl"),
    )
    if (weights, "forward") not in here:
        return run
    evals = {order: here[weights, order] for order in ORDERS if (weights, order) in here}
    run = replace(run, weights=weights, evals=evals, best=here.get(("best", "forward")) if weights == "last" else None)
    return replace(run, scores=read_scores(run, "forward"))


def read_scores(run: Run, order: str) -> Scores:
    """The scores of an order of the frames, classes in the report's order, agreeing with the figures beside them.

    Raises:
        ReportError: other classes, no labels, or other figures than the JSON file beside it says.
        ScoresError: damaged or foreign.
    """
    path = run.scores_file(order)
    scores = load_scores(_existing(path))
    columns = match_classes(scores.classes, run.classes, path)
    labels = scores.labels[:, columns] if scores.multi_label else np.append(np.argsort(columns), -1)[scores.labels]
    if not len(labels) or scores.num_unlabeled:
        raise ReportError(
            f"{path} holds {len(labels)} videos, {scores.num_unlabeled} of them without a label. Evaluate on "
            "labeled videos with `vsn eval`."
        )
    scores = Scores(scores.video_ids, scores.logits[:, columns], labels, run.classes, scores.kind, scores.facts)
    # A stale pair of files would show a matrix that contradicts the table.
    right, said = float(top_k_hits(scores, 1).mean()), float(run.evals[order]["top1"])
    if abs(right - said) > 0.5 / len(labels):
        raise ReportError(
            f"{path} gives top-1 {right:.4f}, {path.with_suffix('.json').name} beside it says {said:.4f}. Write both "
            "again with `vsn eval`."
        )
    return scores


def _check_same_videos(runs: list[Run]) -> None:
    """Raise `ReportError` unless all runs were tested on the same videos and labels; bring them into one order."""
    tested = [(at, run, run.scores) for at, run in enumerate(runs) if run.scores is not None]
    if not tested:
        return
    _, first, reference = tested[0]
    truth = _truth(reference)
    for at, run, scores in tested[1:]:
        other = _truth(scores)
        if other != truth:
            odd = sorted(v for v in other.keys() | truth.keys() if other.get(v) != truth.get(v))
            raise ReportError(
                f"{first.path} and {run.path} were tested on other videos or labels: {len(odd)} differ, "
                f"such as {odd[0]!r}. Evaluate both on the same data with `vsn eval`."
            )
        row = {video: index for index, video in enumerate(scores.video_ids.tolist())}
        rows = np.array([row[video] for video in reference.video_ids.tolist()])
        runs[at] = replace(run, scores=scores.take(rows))


def _truth(scores: Scores) -> dict[str, Any]:
    labels = [tuple(row) if scores.multi_label else row for row in scores.labels.tolist()]
    return dict(zip(scores.video_ids.tolist(), labels, strict=True))
