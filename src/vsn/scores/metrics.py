"""Compute top-k accuracy, mean-class accuracy and average precision from saved scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsn.scores.intervals import Interval, share_interval
from vsn.scores.scores import Scores, ScoresError

UNREADABLE = "(unreadable)"
"""Reported in place of a predicted class for a video that could not be read."""

MeanName = Literal["mean_class", "mean_average_precision"]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return probabilities over the last axis, computed in float64."""
    # Subtracting the maximum does not change the result and keeps exp from overflowing.
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    return weights / weights.sum(axis=-1, keepdims=True)


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return log-probabilities over the last axis, without underflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return an independent probability per class, computed in float64."""
    # By tanh: exp(-x) overflows for strongly negative logits.
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def probabilities(scores: Scores) -> NDArray[np.float64]:
    """Return ``(N, num_classes)`` probabilities: softmax, or sigmoid for multi-label scores."""
    return sigmoid(scores.logits) if scores.multi_label else softmax(scores.logits)


def predicted_classes(scores: Scores) -> list[str]:
    """Return the top class name of each video; `UNREADABLE` for a video that could not be read."""
    # argmax returns the first NaN, so unreadable videos are replaced by name.
    best = scores.logits.argmax(axis=1)
    return [
        UNREADABLE if unreadable else scores.classes[index]
        for index, unreadable in zip(best, scores.unreadable, strict=True)
    ]


def require_labels(scores: Scores, what: str) -> None:
    """Raise `ScoresError` unless there are videos and all have the label that ``what`` needs."""
    if len(scores.video_ids) == 0:
        raise ScoresError(f"The scores hold 0 videos; {what} needs at least one.")
    if scores.num_unlabeled:
        example = scores.video_ids[0 if scores.multi_label else scores.labels.argmin()]
        raise ScoresError(
            f"{scores.num_unlabeled} of {len(scores.labels)} videos have no label, for example "
            f"{str(example)!r}; {what} needs labels for all videos."
        )


def top_k_hits(scores: Scores, k: int) -> NDArray[np.bool_]:
    """Return ``(N,)`` bool: whether the label is among the k highest scores.

    Ties count as wrong, so that a model with constant scores gets 0 and not 1. A multi-label video is a hit
    if any of its labels is; one without labels is wrong. Raises `ScoresError` for an unknown label.
    """
    require_labels(scores, "top-k accuracy")
    if scores.multi_label:
        label_scores = np.where(scores.labels, scores.logits, -np.inf).max(axis=1)
    else:
        label_scores = scores.logits[np.arange(len(scores.labels)), scores.labels]
    # "Not below" instead of "at least": NaN compares false to everything, so an unreadable video ties with
    # all classes and is wrong. The label's own score is one of those counted, hence -1.
    num_not_below = (~(scores.logits < label_scores[:, None])).sum(axis=1) - 1
    return num_not_below < k


def average_precisions(scores: Scores) -> dict[str, float]:
    """Return the average precision of each class that has videos, by name, of multi-label scores.

    This is the mean, over the videos with the label, of the precision among videos scored at least as high.
    Unreadable videos (NaN) rank last.
    """
    if not scores.multi_label:
        raise ValueError("Average precision needs multi-label scores; these have one label per video.")
    by_class = {}
    for index, name in enumerate(scores.classes):
        class_scores = np.nan_to_num(scores.logits[:, index].astype(np.float64), nan=-np.inf)
        positive = scores.labels[:, index]
        if not positive.any():
            continue
        order = np.argsort(-class_scores, kind="stable")
        ranked, values = positive[order], class_scores[order]
        hits = np.cumsum(ranked.astype(np.int64))
        # Tied videos have no order among them, so all get the precision at the last of the tie:
        # scores 3, 1, 1 with positives at ranks 1 and 2 give precisions 1/1 and 2/3, not 2/2.
        last = np.searchsorted(-values, -values, side="right") - 1
        by_class[name] = float((hits[last] / (last + 1))[ranked].mean())
    return by_class


def per_class_accuracy(scores: Scores) -> dict[str, float]:
    """Return the top-1 accuracy of each class that has videos, by name; one label per video."""
    hits = top_k_hits(scores, 1)
    return {
        name: float(hits[scores.labels == index].mean())
        for index, name in enumerate(scores.classes)
        if (scores.labels == index).any()
    }


def per_class_intervals(scores: Scores) -> dict[str, Interval]:
    """Return the 95% interval of the top-1 accuracy of each class that has videos, by name."""
    hits, groups = top_k_hits(scores, 1), np.array(scores.groups)
    members = {name: scores.members(index) for index, name in enumerate(scores.classes)}
    return {name: share_interval(hits[own], groups=groups[own].tolist()) for name, own in members.items() if own.any()}


class GroupAccuracy(NamedTuple):
    """Top-1 on the videos of one group, such as a person."""

    group: str
    num_videos: int
    top1: float
    """A share of 1."""


def accuracy_by_group(scores: Scores) -> list[GroupAccuracy]:
    """Return the top-1 accuracy of each stated group, lowest first; nothing where no groups are stated."""
    if scores.stated_groups is None:
        return []
    hits = top_k_hits(scores, 1)
    names, index = np.unique(scores.stated_groups, return_inverse=True)
    sizes, right = np.bincount(index), np.bincount(index, hits)
    rows = zip(names.tolist(), sizes.tolist(), (right / sizes).tolist(), strict=True)
    return sorted((GroupAccuracy(*row) for row in rows), key=lambda row: (row.top1, row.group))


def has_top5(num_classes: int) -> bool:
    """Return whether top-5 says anything: of five classes or fewer every label is among five predictions."""
    return num_classes > 5


@dataclass(frozen=True)
class Summary:
    """Accuracy over a set of videos, as shares of 1."""

    num_videos: int
    top1: float
    """Of multi-label videos: a hit on any label."""
    top1_interval: Interval
    """95% interval."""
    top5: float | None
    """None with five classes or fewer, of which it would always be 1."""
    mean_name: MeanName
    """Mean over classes of top-1; of average precision for multi-label videos."""
    mean: float
    per_class: dict[str, float]
    """Accuracy, or average precision, of each class that has videos."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, with the mean under its name."""
        return {
            "num_videos": self.num_videos,
            "top1": self.top1,
            "top1_interval": list(self.top1_interval),
            **({} if self.top5 is None else {"top5": self.top5}),
            self.mean_name: self.mean,
            "per_class": self.per_class,
        }


def summarize(scores: Scores) -> Summary:
    """Compute top-1 with its interval, top-5, and mean and per-class accuracy (multi-label: average precision).

    Raises `ScoresError` for an unknown label, or when no video has a label.
    """
    # Classes without videos have no accuracy and are left out of the mean.
    hits = top_k_hits(scores, 1)
    # Per class first, then the mean, so that rare classes count as much as frequent ones.
    per_class = average_precisions(scores) if scores.multi_label else per_class_accuracy(scores)
    return Summary(
        num_videos=len(hits),
        top1=float(hits.mean()),
        top1_interval=share_interval(hits, groups=scores.groups),
        top5=float(top_k_hits(scores, 5).mean()) if has_top5(len(scores.classes)) else None,
        mean_name="mean_average_precision" if scores.multi_label else "mean_class",
        mean=float(np.mean(list(per_class.values()))),
        per_class=per_class,
    )
