"""Find the class that a model gets wrong most, and what it takes it for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vsn.scores.metrics import top_k_hits
from vsn.scores.scores import Scores
from vsn.system.numbers import counted

MIN_VIDEOS = 3
"""Videos of a class below which its accuracy says nothing."""


@dataclass(frozen=True)
class WorstClass:
    """The class with the lowest accuracy."""

    name: str
    num_videos: int
    num_right: int
    taken_for: str
    """The most frequent wrong prediction for its videos."""
    num_taken: int

    def __str__(self) -> str:
        return (
            f"Worst class: {self.name!r}, {self.num_right} of {counted(self.num_videos, 'video')} right; {self.num_taken} "
            f"taken for {self.taken_for!r}."
        )


def worst_class(scores: Scores) -> WorstClass | None:
    """Return the class with the lowest accuracy, of those with `MIN_VIDEOS` or more; of equal ones the largest.

    None if all are right, for multi-label scores, and where a label is unknown.
    """
    if scores.multi_label or scores.num_unlabeled:
        return None
    hits, readable = top_k_hits(scores, 1), ~scores.unreadable  # what cannot be read is taken for nothing
    predicted = np.where(readable, np.where(readable[:, None], scores.logits, 0).argmax(axis=1), -1)
    rows: list[tuple[float, int, WorstClass]] = []
    for index, name in enumerate(scores.classes):
        members = scores.members(index)
        wrong = predicted[members & ~hits & readable]
        if members.sum() < MIN_VIDEOS or not len(wrong):
            continue
        counts = np.bincount(wrong, minlength=len(scores.classes))
        taken, num_videos, num_right = int(counts.argmax()), int(members.sum()), int(hits[members].sum())
        found = WorstClass(name, num_videos, num_right, scores.classes[taken], int(counts[taken]))
        rows.append((num_right / num_videos, -num_videos, found))
    return min(rows, key=lambda row: row[:2])[2] if rows else None
