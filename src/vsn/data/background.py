"""Read the records of a split, with segments of the class "background" drawn from what no labeled segment covers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vsn.config import BACKGROUND, ConfigError, DataConfig
from vsn.data.part import Part, format_seconds
from vsn.data.readers import read_records
from vsn.data.readers.entries import absolute_path, video_id
from vsn.data.readers.splits import means
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video import VideoError, open_video


class LabeledPart(NamedTuple):
    """A video or segment of a split, with its classes by name."""

    split: str
    record: VideoRecord
    class_names: tuple[str, ...]


class _Gap(NamedTuple):
    """A stretch of a file that no segment covers."""

    record: VideoRecord
    """One of the segments beside it."""
    start: float
    end: float


def read_labeled(config: DataConfig, split: str) -> RecordSet:
    """Read a split as `read_records` does; with `config.background` add segments of that class.

    They lie between the segments of a file, before the first and after the last one, and are as long as the labeled ones:
    a length is drawn from theirs, then a place for it. A gap belongs to the split of the segments beside it; between
    segments of two splits none is drawn. The same data and `config.split_seed` give the same segments. Files are opened for
    their length.

    Raises:
        ConfigError, NoSplitError: see `read_records`; or a labeled class has this name, or none can be drawn for training.
    """
    plain = replace(config, background=0.0)
    records = read_records(plain, split)
    if not config.background:
        return records
    if BACKGROUND in records.classes:
        raise ConfigError(
            f"{config.root}: a labeled class is named {BACKGROUND!r}, and data.background is {config.background:g}, which "
            "draws one. Set it to 0, or rename the class."
        )
    of_file = _segments_of_files(plain, {split: records})
    extents = {path: _extent(plain, segments[0].record.path) for path, segments in of_file.items()}
    gaps = [gap for path in sorted(of_file) for gap in _gaps(of_file[path], *extents[path], split)]
    lengths = [
        (extents[absolute_path(record.path)][1] if record.end is None else record.end) - record.start
        for record in records.videos
        if record.part
    ]
    number = round(config.background * len(lengths))
    drawn = _draw(gaps, sorted(length for length in lengths if length > 0), number, config.split_seed)
    if not drawn and means(split, config.train_split):
        longest = max((gap.end - gap.start for gap in gaps), default=0.0)
        raise ConfigError(
            f"{config.root}: data.background is {config.background:g}, and in split {split!r} no segment can be drawn: of "
            f"{len(lengths)} segments the shortest lasts {format_seconds(min(lengths, default=0.0))} s, and the longest "
            f"stretch that none covers {format_seconds(longest)} s. Set it to 0, or label fewer seconds."
        )
    label, root = len(records.classes), Path(config.root)
    background = tuple(
        VideoRecord(
            gap.record.path,
            (label,),
            video_id(gap.record.path, root, part),
            group=gap.record.group,
            place="data.background",
            start=part.start,
            end=part.end,
        )
        for gap, part in drawn
    )
    total = sum(gap.end - gap.start for gap in gaps)
    note = (
        f"Background: {len(background)} segments drawn from {format_seconds(round(total, 1))} seconds that no segment "
        f"covers, of {number} asked for (data.background)."
    )
    return replace(
        records,
        records=(*records.records, *background),
        classes=(*records.classes, BACKGROUND),
        notes=(*records.notes, note),
    )


def segments_of_files(config: DataConfig, split: str) -> dict[str, list[LabeledPart]]:
    """Map each file that has segments in a split to all its labeled segments, also those of other splits.

    Raises `ConfigError`, `NoSplitError`: see `read_records`.
    """
    plain = replace(config, background=0.0)
    return _segments_of_files(plain, {split: read_records(plain, split)})


def _segments_of_files(config: DataConfig, sets: dict[str, RecordSet]) -> dict[str, list[LabeledPart]]:
    (split,) = sets
    for other in dict.fromkeys((config.train_split, config.val_split, config.test_split)):
        # Without one of the splits, or with one that cannot be read: whoever needs that one reports it.
        if other not in sets:
            with contextlib.suppress(ConfigError):
                sets[other] = read_records(config, other)
    # A held-out part may be two splits.
    by_file: dict[str, dict[Part | None, LabeledPart]] = {}
    for name, records in sets.items():
        for record in records.videos:
            labeled = LabeledPart(name, record, records.classes_of(record))
            by_file.setdefault(absolute_path(record.path), {}).setdefault(record.part, labeled)
    found = {path: list(segments.values()) for path, segments in by_file.items()}
    return {
        path: segments
        for path, segments in found.items()
        if any(one.split == split and one.record.part for one in segments)
    }


def _extent(config: DataConfig, path: Path) -> tuple[float, float]:
    """Return when the picture of a file begins and ends; 0 where it cannot be read, which is counted when its clips are."""
    try:
        with open_video(path, frame_template=config.frame_template, decoder=config.decoder) as video:
            return video.begins, video.ends
    except VideoError:
        return 0.0, 0.0


def _gaps(segments: Iterable[LabeledPart], begins: float, ends: float, split: str) -> list[_Gap]:
    """Return what no segment of a file covers, beside segments of this split only."""
    ordered = sorted(segments, key=lambda one: one.record.start)
    gaps: list[_Gap] = []
    until, before = begins, split
    for name, record, _ in ordered:
        if record.start > until and name == before == split:
            gaps.append(_Gap(record, until, min(record.start, ends)))
        end = ends if record.end is None else record.end
        if end >= until:
            until, before = end, name
    if before == split:
        gaps.append(_Gap(ordered[-1].record, until, ends))
    return [gap for gap in gaps if gap.end > gap.start]


def _draw(gaps: Sequence[_Gap], lengths: Sequence[float], number: int, seed: int) -> list[tuple[_Gap, Part]]:
    """Draw segments of the lengths of others, every place in the gaps being as likely."""
    generator = np.random.default_rng(seed)
    stretches = np.array([gap.end - gap.start for gap in gaps])
    drawn: dict[tuple[Path, float, float], tuple[_Gap, Part]] = {}
    fitting = [length for length in lengths if len(gaps) and length < stretches.max()]
    for _ in range(number if fitting else 0):
        length = fitting[generator.integers(len(fitting))]
        room = np.maximum(stretches - length, 0.0)
        gap = gaps[int(generator.choice(len(gaps), p=room / room.sum()))]
        start = round(gap.start + float(generator.uniform(0, gap.end - gap.start - length)), 3)
        part = Part(start, round(start + length, 3))
        drawn.setdefault((gap.record.path, part.start, start + length), (gap, part))
    return list(drawn.values())
