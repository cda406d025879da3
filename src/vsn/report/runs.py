"""Read the run folders of a report, and check that they can be compared.

A run needs its recipe and class names. Curves and results may be missing, and the page says so; files that exist
must be complete.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vsn.runs.results import EvalResult, choose_test, list_results
from vsn.runs.run import Run, WeightsKind, open_run, read_metrics
from vsn.scores.match import match_scores, reorder_scores
from vsn.scores.metrics import has_top5, top_k_hits
from vsn.scores.reliance import ORDERS
from vsn.scores.scores import Scores, load_scores


class ReportError(ValueError):
    """A report that cannot be written; the message says what is wrong, in which file, and what to do."""


@dataclass(frozen=True, kw_only=True)
class ReportRun(Run):
    """A run with what its report shows: metrics, and the results of one split and one protocol.

    ``classes`` is in the order of the report's first run.
    """

    name: str
    split: str
    protocol: str
    versions: dict[str, str] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    """As in metrics.jsonl: one dict per epoch, and one per validation within an epoch."""
    weights: WeightsKind = "last"
    """Which weights `results` and `scores` are of: the last, or the best if only those were tested."""
    results: dict[str, EvalResult] = field(default_factory=dict)
    """By order of frames; empty, or at least "forward"."""
    outdated: tuple[WeightsKind, ...] = ()
    """The weights whose results were left out, because they have changed since."""
    best: EvalResult | None = None
    """The result of the best weights with frames forward, when `results` are of the last."""
    scores: Scores | None = None
    """With frames forward; videos and classes in the report's order."""

    @property
    def top1(self) -> float:
        """Top-1 with frames forward, a share of 1; -1 without a result, so that untested runs sort last."""
        top1 = self.results["forward"].top1 if self.results else None
        return -1.0 if top1 is None else top1

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of `top1`."""
        interval = self.results["forward"].top1_interval
        assert interval is not None, "checked by read_runs"
        return interval

    @property
    def is_multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.scores is not None and self.scores.multi_label

    @property
    def confusion(self) -> np.ndarray:
        """int64 ``(num_classes, num_classes)``: rows are true classes, columns predicted ones."""
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        if self.scores is not None and not self.is_multi_label:
            readable = ~self.scores.unreadable  # an unreadable video has no prediction, so it is in no column
            np.add.at(counts, (self.scores.labels[readable], self.scores.logits[readable].argmax(axis=1)), 1)
        return counts

    def eval_command(self, *arguments: str, split: str = "", weights: WeightsKind = "last") -> list[str]:
        """Return the command that tests this run as the report's other figures were, or on another split."""
        best = ["--weights", "best"] if weights == "best" else []
        command = ["vsn", "eval", str(self.path), "--split", split or self.split, "--protocol", self.protocol]
        return [*command, *arguments, *best]


def read_runs(run_dirs: Sequence[Path], split: str | None = None) -> list[ReportRun]:
    """Read run folders that can be compared.

    Args:
        run_dirs: one or more folders.
        split: the split whose results are shown; default the one that most runs were tested on, with the recipes'
            own preferred.

    Raises:
        RunError, ResultError, ScoresError: a folder or a file of it cannot be read.
        ReportError: the runs have different classes or videos.
    """
    if not run_dirs:
        raise ReportError("Expected one run folder or more, got none.")
    run_dirs = [Path(run_dir) for run_dir in run_dirs]
    # Resolved, so that runs/vsn and ./runs/vsn are the same run.
    resolved = [run_dir.resolve() for run_dir in run_dirs]
    if len(set(resolved)) < len(resolved):
        raise ReportError(f"A run folder was given twice: {[str(d) for d in run_dirs]}. Give each once.")
    # Folders with the same name (a/vsn and b/vsn) are shown by their path.
    has_same_names = len({path.name for path in resolved}) < len(resolved)
    names = [str(given) if has_same_names else path.name for given, path in zip(run_dirs, resolved, strict=True)]
    opened = [open_run(run_dir) for run_dir in run_dirs]
    # A result without a label is of `vsn submit`: there is nothing to report about it.
    results = [[result for result in list_results(run_dir) if result.is_measured] for run_dir in run_dirs]
    first = opened[0].recipe
    default = split or first.data.test_split, first.eval.protocol
    chosen = choose_test(results, [run.recipe for run in opened], split=split) or default
    classes = opened[0].classes
    runs = [
        _read_run(run, name, classes=classes, chosen=chosen, results=run_results)
        for run, name, run_results in zip(opened, names, results, strict=True)
    ]
    # Differences between runs are meaningful only on the same videos, in one order.
    tested = [(index, run.scores, str(run.path)) for index, run in enumerate(runs) if run.scores is not None]
    if len(tested) > 1:
        indices, scores, paths = zip(*tested, strict=True)
        for index, matched in zip(indices, match_scores(scores, paths)[0], strict=True):
            runs[index] = replace(runs[index], scores=matched)
    return runs


def _read_run(
    run: Run, name: str, *, classes: tuple[str, ...], chosen: tuple[str, str], results: Sequence[EvalResult]
) -> ReportRun:
    check_classes(run.classes, classes, run.path / "classes.json")
    versions = run.path / "versions.json"
    of_test = [result for result in results if (result.split, result.protocol) == chosen]
    fresh = [result for result in of_test if not result.is_stale]
    # One average and one data set: the recipe's, or the first other one that was tested.
    variant = min((result.variant for result in fresh if result.order == "forward"), default="")
    shown = {(r.weights, r.order): r for r in fresh if r.variant == variant}
    # The last weights are the usual result; the best ones are shown only if nothing else was tested.
    weights: WeightsKind = "last" if ("last", "forward") in shown else "best"
    report_run = ReportRun(
        path=run.path,
        recipe=run.recipe,
        classes=classes,
        name=name,
        split=chosen[0],
        protocol=chosen[1],
        versions={k: str(v) for k, v in read_json(versions).items()} if versions.is_file() else {},
        metrics=read_metrics(run.path),
        outdated=tuple(sorted({result.weights for result in of_test if result not in fresh})),
    )
    if (weights, "forward") not in shown:
        return report_run
    # Files of early versions may lack measures, and half a table would mislead.
    for result in shown.values():
        measures = {
            "num_videos": result.num_videos or None,
            "top1_interval": result.top1_interval,
            "top5": result.top5 if has_top5(len(classes)) else "not shown",
            "per_class": result.per_class or None,
            "mean_class": result.mean,
        }
        if missing := [key for key, value in measures.items() if value is None]:
            raise ReportError(f"{result.path} lacks {', '.join(missing)}. Run `vsn eval` again.")
    best = shown.get(("best", "forward")) if weights == "last" else None
    tested = shown[weights, "forward"]
    if best is not None and best.videos_hash and tested.videos_hash and best.videos_hash != tested.videos_hash:
        raise ReportError(
            f"{best.path} is of other videos or labels than {tested.path}: the split has changed in between. Run `vsn eval "
            "--weights best` again."
        )
    report_run = replace(
        report_run,
        weights=weights,
        results={order: shown[weights, order] for order in ORDERS if (weights, order) in shown},
        best=best,
    )
    return replace(report_run, scores=read_scores(report_run, "forward"))


def read_scores(run: ReportRun, order: str) -> Scores:
    """Read the scores of an order of frames, with classes in the report's order.

    Raises:
        ReportError: different classes, or another top-1 than the result file has.
        ScoresError: the file is missing or damaged, or a video has no label.
    """
    result = run.results[order]
    scores = load_scores(result.scores_file)
    check_classes(scores.classes, run.classes, result.scores_file)
    # A run may number its classes differently, for example after its data was read by another reader.
    scores = reorder_scores(scores, scores.video_ids.tolist(), run.classes)
    # Files from two different evaluations would show a matrix that contradicts the table.
    top1 = float(top_k_hits(scores, 1).mean())
    assert result.top1 is not None
    if abs(top1 - result.top1) > 0.5 / len(scores.video_ids):
        raise ReportError(
            f"{result.scores_file} gives top-1 {top1:.4f}, but {result.path} says {result.top1:.4f}. Run `vsn eval` again."
        )
    return scores


def check_classes(names: Sequence[str], classes: Sequence[str], file: Path) -> None:
    """Raise `ReportError` unless two lists have the same class names, in any order."""
    if sorted(names) != sorted(classes):
        different = sorted(set(names) ^ set(classes))
        raise ReportError(
            f"{file} has {len(names)} classes, the first run {len(classes)}; they differ in {different[:3]}. Compare runs "
            "of one data set."
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `ReportError` with the file's name."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise ReportError(f"{path} holds a {type(value).__name__}; it must hold an object.")
    return value
