"""Scores of several models brought into one order of videos and of classes, by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vsn.scores.scores import Scores, ScoresError

_SHOWN = 3


def match_scores(inputs: Sequence[Scores], names: Sequence[str], *, common: bool = False) -> tuple[list[Scores], int]:
    """The same videos and classes in all, in the order of the first.

    Args:
        inputs: two or more.
        names: what to call each in an error, such as its file.
        common: keep the videos that all have; else a video that one lacks is an error.

    Returns:
        The scores, and how many videos were left out because some of the inputs lack them.

    Raises:
        ScoresError: fewer than two; other classes, other videos, or another label for a video.
    """
    if len(inputs) < 2:
        raise ScoresError(f"There are scores of {len(inputs)} models; two or more are needed.")
    first = inputs[0]
    for other, name in zip(inputs[1:], names[1:], strict=True):
        _check_classes(first, other, names[0], name)
    everyone = [set(one.video_ids.tolist()) for one in inputs]
    shared, union = set.intersection(*everyone), set.union(*everyone)
    if shared != union and not common:
        lacking = next(i for i, ids in enumerate(everyone) if ids != union)
        lost = sorted(union - everyone[lacking])
        raise ScoresError(
            f"{names[lacking]} lacks {len(lost)} videos that others have, such as {_some(lost)}. Give scores of one "
            "split, or use --common for the videos that all have."
        )
    if not shared:
        raise ScoresError(f"{names[0]} and {names[1]} have no video in common. Give scores of one split.")
    kept = [video for video in first.video_ids.tolist() if video in shared]
    matched = [_in_order(one, kept, first.classes) for one in inputs]
    for other, name in zip(matched[1:], names[1:], strict=True):
        _check_labels(matched[0], other, names[0], name)
    return matched, len(union) - len(shared)


def _check_classes(first: Scores, other: Scores, first_name: str, name: str) -> None:
    if first.multi_label != other.multi_label:
        raise ScoresError(
            f"{first_name} and {name}: one has several labels a video, the other one. Give scores of one data set."
        )
    odd = sorted(set(first.classes) ^ set(other.classes))
    if odd:
        raise ScoresError(
            f"{first_name} has {len(first.classes)} classes and {name} has {len(other.classes)}; {len(odd)} are in "
            f"one of them only, such as {_some(odd)}. Classes must agree by name, in any order."
        )


def _in_order(scores: Scores, videos: Sequence[str], classes: tuple[str, ...]) -> Scores:
    row = {video: index for index, video in enumerate(scores.video_ids.tolist())}
    rows = np.array([row[video] for video in videos])
    place = {name: index for index, name in enumerate(scores.classes)}
    columns = np.array([place[name] for name in classes])
    if scores.multi_label:
        labels = scores.labels[rows][:, columns]
    else:
        # One more than classes: label -1, not known, stays -1.
        labels = np.append(np.argsort(columns), -1)[scores.labels[rows]]
    return Scores(scores.video_ids[rows], scores.logits[rows][:, columns], labels, classes, scores.kind, scores.facts)


def _check_labels(first: Scores, other: Scores, first_name: str, name: str) -> None:
    differ = first.labels != other.labels
    if differ.any():
        rows = differ.any(axis=1) if first.multi_label else differ
        raise ScoresError(
            f"{first_name} and {name} state other labels for {rows.sum()} videos, such as "
            f"{_some(first.video_ids[rows].tolist())}. Test both on the same annotations."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
