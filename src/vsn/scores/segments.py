"""Compare predicted segments of videos with true ones: mean average precision, edit score, accuracy over time.

Arrays and numbers only: no video is read. Sources: the evaluation of ActivityNet (Caba Heilbron et al., 2015) for the mean
average precision, Lea et al. (2016) for the edit score.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from vsn.system.numbers import percent

IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Thresholds of intersection over union, as THUMOS reports them."""


@dataclass(frozen=True)
class Segment:
    """An interval of a video with one label; times in seconds."""

    start: float
    end: float
    label: str
    """A class name, never "unknown" or "background"."""
    score: float | None = None
    """Mean smoothed probability of the label over its predictions; None in ground truth."""

    def iou(self, other: Segment) -> float:
        """Return the intersection over the union of two intervals, 0 to 1; labels do not matter.

        >>> Segment(0, 4, "a").iou(Segment(2, 6, "b"))
        0.3333333333333333
        """
        shared = min(self.end, other.end) - max(self.start, other.start)
        return max(0.0, shared) / (self.end - self.start + other.end - other.start - max(0.0, shared))


class LabeledVideo(NamedTuple):
    """Predicted and true segments of a video."""

    predicted: Sequence[Segment]
    truth: Sequence[Segment]
    seconds: float
    """At which the video ends."""
    begins: float = 0.0
    """Seconds at which its picture begins."""


@dataclass(frozen=True)
class SegmentScores:
    """How well predicted segments agree with true ones; shares are 0 to 1."""

    mean_average_precision: dict[str, float]
    """Over the classes of the truth, by intersection over union: {"0.1": ..., "0.7": ...}."""
    edit: float
    """Mean over videos of 1 - the edit distance of the sequences of labels, over the longer one's length."""
    time_accuracy: float
    """Share of the seconds with the right label, which is none where no segment is true: the accuracy of frames."""
    share_right: float
    """Share of the seconds of the true segments with their label."""
    num_true: int
    num_predicted: int

    @property
    def mean(self) -> float:
        """The mean average precision, averaged over the thresholds."""
        return math.fsum(self.mean_average_precision.values()) / len(self.mean_average_precision)

    def to_json(self) -> dict[str, Any]:
        """Return the values, with their mean."""
        return {**asdict(self), "mean": self.mean}

    def __str__(self) -> str:
        """Return two lines for users."""
        maps = ", ".join(f"{percent(value)} at {iou}" for iou, value in self.mean_average_precision.items())
        return (
            f"Segment mAP {percent(self.mean)} ({maps} IoU), edit score {percent(self.edit)}, {self.num_predicted} segments "
            f"for {self.num_true} true ones.\n"
            f"Right label: {percent(self.time_accuracy)} of all seconds, {percent(self.share_right)} of those of true "
            "segments."
        )


def score_segments(videos: Sequence[LabeledVideo], ious: Sequence[float] = IOUS) -> SegmentScores:
    """Return all measures of some videos. Raises `ValueError` without a true segment, or for thresholds out of (0, 1]."""
    truth = [segment for video in videos for segment in video.truth]
    if not truth:
        raise ValueError("There is no true segment; nothing can be measured.")
    if not ious or not all(0 < iou <= 1 for iou in ious):
        raise ValueError(
            f"The thresholds of intersection over union are {list(ious)}; each must be above 0, at most 1."
        )
    right, seconds = (math.fsum(values) for values in zip(*map(_right_seconds, videos), strict=True))
    return SegmentScores(
        {f"{iou:g}": mean_average_precision(videos, iou) for iou in ious},
        math.fsum(map(edit_score, videos)) / len(videos),
        right / seconds,
        share_right(videos),
        len(truth),
        sum(len(video.predicted) for video in videos),
    )


def mean_average_precision(videos: Sequence[LabeledVideo], iou: float) -> float:
    """Return the mean over the classes of the truth of the average precision of segments.

    By descending score, a predicted segment is right if its best true segment of the class and video that none took
    before reaches `iou`. Precision is interpolated: at each recall the highest at that recall or above.
    """
    names = sorted({segment.label for video in videos for segment in video.truth})
    return math.fsum(_average_precision(videos, name, iou) for name in names) / len(names)


def _average_precision(videos: Sequence[LabeledVideo], name: str, iou: float) -> float:
    predicted = [(number, one) for number, video in enumerate(videos) for one in video.predicted if one.label == name]
    # Stable: of equal scores the earlier segment counts first.
    predicted.sort(key=lambda pair: -(pair[1].score or 0.0))
    left = [[one for one in video.truth if one.label == name] for video in videos]
    num_true = sum(map(len, left))
    is_right = []
    for number, segment in predicted:
        best = max(left[number], key=segment.iou, default=None)
        is_right.append(best is not None and segment.iou(best) >= iou)
        if best is not None and is_right[-1]:
            left[number].remove(best)
    hits = np.cumsum(is_right, dtype=np.int64)
    precision = hits / np.arange(1, len(hits) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float(highest[np.array(is_right, dtype=np.bool_)].sum()) / num_true


def edit_score(video: LabeledVideo) -> float:
    """Return 1 - the edit distance of the predicted and the true sequence of labels over the longer one's length.

    Segments in a row with one label count once; the time between segments does not count.
    """
    predicted, truth = (_labels_in_order(segments) for segments in (video.predicted, video.truth))
    if not predicted and not truth:
        return 1.0
    # Levenshtein: distances of all beginnings of the truth, for one more label of the prediction at a time.
    row = list(range(len(truth) + 1))
    for number, label in enumerate(predicted, 1):
        before, row = row, [number]
        for column, true in enumerate(truth, 1):
            row.append(min(row[-1] + 1, before[column] + 1, before[column - 1] + (label != true)))
    return 1 - row[-1] / max(len(predicted), len(truth))


def _labels_in_order(segments: Iterable[Segment]) -> list[str]:
    ordered = sorted(segments, key=lambda segment: (segment.start, segment.end))
    return [label for label, _ in itertools.groupby(segment.label for segment in ordered)]


def share_right(videos: Sequence[LabeledVideo]) -> float:
    """Return the share of the seconds of the true segments that have their label; no label is wrong."""
    # Length of the overlap of each pair of intervals with the same label.
    right = math.fsum(
        max(0.0, min(one.end, true.end) - max(one.start, true.start))
        for video in videos
        for one in video.predicted
        for true in video.truth
        if one.label == true.label
    )
    return right / math.fsum(true.end - true.start for video in videos for true in video.truth)


def _right_seconds(video: LabeledVideo) -> tuple[float, float]:
    """Return how many seconds of a video have a right label, which is none where no segment is true, and all of them."""
    segments = [*video.predicted, *video.truth]
    edges = sorted({video.begins, video.seconds, *(edge for one in segments for edge in (one.start, one.end))})
    edges = [edge for edge in edges if video.begins <= edge <= video.seconds]
    right = 0.0
    # Between two edges nothing changes.
    for start, end in itertools.pairwise(edges):
        middle = (start + end) / 2
        predicted, truth = (
            {one.label for one in part if one.start <= middle < one.end} for part in (video.predicted, video.truth)
        )
        right += (end - start) * (bool(predicted & truth) or not (predicted or truth))
    return right, video.seconds - video.begins
