"""Compare two models on the same videos: which is better, in which classes, on which videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from vsn.scores.intervals import Interval, difference_interval, mcnemar
from vsn.scores.metrics import MeanName, predicted_classes, summarize, top_k_hits
from vsn.scores.scores import Scores

# By call, because "class" is a keyword. won: videos only b gets right; lost: videos only a gets right;
# a and b: accuracies, of multi-label scores average precisions.
ClassChange = TypedDict(
    "ClassChange", {"class": str, "num_videos": int, "a": float, "b": float, "won": int, "lost": int}
)


class VideoChange(TypedDict):
    """A video that one model gets right and the other wrong."""

    id: str
    label: str
    a: str
    b: str
    side: str


@dataclass(frozen=True)
class Difference:
    """A metric of two models."""

    a: float
    b: float
    difference: float
    """b minus a."""
    interval: Interval | None
    """95% interval of the paired difference; None for average precision."""


@dataclass(frozen=True)
class Comparison:
    """Difference of two models video by video, as shares of 1."""

    num_videos: int
    num_unreadable: tuple[int, int]
    top1: Difference
    mean_name: MeanName
    mean: Difference
    only_a: int
    """Videos that only a gets right."""
    only_b: int
    mcnemar_p: float
    """McNemar's exact test; a clip and its reversed copy count once, for the model with more of the two right."""
    classes: list[ClassChange]
    """Most won by b first."""
    changed: list[VideoChange]

    def to_dict(self) -> dict[str, object]:
        """Return the fields for JSON, with the mean under its name."""
        metrics: dict[str, object] = {}
        for name, metric in (("top1", self.top1), (self.mean_name, self.mean)):
            metrics |= {name: [metric.a, metric.b], f"{name}_difference": metric.difference}
            if metric.interval is not None:
                metrics[f"{name}_interval"] = list(metric.interval)
        return {
            "num_videos": self.num_videos,
            "num_unreadable": list(self.num_unreadable),
            **metrics,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "mcnemar_p": self.mcnemar_p,
            "classes": self.classes,
            "changed": self.changed,
        }


def compare_scores(a: Scores, b: Scores) -> Comparison:
    """Compare two models; differences are b minus a.

    Args:
        a: of the same videos and classes in the same order as b: `vsn.scores.match.match_scores`.
        b: the other.

    Raises:
        ScoresError: videos without a known label.
    """
    hits = [top_k_hits(scores, 1) for scores in (a, b)]
    # +1: only b is right; -1: only a is right; 0: no difference.
    changes = hits[1].astype(np.int64) - hits[0]
    summaries = [summarize(scores) for scores in (a, b)]
    # The sign of a group's sum: a clip won and its copy lost is no discordant pair.
    _, group_index = np.unique(np.array(a.groups), return_inverse=True)
    group_changes = np.bincount(group_index, changes)
    return Comparison(
        num_videos=len(changes),
        num_unreadable=(int(a.unreadable.sum()), int(b.unreadable.sum())),
        top1=Difference(
            summaries[0].top1,
            summaries[1].top1,
            float(changes.mean()),
            difference_interval(changes, groups=a.groups),
        ),
        mean_name=summaries[0].mean_name,
        mean=Difference(
            summaries[0].mean,
            summaries[1].mean,
            summaries[1].mean - summaries[0].mean,
            None if a.multi_label else difference_interval(changes, groups=a.groups, classes=a.labels),
        ),
        only_a=int((changes < 0).sum()),
        only_b=int((changes > 0).sum()),
        mcnemar_p=mcnemar(int((group_changes < 0).sum()), int((group_changes > 0).sum())),
        classes=_class_changes(a, changes, summaries[0].per_class, summaries[1].per_class),
        changed=_video_changes(a, b, changes),
    )


def _class_changes(
    scores: Scores, changes: NDArray[np.int64], a: dict[str, float], b: dict[str, float]
) -> list[ClassChange]:
    rows: list[ClassChange] = []
    for index, name in enumerate(scores.classes):
        members = scores.members(index)
        # A class without videos has no accuracy to compare.
        if members.any():
            won, lost = int((changes[members] > 0).sum()), int((changes[members] < 0).sum())
            rows.append(
                {"class": name, "num_videos": int(members.sum()), "a": a[name], "b": b[name], "won": won, "lost": lost}
            )
    return sorted(rows, key=lambda row: (row["lost"] - row["won"], row["a"] - row["b"], row["class"]))


def _video_changes(a: Scores, b: Scores, changes: NDArray[np.int64]) -> list[VideoChange]:
    predictions = [predicted_classes(scores) for scores in (a, b)]
    # Won first, then by class, so that the systematic gains and losses stand together.
    classes = np.array(a.classes)
    rows: list[VideoChange] = [
        {
            "id": str(a.video_ids[row]),
            # labels[row] is an index, or for multi-label scores a mask.
            "label": "|".join(np.atleast_1d(classes[a.labels[row]])),
            "a": predictions[0][row],
            "b": predictions[1][row],
            "side": "won" if changes[row] > 0 else "lost",
        }
        for row in np.flatnonzero(changes).tolist()
    ]
    return sorted(rows, key=lambda change: (change["side"] != "won", change["label"], change["id"]))
