"""Kinetics-400, -600 and -700."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.entries import Entry, record_set, video_id
from vsn.data.readers.files import Line, annotation_folders, no_file, require_found, video_folders
from vsn.data.readers.splits import canonical, find_split, same_split
from vsn.data.records import VIDEO_EXTENSIONS, RecordSet, walk_folders

_VERSIONS = (
    "kinetics400",
    "kinetics600",
    "kinetics700",
    "kinetics700_2020",
    "k400",
    "k600",
    "k700",
    "k700-2020",
)
_SPLIT_WORDS = "|".join(name for split in ("train", "val", "test") for name in same_split(split))
_FILE = re.compile(rf"(?:(?:kinetics|k)?[-_]?(?:[467]00)?[-_]?(?:2020)?[-_])?({_SPLIT_WORDS})\.csv", re.IGNORECASE)
_FOLDER = re.compile(
    rf"(?:(?:videos?|frames|rawframes)[-_])?({_SPLIT_WORDS})(?:[-_](?:videos?|\d+p?))?", re.IGNORECASE
)  # "training_dog" is a class


class _Clip(NamedTuple):
    label: str
    youtube_id: str
    seconds: tuple[int, int]
    split: str
    line: int

    @property
    def name(self) -> str:
        return f"{self.youtube_id}_{self.seconds[0]:06d}_{self.seconds[1]:06d}"


def read_kinetics(config: DataConfig, split: str) -> RecordSet:
    """Kinetics: `{train,val,test}.csv` with the header `label,youtube_id,time_start,time_end,split[,is_cc]`.

    Also called `kinetics-400_train.csv`, `k700_val.csv`, `validate.csv` and the like, in root,
    root/annotations, root/labels or a folder of the version's name (root/kinetics400, ...); or one
    file with all splits, named by `data.annotations`. The classes are the labels of all files, sorted;
    the test files of some versions have none.

    Videos are `{id}_{start:06d}_{end:06d}` or `{id}`, `.mp4`, another container or a folder of frames, in
    class folders (spaces or `_`) or without, below root/videos, root/compress, root/clips, root/frames,
    root/rawframes, a folder of the version's name, or root, the first of them that holds any; where the
    splits have folders (train, videos_train, rawframes_train, train_256, ...), in those of the split.
    Links rot: videos that are not there are left out and counted in `num_missing`.
    """
    files = _annotation_files(config)
    clips = {file: _read_clips(file) for file in files}
    every = [(file, clip) for file in files for clip in clips[file]]
    asked = find_split(config, split, list(dict.fromkeys(clip.split for _, clip in every)))
    classes = sorted({clip.label for _, clip in every} - {""})
    chosen = [(file, clip) for file, clip in every if clip.split == asked]
    folders = video_folders(config, "videos", "compress", "clips", "frames", "rawframes", *_VERSIONS)
    names = frozenset(name for _, clip in every for name in (clip.name, clip.youtube_id))
    by_stem, folder = _index_videos(folders, asked, names)
    entries, missing = [], []
    for _, clip in chosen:
        path = _pick(by_stem.get(clip.name) or by_stem.get(clip.youtube_id) or (), clip.label)
        if path is None:
            missing.append(Line(clip.name + ".mp4", (), f"line {clip.line}"))
        else:
            labels = (clip.label,) if clip.label else ()
            entries.append(Entry(path, labels, video_id(path, Path(config.root))))
    require_found(chosen[0][0], missing, len(chosen), [folder], may_miss=True)
    return record_set(config, split, entries, classes, num_missing=len(missing))


def _annotation_files(config: DataConfig) -> list[Path]:
    stated = Path(config.root) / config.annotations
    if config.annotations and stated.is_file():
        return [stated]
    folders = annotation_folders(config, *_VERSIONS)
    by_split: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
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
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = {"youtube_id", "time_start", "time_end", "split"}
            if not columns <= set(reader.fieldnames or ()):
                came = ",".join(reader.fieldnames or ()) or "empty"
                raise ConfigError(
                    f"{file}: the header is {came!r}; that of Kinetics is 'label,youtube_id,time_start,time_end,split'."
                )
            clips = [_clip(file, reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file}: not a CSV file in UTF-8 ({error}).") from error
    if not clips:
        raise ConfigError(f"{file}: no line follows the header; every video needs a line.")
    return clips


def _clip(file: Path, line: int, row: dict[str, str | None]) -> _Clip:
    label, youtube_id, split = ((row.get(name) or "").strip() for name in ("label", "youtube_id", "split"))
    try:
        seconds = int(float(row["time_start"] or "")), int(float(row["time_end"] or ""))
    except (TypeError, ValueError):
        came = f"{row['time_start']!r} and {row['time_end']!r}"
        raise ConfigError(f"{file}: the times on line {line} are {came}; they are seconds.") from None
    if not youtube_id or not split:
        raise ConfigError(f"{file}: the youtube_id or the split on line {line} is empty; both name the video.")
    return _Clip(label, youtube_id, seconds, canonical(split), line)


def _index_videos(folders: Sequence[Path], split: str, names: frozenset[str]) -> tuple[dict[str, list[str]], Path]:
    """Stem -> videos of that name, below the first of the folders that holds any, and that folder.

    Files are videos by their extension, folders (of frames) when they bear one of `names`.
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
                inside[:] = [name for name in inside if name not in names]  # what they hold is not listed
        if by_stem:
            return by_stem, folder
    return {}, folders[0]


def _split_folders(folder: Path, split: str) -> list[Path]:
    """The folders of a split, or the folder itself where the splits have none."""
    matches = [(path, match) for path in sorted(folder.iterdir()) if (match := _FOLDER.fullmatch(path.name))]
    splits = [(path, canonical(match[1])) for path, match in matches if path.is_dir()]
    return [path for path, name in splits if name == split] if splits else [folder]


def _pick(candidates: Sequence[str], label: str) -> Path | None:
    """The candidate in the folder of the label, else the first: names of clips are unique but for a few."""
    if len(candidates) > 1:
        plain = _plain(label)
        candidates = sorted(candidates, key=lambda path: _plain(Path(path).parent.name) != plain)
    return Path(candidates[0]) if candidates else None


def _plain(name: str) -> str:
    """Letters and digits alone: class folders replace spaces, brackets and quotes in many ways."""
    return re.sub(r"[\W_]+", "", name.lower())
