"""Turn the videos that a reader finds into the records of a task."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, DataConfig
from vsn.config.errors import quote_first
from vsn.data.groups import hold_out_groups
from vsn.data.part import Part, overlapping_pairs, shared_fraction
from vsn.data.readers.splits import SplitChoice, means
from vsn.data.records import REVERSED, RecordSet, VideoRecord

ARROW_CLASSES = ("forward", "reversed")
MAX_SHARED = 0.1
"""Share of the shorter of two segments with different labels that may overlap: people set times a little apart."""


class Entry(NamedTuple):
    """A video, or a segment of one, as a reader finds it, with its classes by name."""

    path: Path
    class_names: tuple[str, ...]
    """Empty when the data states no label."""
    video_id: str
    listed_frames: int = 0
    """See `VideoRecord.listed_frames`."""
    place: str = ""
    """Its place in the annotations: "clips.csv, line 3"; "" for a video that no file lists."""
    respelled: str = ""
    """Its name as listed, where that is spelled otherwise than on disk."""
    group: str = ""
    """See `VideoRecord.group`."""
    part: Part | None = None
    """The segment, None for a whole video."""

    def record(self, labels: tuple[int, ...]) -> VideoRecord:
        """Return the record of the video with these labels."""
        part = self.part or Part()
        return VideoRecord(
            self.path,
            labels,
            self.video_id,
            listed_frames=self.listed_frames,
            group=self.group,
            place=self.place,
            start=part.start,
            end=part.end,
        )


def video_id(path: Path, root: Path, part: Part | None = None) -> str:
    """Return the path relative to the root if it is below it, with forward slashes, and the times of a segment.

    >>> video_id(Path("data/wave/1.mp4"), Path("data"))
    'wave/1.mp4'
    >>> video_id(Path("data/day1.mp4"), Path("data"), Part(12.5, 20))
    'day1.mp4#t=12.5,20'
    """
    text, prefix = path.as_posix(), root.as_posix()
    name = text.removeprefix(prefix if prefix.endswith("/") else f"{prefix}/")  # ten times as fast as relative_to
    return name if part is None else f"{name}#{part}"


def record_set(
    config: DataConfig,
    split: str,
    entries: Sequence[Entry],
    classes: Sequence[str],
    *,
    choice: SplitChoice,
    num_missing: int = 0,
    notes: Sequence[str] = (),
) -> RecordSet:
    """Return the records of a split for `config.task`; a video that is listed several times is one record.

    The entries are those of the splits of `choice`; where that holds out a part, the records are those of one part.

    Raises `ConfigError` for fewer than two classes, for several labels where the task takes one, for a video that is
    listed with different labels or groups, for segments of different labels that overlap, for unlabeled videos in the
    training split, and for ids in which `config.group_pattern` finds no group.
    """
    entries, repeated = _each_once(config, entries)
    repeated += _check_overlaps(config, entries)
    entries = _with_groups(config, entries)
    empty = RecordSet(
        (),
        tuple(classes),
        num_missing=num_missing,
        held_out_of="".join(choice.names[:1]) if choice.held_out else None,
        notes=(*notes, *choice.notes, *_describe_spelling(entries), *repeated),
    )
    if choice.held_out:
        kept = hold_out(config, split, entries)
        of_groups = _describe_held_groups(config, split, entries, kept)
        empty = replace(empty, notes=(*empty.notes, *of_groups), held_out_notes=(*choice.notes, *of_groups))
        entries = kept
    if config.task == "arrow":
        both = []
        for entry in entries:
            forward = entry.record((0,))
            # Adjacent, because `RecordSet.per_video` groups records by position.
            both += [forward, replace(forward, labels=(1,), video_id=f"{entry.video_id}{REVERSED}", reverse=True)]
        return replace(empty, records=tuple(both), classes=ARROW_CLASSES, per_video=2)
    if len(classes) < 2:
        only = f"the only class is {classes[0]!r}" if classes else "there is no class"
        raise ConfigError(f"{config.root}: {only}; a classifier needs two or more.")
    unlabeled = [entry.video_id for entry in entries if not entry.class_names]
    # One multi-label video may show none of the classes, but not all of them.
    lacks_labels = unlabeled and (config.task != "multilabel" or len(unlabeled) == len(entries))
    if lacks_labels and means(split, config.train_split):
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
    records = tuple(entry.record(tuple(labels[name] for name in entry.class_names)) for entry in entries)
    return replace(empty, records=records, multi_label=config.task == "multilabel")


def _each_once(config: DataConfig, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the entries without those that repeat an earlier one, and a note about them.

    Raises `ConfigError` for a video that is listed with different labels or groups.
    """
    first_of: dict[tuple[str, Part | None], Entry] = {}
    repeated = []
    for entry in entries:
        first = first_of.setdefault((absolute_path(entry.path), entry.part), entry)
        if first is entry:
            continue
        if config.task != "arrow" and set(first.class_names) != set(entry.class_names):
            both = " and ".join(repr("|".join(names)) for names in (first.class_names, entry.class_names))
            advice = "write all its labels in one line" if config.task == "multilabel" else "keep the right one"
            raise ConfigError(
                f"{config.root}: {first.place} and {entry.place} give {first.video_id!r} different labels, {both}; "
                f"{advice}."
            )
        if first.group != entry.group and not config.group_pattern:
            both = f"{first.group!r} and {entry.group!r}"
            raise ConfigError(
                f"{config.root}: {first.place} and {entry.place} give {first.video_id!r} different groups, {both}; keep the "
                "right one."
            )
        repeated.append((first, entry))
    if not repeated:
        return list(entries), []
    first, again = repeated[0]
    count = "1 line repeats a video" if len(repeated) == 1 else f"{len(repeated)} lines repeat videos"
    note = f"{count}, which counts once: for example {first.video_id!r} ({first.place} and {again.place})."
    return list(first_of.values()), [note]


def _with_groups(config: DataConfig, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with the groups that `config.group_pattern` finds in their ids.

    Without groups, all segments of a file are one: people, place and light are the same in them.
    """
    if not config.group_pattern:
        if not any(entry.part for entry in entries) or any(entry.group for entry in entries):
            return list(entries)
        return [entry._replace(group=_file_group(config, entry)) for entry in entries]
    found = [re.search(config.group_pattern, entry.video_id) for entry in entries]
    # A group that took no part in the match is None, an empty one names nothing.
    missing = [entry.video_id for entry, match in zip(entries, found, strict=True) if not (match and match[1])]
    if missing:
        raise ConfigError(
            f"{config.root}: data.group_pattern {config.group_pattern!r} finds no group in {len(missing)} of "
            f"{len(entries)} videos, for example {quote_first(missing)}. It is searched in the path "
            "relative to data.root, or in the id that a CSV file states."
        )
    return [entry._replace(group=match[1]) for entry, match in zip(entries, found, strict=True) if match]


def _check_overlaps(config: DataConfig, entries: Sequence[Entry]) -> list[str]:
    """Return a note about segments with different labels that overlap a little, as those set by hand do.

    Raises `ConfigError` for those that overlap much, where the task takes one label for each.
    """
    if config.task != "classify" or not any(entry.part for entry in entries):
        return []
    by_path: dict[str, list[Entry]] = {}
    for entry in entries:
        by_path.setdefault(absolute_path(entry.path), []).append(entry)
    pairs = [
        (a, b)
        for members in by_path.values()
        for a, b in overlapping_pairs(members, lambda entry: entry.part)
        if set(a.class_names) != set(b.class_names)
    ]
    if not pairs:
        return []
    a, b = max(pairs, key=lambda pair: shared_fraction(pair[0].part, pair[1].part))
    both = " and ".join(
        f"{entry.video_id!r} ({'|'.join(entry.class_names) or 'no label'}{f', {entry.place}' if entry.place else ''})"
        for entry in (a, b)
    )
    if shared_fraction(a.part, b.part) > MAX_SHARED:
        raise ConfigError(
            f"{config.root}: segments with different labels overlap, {len(pairs)} in all, for example {both}. With "
            f"data.task 'classify' at most {MAX_SHARED:.0%} of a segment may overlap. Correct the times, or set data.task = "
            '"multilabel", and write all labels of a segment.'
        )
    return [f"Segments with different labels overlap a little: {len(pairs)}, for example {both}."]


def absolute_path(path: Path) -> str:
    """Return a path that is equal for two records of one video, relative to different folders."""
    text = os.fspath(path)
    plain = os.path.abspath(text)
    # "clips/../a.mp4" is "a.mp4", unless clips is a link to a folder elsewhere.
    if ".." in text and not os.path.samefile(os.path.dirname(plain), path.parent):
        return os.path.realpath(path)
    return plain


def _describe_spelling(entries: Sequence[Entry]) -> list[str]:
    respelled = [entry for entry in entries if entry.respelled]
    if not respelled:
        return []
    first = respelled[0]
    return [
        "Paths are spelled otherwise on disk (slashes, upper and lower case, or Unicode forms), for example "
        f"{first.respelled!r} ({first.place}), found as {first.path.as_posix()!r}."
    ]


def hold_out(config: DataConfig, split: str, entries: Sequence[Entry]) -> list[Entry]:
    """Return the training part, or the held-out part, of videos, stratified by class; in whole groups if they have some.

    Multi-label videos count as one class, because few of them share all labels; so do those of the arrow of time where each
    has a class of its own, because its classes are others.
    """
    training = means(split, config.train_split)
    is_held = _hold_out_groups(config, entries) if entries and all(entry.group for entry in entries) else None
    if is_held is not None:
        chosen = [entry for entry, of_held in zip(entries, is_held, strict=True) if of_held != training]
        return sorted(chosen, key=lambda entry: entry.video_id)
    is_one_class = config.task == "multilabel" or (
        config.task == "arrow" and len({entry.class_names for entry in entries}) == len(entries)
    )
    # Sorted by id: the order of a file system must not change the split.
    by_class: dict[tuple[str, ...], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.video_id):
        by_class.setdefault(() if is_one_class else entry.class_names, []).append(entry)
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
        if len(entries) == 1:
            raise ConfigError(f"{config.root}: there is one video, so none is left for split {split!r}.")
        raise ConfigError(f"{config.root}: every class has one video, so none is left for split {split!r}.")
    return chosen


def _hold_out_groups(config: DataConfig, entries: Sequence[Entry]) -> NDArray[np.bool_] | None:
    """Return `(N,)` bool, which entries are held out, in whole groups; None where each may be held out by itself.

    Where files are the groups, and whole files would leave a class nothing to train on, segments are: what does not overlap
    is better than nothing, and `_describe_held_groups` says so.
    """
    classes = [() if config.task == "multilabel" else entry.class_names for entry in entries]
    groups = [entry.group for entry in entries]
    try:
        return hold_out_groups(classes, groups, config.val_fraction, seed=config.split_seed)
    except ConfigError:
        if groups != [_file_group(config, entry) for entry in entries]:
            raise
    groups = _overlapping_groups(entries)
    if len(set(groups)) == len(groups):
        return None
    return hold_out_groups(classes, groups, config.val_fraction, seed=config.split_seed)


def _file_group(config: DataConfig, entry: Entry) -> str:
    return video_id(entry.path, Path(config.root))


def _overlapping_groups(entries: Sequence[Entry]) -> list[str]:
    """Return a group for each entry: the same for segments that show the same frames, also by way of others."""
    groups = [entry.video_id for entry in entries]
    by_path: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        by_path.setdefault(absolute_path(entry.path), []).append(index)
    for members in by_path.values():
        # By their start, so that the group of the earlier one is settled.
        for a, b in overlapping_pairs(members, lambda index: entries[index].part):
            groups[b] = groups[a]
    return groups


def _describe_held_groups(config: DataConfig, split: str, entries: Sequence[Entry], kept: Sequence[Entry]) -> list[str]:
    groups, of_part = ({entry.group for entry in part} for part in (entries, kept))
    if "" in groups:
        return []
    training = means(split, config.train_split)
    if of_part == groups:
        return [
            "Segments are held out of files that are trained on too, because whole files would leave no training videos of "
            f"a class: {len(kept)} of {len(entries)} segments are in this part. Accuracy on them tells little about other "
            "files."
        ]
    held, num_held = (groups - of_part, len(entries) - len(kept)) if training else (of_part, len(kept))
    return [
        f"Held out in whole groups: {len(held)} of {len(groups)} ({quote_first(sorted(held))}), {num_held} of "
        f"{len(entries)} videos."
    ]


def _rank(seed: int, video_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{video_id}".encode(errors="surrogatepass")).digest()
