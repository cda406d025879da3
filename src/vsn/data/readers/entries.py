"""Turn the videos that a reader finds into the records of a task."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.splits import NoSplitError, means
from vsn.data.records import RecordSet, VideoRecord

ARROW_CLASSES = ("forward", "reversed")


class Entry(NamedTuple):
    """A video as a reader finds it, with its classes by name."""

    path: Path
    class_names: tuple[str, ...]
    """Empty when the data states no label."""
    video_id: str
    listed_frames: int = 0
    """See `VideoRecord.listed_frames`."""


def video_id(path: Path, root: Path) -> str:
    """Return the path relative to the root if it is below it, with forward slashes.

    >>> video_id(Path("data/wave/1.mp4"), Path("data"))
    'wave/1.mp4'
    """
    text, prefix = path.as_posix(), root.as_posix()
    return text.removeprefix(prefix if prefix.endswith("/") else f"{prefix}/")  # ten times as fast as relative_to


def record_set(
    config: DataConfig, split: str, entries: Sequence[Entry], classes: Sequence[str], *, num_missing: int = 0
) -> RecordSet:
    """Return the records of a split for `config.task`.

    Raises `ConfigError` for fewer than two classes, for several labels where the task takes one, and
    for unlabeled videos in the training split.
    """
    if config.task == "arrow":
        both = []
        for entry in entries:
            forward = VideoRecord(entry.path, (0,), entry.video_id, listed_frames=entry.listed_frames)
            # Adjacent, because `RecordSet.per_video` groups records by position.
            both += [forward, replace(forward, labels=(1,), video_id=f"{entry.video_id}#reversed", reverse=True)]
        return RecordSet(tuple(both), ARROW_CLASSES, per_video=2, num_missing=num_missing)
    if len(classes) < 2:
        only = f"the only class is {classes[0]!r}" if classes else "there is no class"
        raise ConfigError(f"{config.root}: {only}; a classifier needs two or more.")
    unlabeled = [entry.video_id for entry in entries if not entry.class_names]
    if unlabeled and means(split, config.train_split):
        raise ConfigError(
            f"{config.root}: {len(unlabeled)} of the {len(entries)} training videos have no label, for "
            f"example {unlabeled[0]!r}. Set data.train_split to a split that has labels."
        )
    for entry in entries if config.task == "classify" else ():
        if len(entry.class_names) > 1:
            raise ConfigError(
                f"{config.root}: {entry.video_id!r} has {len(entry.class_names)} labels "
                f'({", ".join(map(repr, entry.class_names[:3]))}), and data.task = "classify" takes one for each '
                'video. Set data.task = "multilabel".'
            )
    # Readers state names; labels are their positions in `classes`.
    labels = {name: label for label, name in enumerate(classes)}
    records = tuple(
        VideoRecord(
            entry.path,
            tuple(labels[name] for name in entry.class_names),
            entry.video_id,
            listed_frames=entry.listed_frames,
        )
        for entry in entries
    )
    return RecordSet(records, tuple(classes), multi_label=config.task == "multilabel", num_missing=num_missing)


def hold_out(config: DataConfig, split: str, entries: Sequence[Entry]) -> list[Entry]:
    """Return the training part, or the held-out part, of data that states no splits, stratified by class.

    Multi-label videos count as one class, because few of them share all labels.
    """
    training = means(split, config.train_split)
    if not training and not means(split, config.val_split) and not means(split, config.test_split):
        raise NoSplitError(
            f"{config.root}: the data states no splits, so there is no split {split!r}.",
            f"Choose {config.train_split!r}, {config.val_split!r} or {config.test_split!r}.",
        )
    # Sorted by id: the order of a file system must not change the split.
    by_class: dict[tuple[str, ...], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.video_id):
        by_class.setdefault(() if config.task == "multilabel" else entry.class_names, []).append(entry)
    chosen = []
    for name in sorted(by_class):
        members = by_class[name]
        # At least one for validation, at least one for training; .5 rounds up.
        num_held = min(len(members) - 1, max(1, int(len(members) * config.val_fraction + 0.5)))
        # Rank by a hash of each video: adding or removing a video then moves at most one other, while a
        # shuffle of the list would mix earlier training videos into the held-out part.
        ranked = sorted(members, key=lambda entry: _rank(config.split_seed, entry.video_id))
        held = {entry.video_id for entry in ranked[:num_held]}
        chosen += [entry for entry in members if (entry.video_id in held) != training]
    if not chosen:
        raise ConfigError(f"{config.root}: every class has one video, so none is left for split {split!r}.")
    return chosen


def _rank(seed: int, video_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{video_id}".encode()).digest()
