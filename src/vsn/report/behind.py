"""List the videos behind the cells of a confusion matrix, as data for the page's script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vsn.report.differences import Named
from vsn.scores.metrics import probabilities, softmax
from vsn.scores.scores import Scores
from vsn.system.numbers import rounded

VIDEOS_OF_A_CELL = 12
"""Videos that are listed for a true and a predicted class: the most certain of the mistakes, the least of the others."""
MAX_VIDEOS = 8000
"""Videos of a page: with 400 classes and 100,000 videos it stays below 5 MB."""
_CHOICES = 3
_MAX_SCORED = 500
"""Videos of a cell that are searched for the most certain ones."""


class _Cell(NamedTuple):
    run: int
    true: int
    predicted: int
    rows: np.ndarray

    @property
    def is_right(self) -> bool:
        return self.true == self.predicted


def videos_behind(tested: Sequence[Named]) -> dict[str, Any] | None:
    """Return the videos of the cells of all scores for JSON; None where a video has several labels, or there are none.

    ``videos`` holds (id, true class, per tested run: class, percent, class, percent, ...), ``cells`` per tested run
    "true:predicted" -> (number of videos, index in ``videos``, ...). Where there are too many videos, each cell has
    fewer; mistakes go before right predictions, and large cells before small ones.
    """
    if not tested or any(one.scores.multi_label for one in tested):
        return None
    cells = [cell for index, one in enumerate(tested) for cell in _cells(index, one.scores)]
    # Mistakes first, those of the largest cells.
    cells.sort(key=lambda cell: (cell.is_right, -len(cell.rows)))
    listed: dict[int, int] = {}
    found: list[dict[str, list[int]]] = [{} for _ in tested]
    for kind in (False, True):
        of_kind = [cell for cell in cells if cell.is_right == kind]
        number = _number_of_each([len(cell.rows) for cell in of_kind], MAX_VIDEOS - len(listed))
        for cell in of_kind:
            chosen = _most_telling(tested[cell.run].scores, cell, number) if len(listed) < MAX_VIDEOS else []
            indices = [listed.setdefault(row, len(listed)) for row in chosen]
            found[cell.run][f"{cell.true}:{cell.predicted}"] = [len(cell.rows), *indices]
    rows = np.array(list(listed), dtype=np.int64)
    return {
        "classes": list(tested[0].scores.classes),
        "runs": [one.name for one in tested],
        "videos": _describe_videos([one.scores.take(rows) for one in tested]),
        "cells": found,
    }


def _cells(index: int, scores: Scores) -> list[_Cell]:
    rows = np.flatnonzero(~scores.unreadable)
    if not len(rows):
        return []
    true, predicted = scores.labels[rows], scores.logits[rows].argmax(axis=1)
    # One number per cell, so that equal ones stand together when they are sorted.
    keys = true * len(scores.classes) + predicted
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    cells = zip(keys[order][starts].tolist(), np.split(rows[order], starts[1:]), strict=True)
    n = len(scores.classes)
    return [_Cell(index, key // n, key % n, part) for key, part in cells]


def _number_of_each(sizes: Sequence[int], most: int) -> int:
    """How many videos of each cell fit into ``most``: fewer of each rather than none of some, but one at least."""
    numbers = range(VIDEOS_OF_A_CELL, 0, -1)
    return next((number for number in numbers if sum(min(number, size) for size in sizes) <= most), 1)


def _most_telling(scores: Scores, cell: _Cell, number: int) -> list[int]:
    """The rows of the mistakes that a run is most certain of; of right predictions those it is least certain of."""
    rows = cell.rows[:_MAX_SCORED]
    certain = softmax(scores.logits[rows])[:, cell.predicted]
    order = np.argsort(certain if cell.is_right else -certain, kind="stable")
    return [int(row) for row in rows[order[:number]]]


def _describe_videos(scores: Sequence[Scores]) -> list[list[Any]]:
    tables = [probabilities(one) for one in scores]
    tops = [np.argsort(-table, axis=1, kind="stable")[:, :_CHOICES] for table in tables]
    videos: list[list[Any]] = []
    for place in range(len(scores[0].video_ids)):
        # A video that a run could not read has no choices.
        choices = [
            []
            if one.unreadable[place]
            else [n for c in top[place].tolist() for n in (c, rounded(100 * float(table[place, c]), 1))]
            for one, table, top in zip(scores, tables, tops, strict=True)
        ]
        videos.append([str(scores[0].video_ids[place]), int(scores[0].labels[place]), choices])
    return videos
