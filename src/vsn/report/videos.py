"""Show videos as strips of their sampled frames, with what the runs predict for them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from markupsafe import Markup

from vsn.report.confusion import confused_pairs
from vsn.report.render import UNTESTED, Lacks, render
from vsn.report.runs import ReportError, ReportRun, check_classes
from vsn.runs.folds import OUT_OF_FOLD
from vsn.scores.labels import LabelIssue, find_label_issues
from vsn.scores.metrics import probabilities, softmax
from vsn.scores.scores import Scores, ScoresError
from vsn.system.npz import read_npz
from vsn.system.terminal import join_labels

Kind = Literal["best", "worst", "label", "behind"]
"""Behind: of a frequent mistake, shown where the page lists the videos of a cell of the matrix."""


MOSTLY_RIGHT = 0.5
"""Top-1 of a run below which its contradictions say more about the run than about the labels."""
MOST_JUDGED = 20_000
"""Videos up to which labels are judged where nobody asked for it by folds: 100,000 of 400 classes take half a minute."""
LABELS_SHOWN = 50
"""Videos of a run that the table of labels to look at lists."""


class Choice(NamedTuple):
    """One class that a run predicts for a video."""

    run: str
    label: str
    probability: float
    is_right: bool
    rank: int = 0
    """0: the first choice."""


class Strip(NamedTuple):
    """One video of the page."""

    video_id: str
    truth: str
    frames: np.ndarray | None
    """uint8 ``(T, h, w, 3)``; None if it could not be read."""
    choices: Sequence[Choice]
    heat: np.ndarray | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One of the best or worst videos, or one whose label may be wrong, as a run saw it."""

    video_id: str
    kind: Kind
    frames: np.ndarray | None
    """uint8 ``(T, h, w, 3)``; None if it could not be read."""
    heat: np.ndarray | None = None
    """The same frames with the Grad-CAM map of the predicted class as an overlay."""
    problem: str = ""
    """Why there are no frames, or no heat maps."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The best and worst videos of one run, or the reason why there are none."""

    run: str = ""
    """Its name in the report."""
    stage: str = ""
    """Features that the heat maps are of."""
    map_size: tuple[int, int] = (0, 0)
    """Height and width of a heat map before it was resized to the frame."""
    examples: tuple[Example, ...] = ()
    problem: str = ""


def choose_examples(scores: Scores, number: int) -> dict[Kind, list[int]]:
    """Return the rows of the ``number`` best and worst videos.

    Best: the most certain among correctly classified videos, by the probability of the prediction. Worst: the most certain
    among the others. No class comes twice while there are enough classes; the chosen ones are in order of certainty. With
    several labels a video is correct if its first choice is one of them.
    """
    # A video without scores or without a label is neither right nor wrong.
    rows: np.ndarray = np.flatnonzero(~scores.unreadable)
    if scores.multi_label:
        rows = rows[scores.labels[rows].any(axis=1)]
    scores = scores.take(rows)
    table, labels = probabilities(scores), scores.labels
    if scores.multi_label:
        classes = labels.argmax(axis=1)
        is_right = labels[np.arange(len(rows)), table.argmax(axis=1)]
    else:
        classes = labels
        is_right = table.argmax(axis=1) == labels
    ranked = np.argsort(-table.max(axis=1), kind="stable").tolist()
    best, worst = (
        set(_new_classes_first([i for i in ranked if is_right[i] == wanted], classes)[:number])
        for wanted in (True, False)
    )
    return {
        "best": [int(rows[i]) for i in ranked if i in best],
        "worst": [int(rows[i]) for i in ranked if i in worst],
    }


def _new_classes_first(ranked: Sequence[int], classes: np.ndarray) -> list[int]:
    """Move the first index of each class before all others: classes 0, 0, 1 of a, b, c give a, c, b."""
    first_of_class = {int(classes[index]): index for index in reversed(ranked)}
    first = set(first_of_class.values())
    # sorted is stable, so both groups stay ranked.
    return sorted(ranked, key=lambda index: index not in first)


def choose_behind(runs: Sequence[ReportRun], number: int) -> list[int]:
    """Return the rows of up to ``number`` videos of the most frequent mistakes of all runs, one of each pair of classes."""
    by_run = [_choose_mistakes(run, number) for run in runs]
    # In turn, so that the runs with few mistakes have theirs too.
    ranked = [row for rows in itertools.zip_longest(*by_run) for row in rows if row is not None]
    return list(dict.fromkeys(ranked))[:number]


def _choose_mistakes(run: ReportRun, number: int) -> list[int]:
    if run.scores is None or run.is_multi_label:
        return []
    logits, readable = run.scores.logits, ~run.scores.unreadable
    predicted = np.where(readable, logits.argmax(axis=1), -1)
    chosen = []
    for true, wrong in confused_pairs(run.confusion, number):
        rows = np.flatnonzero((run.scores.labels == true) & (predicted == wrong))
        chosen.append(int(rows[softmax(logits[rows])[:, wrong].argmax()]))
    return chosen


def behind_strips(runs: Sequence[ReportRun], examples: Examples | None) -> list[Strip]:
    """The videos that only the script shows, beside the cells of the matrix."""
    if examples is None:
        return []
    return [
        _example_strip(run, runs, one)
        for run in runs
        if run.name == examples.run
        for one in examples.examples
        if one.kind == "behind"
    ]


def examples_section(runs: Sequence[ReportRun], examples: Examples | None) -> Markup | Lacks:
    """The best and worst videos with heat maps, or why there are none."""
    again = ["vsn", "report", *(str(run.path) for run in runs)]
    if examples is None:
        return Lacks("This page was written from the run folders only, without opening videos.", [again])
    if not examples.examples:
        if not examples.problem:
            return UNTESTED
        return Lacks(examples.problem, [[*again, "--root", "FOLDER"]])
    strips: dict[Kind, list[Strip]] = {"best": [], "worst": [], "label": [], "behind": []}
    run = next(run for run in runs if run.name == examples.run)
    for example in examples.examples:
        strips[example.kind].append(_example_strip(run, runs, example))
    return render(
        "examples.html",
        examples=examples,
        has_heat=any(one.heat is not None for one in examples.examples),
        problem=examples.problem,
        groups=[("Most certain when right", strips["best"]), ("Most certain when wrong", strips["worst"])],
    )


def labels_section(runs: Sequence[ReportRun], examples: Examples | None) -> Markup | Lacks:
    """The videos of `label_judges` whose labels may be wrong, with the strips of those that `examples` shows."""
    tables: list[tuple[ReportRun, list[LabelIssue], str]] = []
    for run in label_judges(runs):
        assert run.scores is not None
        try:
            tables.append((run, find_label_issues(run.scores), ""))
        except ScoresError as error:
            tables.append((run, [], str(error)))
    if not any(issues for _, issues, _ in tables):
        problems = dict.fromkeys(problem for *_, problem in tables if problem)
        return Lacks(" ".join(problems) or "No run contradicts a label clearly.")
    strips = []
    if examples is not None and examples.run in {run.name for run, *_ in tables}:
        shown = next(run for run, *_ in tables if run.name == examples.run)
        strips = [_example_strip(shown, runs, one) for one in examples.examples if one.kind == "label"]
    return render("labels.html", tables=tables, limit=LABELS_SHOWN, strips=strips)


def label_judges(runs: Sequence[ReportRun]) -> list[ReportRun]:
    """Return the runs that may contradict labels: scores of videos that they were not trained on, and mostly right.

    Out-of-fold scores judge all videos; without them the best run judges those it was tested on.
    """
    able = [
        run
        for run in runs
        if run.scores is not None and not run.is_multi_label and not run.results["forward"].num_trained
    ]
    if folds := [run for run in able if run.split == OUT_OF_FOLD]:
        return folds
    best = max(able, key=lambda run: run.top1, default=None)
    if best is None or best.top1 < MOSTLY_RIGHT or len(best.scores.video_ids if best.scores else ()) > MOST_JUDGED:
        return []
    return [best]


def _example_strip(run: ReportRun, runs: Sequence[ReportRun], example: Example) -> Strip:
    assert run.scores is not None
    row = int(np.flatnonzero(run.scores.video_ids == example.video_id)[0])
    choices = _choices(run, row, 3)
    for other in runs:
        # The same row in all runs: `read_runs` has brought the videos into one order.
        if other is not run and other.scores is not None and not other.scores.unreadable[row]:
            choices += _choices(other, row, 1)
    truth = join_labels([run.classes[label] for label in _labels(run.scores, row)])
    return Strip(example.video_id, truth, example.frames, choices, example.heat, example.problem)


def _choices(run: ReportRun, row: int, number: int) -> list[Choice]:
    """The most probable classes of one video; only the first names the run."""
    assert run.scores is not None
    values = probabilities(run.scores.take(np.array([row])))[0]
    labels = _labels(run.scores, row)
    return [
        Choice("" if rank else run.name, run.classes[c], float(values[c]), c in labels, rank)
        for rank, c in enumerate(np.argsort(-values, kind="stable")[:number].tolist())
    ]


def _labels(scores: Scores, row: int) -> list[int]:
    label = scores.labels[row]
    return np.flatnonzero(label).tolist() if scores.multi_label else [int(label)]


def strips_section(runs: Sequence[ReportRun], path: Path) -> Markup:
    """The videos of an .npz file, with the first choice of each run."""
    frames, video_ids, labels = _read_strips(path, runs[0].classes)
    strips = []
    for clip, video_id, label in zip(frames, video_ids, labels, strict=True):
        choices = []
        for run in runs:
            if run.scores is None:
                continue
            rows = np.flatnonzero(run.scores.video_ids == video_id)
            if not len(rows):
                raise ReportError(f"{path}: {run.name} has no scores for {video_id!r}. Show videos of its split.")
            true = _labels(run.scores, int(rows[0]))
            # Labels of another numbering would put the wrong class above a video.
            if label not in true:
                raise ReportError(
                    f"{path}: label {label} of {video_id!r} is not the {true[0]} ({run.classes[true[0]]!r}) of {run.name}. "
                    "Number the labels as the first run does, or store `classes` with them."
                )
            choices += _choices(run, int(rows[0]), 1)
        strips.append(Strip(video_id, runs[0].classes[label], clip, choices))
    return render("strips.html", strips=strips)


def _read_strips(path: Path, classes: tuple[str, ...]) -> tuple[np.ndarray, list[str], list[int]]:
    """Read frames, video ids and labels; labels are indices into ``classes``."""
    keys = ("frames", "video_ids", "labels")
    arrays = read_npz(path, keys, kind="video strips", command="vsn demo", error_type=ReportError)
    frames, labels, video_ids = arrays["frames"], arrays["labels"], [str(v) for v in arrays["video_ids"]]
    count = len(video_ids)
    is_rgb = frames.dtype == np.uint8 and frames.ndim == 5 and frames.shape[-1] == 3
    if not is_rgb or len(frames) != count or labels.shape != (count,):
        raise ReportError(
            f"{path}: frames are {frames.dtype} {frames.shape} for {count} videos and {labels.size} labels; "
            "they must be uint8 (K, T, h, w, 3) for K videos and K labels."
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ReportError(f"{path}: labels run to {labels.max()}; allowed: 0 to {len(classes) - 1}.")
    if "classes" in arrays:
        names = [str(name) for name in arrays["classes"]]
        check_classes(names, classes, path)
        # file's index -> name -> index in the report
        labels = np.array([classes.index(name) for name in names])[labels]
    return frames, video_ids, labels.tolist()
