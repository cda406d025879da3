"""Bring the scores of several models into one order of videos and classes, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vsn.config.errors import quote_first
from vsn.scores.scores import Scores, ScoresError


def match_scores(inputs: Sequence[Scores], names: Sequence[str], *, common: bool = False) -> tuple[list[Scores], int]:
    """Return scores of the same videos, classes and groups, in the order of the first input.

    Args:
        inputs: two or more.
        names: name of each in error messages, such as its file.
        common: keep only the videos that all inputs have; otherwise a missing video is an error.

    Returns:
        The scores, and the number of videos left out because an input lacks them.

    Raises:
        ScoresError: fewer than two inputs; different classes or videos; different labels for a video.
    """
    if len(inputs) < 2:
        raise ScoresError(f"Expected scores of 2 or more models, got {len(inputs)}.")
    first = inputs[0]
    for other, name in zip(inputs[1:], names[1:], strict=True):
        if first.multi_label != other.multi_label:
            raise ScoresError(f"Only one of {names[0]} and {name} is multi-label. Use scores of one data set.")
        if odd := sorted(set(first.classes) ^ set(other.classes)):
            raise ScoresError(
                f"{names[0]} has {len(first.classes)} classes and {name} has {len(other.classes)}; they differ in "
                f"{len(odd)}: {quote_first(odd)}. Classes must match by name, in any order."
            )
    # Models may be tested on other subsets, such as after videos were removed from YouTube.
    videos = [set(scores.video_ids.tolist()) for scores in inputs]
    shared, union = set.intersection(*videos), set.union(*videos)
    if shared != union and not common:
        index = next(i for i, ids in enumerate(videos) if ids != union)
        missing = sorted(union - videos[index])
        raise ScoresError(
            f"{names[index]} lacks {len(missing)} videos of the other files: {quote_first(missing)}. Use scores of one "
            "split, or pass --common to keep the videos that all files have."
        )
    if not shared:
        raise ScoresError(f"{names[0]} and {names[1]} have no video in common. Use scores of one split.")
    kept = [video for video in first.video_ids.tolist() if video in shared]
    matched = [reorder_scores(scores, kept, first.classes) for scores in inputs]
    for other, name in zip(matched[1:], names[1:], strict=True):
        different = matched[0].labels != other.labels
        if different.any():
            rows = different.any(axis=1) if first.multi_label else different
            raise ScoresError(
                f"{names[0]} and {name} have different labels for {rows.sum()} videos: "
                f"{quote_first(other.video_ids[rows].tolist())}. Test both with the same annotations."
            )
    groups = _joined_groups(matched)
    return [replace(scores, stated_groups=groups) for scores in matched], len(union) - len(shared)


def _joined_groups(inputs: Sequence[Scores]) -> NDArray[np.str_] | None:
    """Return the groups that the inputs state; where they differ, what is in one group of any input is in one of the result.

    An interval is then the same whichever input comes first.
    """
    stated = [scores.stated_groups for scores in inputs if scores.stated_groups is not None]
    if not stated or all(np.array_equal(groups, stated[0]) for groups in stated):
        return stated[0] if stated else None
    first_row, before = np.arange(len(stated[0])), None
    while before is None or not np.array_equal(first_row, before):
        before = first_row
        for groups in stated:
            _, index = np.unique(groups, return_inverse=True)
            lowest = np.full(index.max() + 1, len(groups))
            np.minimum.at(lowest, index, first_row)
            first_row = lowest[index]
    return np.array(stated[0][first_row])


def reorder_scores(scores: Scores, videos: Sequence[str], classes: tuple[str, ...]) -> Scores:
    """Return the scores of these videos, in this order, with the columns and labels in the order of ``classes``."""
    if list(videos) == scores.video_ids.tolist() and classes == scores.classes:
        return scores
    row_of = {video: index for index, video in enumerate(scores.video_ids.tolist())}
    scores = scores.take(np.array([row_of[video] for video in videos]))
    column_of = {name: index for index, name in enumerate(scores.classes)}
    columns = np.array([column_of[name] for name in classes])
    # argsort inverts the permutation: old class index -> new one. The appended -1 is what index -1, an unknown label,
    # selects.
    new_index = np.append(np.argsort(columns), -1)
    labels = scores.labels[:, columns] if scores.multi_label else new_index[scores.labels]
    return replace(scores, logits=scores.logits[:, columns], labels=labels, classes=classes)
