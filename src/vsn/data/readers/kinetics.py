"""Read Kinetics-400, -600 and -700."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.class_names import unify_classes
from vsn.data.readers.entries import Entry, record_set, video_id
from vsn.data.readers.files import (
    Line,
    annotation_folders,
    errors_at,
    no_file,
    require_found,
    video_folders,
)
from vsn.data.readers.splits import canonical, choose_split, same_split
from vsn.data.readers.table import read_table
from vsn.data.records import VIDEO_EXTENSIONS, RecordSet, walk_folders

_VERSIONS = (
    "kinetics400", "kinetics600", "kinetics700", "kinetics700_2020",
    "k400", "k600", "k700", "k700-2020",
)  # fmt: skip
_SPLIT_WORDS = "|".join(name for split in ("train", "val", "test") for name in same_split(split))
_FILE = re.compile(rf"(?:(?:kinetics|k)?[-_]?(?:[467]00)?[-_]?(?:2020)?[-_])?({_SPLIT_WORDS})\.csv", re.IGNORECASE)
_FOLDER = re.compile(
    rf"(?:(?:videos?|frames|rawframes)[-_])?({_SPLIT_WORDS})(?:[-_](?:videos?|\d+p?))?", re.IGNORECASE
)  # "train_256", but not the class folder "training_dog"


class _Clip(NamedTuple):
    label: str
    youtube_id: str
    name: str
    """The id and the seconds of the clip in the video."""
    split: str
    line: int


def read_kinetics(config: DataConfig, split: str) -> RecordSet:
    """Read `{train,val,test}.csv` with the header `label,youtube_id,time_start,time_end,split[,is_cc]`.

    Also named `kinetics-400_train.csv`, `k700_val.csv`, `validate.csv` and the like, in root,
    root/annotations, root/labels or a folder of the version's name (root/kinetics400, ...); or one
    file with all splits, named by `data.annotations`. The classes are the labels of all files, sorted;
    the test files of some versions have none.

    Videos are `{id}_{start:06d}_{end:06d}` or `{id}`, `.mp4`, another container or a folder of frames, in
    class folders (spaces or `_`) or without, below root/videos, root/compress, root/clips, root/frames,
    root/rawframes, a folder of the version's name, or root, the first of them that holds any; where the
    splits have folders (train, videos_train, rawframes_train, train_256, ...), in those of the split.
    Links rot: videos that are missing are left out and counted in `num_missing`.
    """
    clips = [(file, clip) for file in _annotation_files(config) for clip in _read_clips(file)]
    choice = choose_split(config, split, [clip.split for _, clip in clips])
    split_name = choice.names[0]
    of_split = [(file, clip) for file, clip in clips if clip.split == split_name]
    # Downloaders name the folders differently (CVDF, ActivityNet's crawler, MMAction2, SlowFast).
    folders = video_folders(config, "videos", "compress", "clips", "frames", "rawframes", *_VERSIONS)
    names = frozenset(name for _, clip in clips for name in (clip.name, clip.youtube_id))
    # One walk over the folders, not a look-up a clip: class folders are spelled in too many ways to guess.
    by_stem, folder = _index_videos(folders, split_name, names)
    entries, missing = [], []
    clip_of: dict[str, _Clip] = {}
    for file, clip in of_split:
        candidates = by_stem.get(clip.name) or by_stem.get(clip.youtube_id)
        if candidates:
            # A few clips are listed in two classes: take the video in the folder of the label, else the first.
            path = Path(candidates[0])
            if len(candidates) > 1:
                path = min(map(Path, candidates), key=lambda path: _plain(path.parent.name) != _plain(clip.label))
            first = clip_of.setdefault(os.fspath(path), clip)
            if first.name != clip.name:
                raise ConfigError(
                    f"{file}: lines {first.line} and {clip.line} are two parts of the video {clip.youtube_id!r}, and "
                    f"{path.name} is all of it. Cut it into {first.name}.mp4 and {clip.name}.mp4."
                )
            labels = (clip.label,) if clip.label else ()
            place = f"{file.name}, line {clip.line}"
            entries.append(Entry(path, labels, video_id(path, Path(config.root)), place=place))
        else:
            missing.append(Line(f"{clip.name}.mp4", (), f"line {clip.line}"))
    if not entries:
        advice = f"Looked in {folder}; set data.videos to the folder that holds them."
        require_found(of_split[0][0], missing, len(of_split), advice)
    entries, classes, notes = unify_classes(entries, {clip.label for _, clip in clips} - {""})
    return record_set(config, split, entries, classes, choice=choice, num_missing=len(missing), notes=notes)


def _annotation_files(config: DataConfig) -> list[Path]:
    stated = Path(config.root) / config.annotations
    if config.annotations and stated.is_file():
        return [stated]
    folders = annotation_folders(config, *_VERSIONS)
    by_split: dict[str, Path] = {}
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        match = _FILE.fullmatch(path.name)
        if match and path.is_file():
            name = canonical(match[1])
            if name in by_split:
                raise ConfigError(
                    f"{config.root}: {by_split[name]} and {path} both list the split {name!r}; set "
                    "data.annotations to a folder that holds one of them."
                )
            by_split[name] = path
    if not by_split:
        no_file(config, folders, "train.csv", "kinetics-400_train.csv")
    return [by_split[name] for name in sorted(by_split, key=("train", "val", "test").index)]


def _read_clips(file: Path) -> list[_Clip]:
    table = read_table(file, ("youtube_id", "time_start", "time_end", "split"), ("label",), official=True)
    clips = []
    for line, row in table.rows:
        with errors_at(file, f"line {line}"):
            # Some releases write seconds as "5.0".
            try:
                start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
            except ValueError:
                times = f"{row['time_start']!r} and {row['time_end']!r}"
                raise ValueError(f"time_start and time_end are {times}; they must be seconds.") from None
            if not row["youtube_id"] or not row["split"]:
                raise ValueError("youtube_id or split is empty; every video needs both.")
        name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
        clips.append(_Clip(row["label"], row["youtube_id"], name, canonical(row["split"]), line))
    return clips


def _index_videos(folders: Sequence[Path], split: str, names: frozenset[str]) -> tuple[dict[str, list[str]], Path]:
    """Map stems to the videos of that name, below the first of the folders that holds any; return that folder too.

    Files are videos by their extension, folders (of frames) when they have one of `names`.
    """
    by_stem: dict[str, list[str]] = {}
    for folder in folders:
        for start in _split_folders(folder, split):
            for parent, inside, files in walk_folders(start):
                for name in files:
                    stem, extension = os.path.splitext(name)
                    if extension.lower() in VIDEO_EXTENSIONS and not name.startswith("."):
                        by_stem.setdefault(stem, []).append(os.path.join(parent, name))
                for name in names.intersection(inside):
                    by_stem.setdefault(name, []).append(os.path.join(parent, name))
                inside[:] = [name for name in inside if name not in names]  # do not list 300 frames a video
        if by_stem:
            return by_stem, folder
    return {}, folders[0]


def _split_folders(folder: Path, split: str) -> list[Path]:
    """The folders of a split, or the folder itself where the splits have none."""
    # "val" must not read the training videos: clips of both have the same form of name.
    matches = [(path, match) for path in sorted(folder.iterdir()) if (match := _FOLDER.fullmatch(path.name))]
    splits = [(path, canonical(match[1])) for path, match in matches if path.is_dir()]
    return [path for path, name in splits if name == split] if splits else [folder]


def _plain(name: str) -> str:
    """Letters and digits only: tools replace spaces, brackets and quotes of class names differently."""
    return re.sub(r"[\W_]+", "", name.lower())
