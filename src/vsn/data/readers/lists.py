"""Read the lists of other code bases, a video a line: TSN and TSM, MMAction2, SlowFast."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.class_names import read_class_list
from vsn.data.readers.entries import record_set
from vsn.data.readers.files import Line, find_videos, parse_lines, video_folders
from vsn.data.readers.listing import Listing
from vsn.data.readers.segments import VideoLabels
from vsn.data.readers.splits import canonical, choose_split, no_splits, same_split
from vsn.data.records import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, RecordSet, missing_path

_SPLITS = ("train", "val", "test")
_LIST_FOLDERS = ("", "annotations", "labels", "lists")
_LIST_SUFFIXES = (".csv", ".lst", ".txt")
# The lists of TSM are relative to these.
_OFFICIAL_FOLDERS = ("20bn-something-something-v1", "20bn-something-something-v2", "20bn-jester-v1")
# In order of precedence.
_CLASS_FILES = (
    "category.txt", "categories.txt", "classes.txt", "class_names.txt", "classnames.txt", "labels.txt",
    "label_map.txt", "classInd.txt", "label_map*.txt", "*label_map.txt", "*class_names.json", "*classnames.json",
    "labels.json",
)  # fmt: skip
_PARTS = "If it is a list of parts of videos (an offset before the number of frames), set data.with_offset = true"


_Parse = Callable[[str], Line]
"""Parses a line; the class names are labels, in digits: the lists state no names."""


class _Check(Protocol):
    def __call__(self, file: Path, lines: Sequence[Line], *, has_names: bool) -> None: ...


def read_tsn_list(config: DataConfig, split: str) -> RecordSet:
    """Read lists of TSN, TRN and TSM: `path num_frames label` a line, `path` being a folder of frames.

    The frames of the folder are counted; `vsn data doctor` reports where the list differs. See `_read_list`
    for the places of files.
    """

    def parse(line: str) -> Line:
        # From the right: paths may contain spaces.
        path, *numbers = line.rsplit(None, 2)
        if len(numbers) != 2 or not all(map(str.isdecimal, numbers)):
            raise ValueError(f"expected a path, a number of frames and a label, got {line!r}.")
        return Line(path, (numbers[1],), listed_frames=int(numbers[0]))

    return _read_list(config, split, parse)


def read_mmaction2_list(config: DataConfig, split: str) -> RecordSet:
    """Read lists of MMAction2: `video label [label ...]`, or `folder num_frames label [label ...]` (rawframes).

    A line with two numbers or more is of rawframes when its path is a folder, or, when it does not exist,
    has no video extension.

    With `config.with_offset` a line is a part: `path offset num_frames label [label ...]`; see `part_on_disk` for its
    seconds. Without, such a list looks as if a video had several labels, and is refused when `config.task` takes one label,
    when a path is listed with different numbers, when a folder has another number of frames than the first number, and when
    every video file has the same number of labels, two or more, and no file names the classes. See `_read_list` for the
    places of files.
    """
    listing = Listing()
    folders = [folder for name in _SPLITS for folder in _video_folders(config, name)]
    bases = [os.fspath(folder) for folder in dict.fromkeys(folders)]
    numbers_of: dict[str, tuple[str, ...]] = {}

    def parse(line: str) -> Line:
        # The numbers behind the last word that is no number: "a b/x.mp4 3 7" -> "a b/x.mp4", [3, 7].
        words = line.split()
        start = next((i for i in range(1, len(words)) if all(map(str.isdecimal, words[i:]))), len(words))
        path, numbers = line.rsplit(None, len(words) - start)[0], tuple(words[start:])
        if config.with_offset:
            if len(numbers) < 3 or not int(numbers[1]):
                raise ValueError(f"expected a path, an offset, a number of frames and labels, got {line!r}.")
            first, count = map(int, numbers[:2])
            return Line(path, numbers[2:], frames=(first, first + count))
        if len(numbers) < 2:
            return Line(path, numbers)
        folder = _frames_folder(listing, bases, path)
        if folder is not None and len(numbers) == 2:
            return Line(path, numbers[1:], listed_frames=int(numbers[0]))
        if config.task == "classify":
            form = "a video file and one label" if folder is None else "a folder, its number of frames and one label"
            raise ValueError(
                f'expected {form}, got {line!r}. {_PARTS}. If all are labels, set data.task = "multilabel".'
            )
        # "v 0 163 1" and "v 80 83 0" are two parts of one video, not 0 and 80 frames.
        if numbers_of.setdefault(path, numbers) != numbers:
            raise ValueError(f"{path!r} is listed with other numbers before, got {line!r}. {_PARTS}.")
        if folder is None:
            return Line(path, numbers)
        num_images = sum(os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS for name in listing.names(folder))
        if len(numbers) == 3 and num_images and abs(int(numbers[0]) - num_images) > 2 + num_images // 50:
            raise ValueError(f"the folder has {num_images} frames, got {line!r}. {_PARTS}.")
        return Line(path, numbers[1:], listed_frames=int(numbers[0]))

    def check(file: Path, lines: Sequence[Line], *, has_names: bool) -> None:
        counts = {len(line.class_names) for line in lines if not line.listed_frames and line.frames is None}
        if not has_names and len(counts) == 1 and max(counts) > 1:
            raise ConfigError(
                f"{file}: every video has {max(counts)} numbers, for example {lines[0].name!r} "
                f"{' '.join(lines[0].class_names)}. {_PARTS}. If all are labels, state the names of the classes in "
                "classes.txt, a name on each line."
            )

    return _read_list(config, split, parse, listing=listing, check=check)


def write_mmaction2_list(videos: Sequence[VideoLabels], classes: Sequence[str]) -> str:
    """Return a list with offsets: `path offset num_frames label` a line; a label is the place of the class in `classes`.

    Raises `ConfigError` for a video without a rate, and for a label that is no class.
    """
    lines = []
    for video in videos:
        if not video.frames_per_second:
            raise ConfigError(
                f"{video.path}: its frames per second are unknown, by which the list counts. Choose json."
            )
        for one in video.segments:
            if one.label not in classes:
                raise ConfigError(f"{video.path}: the label {one.label!r} is no class.")
            first, stop = map(video.frame_at, (one.start, one.end))
            stop = min(max(stop, first + 1), video.num_frames)
            lines.append(f"{video.path.as_posix()} {first} {stop - first} {classes.index(one.label)}\n")
    return "".join(lines)


def read_slowfast_list(config: DataConfig, split: str) -> RecordSet:
    """Read lists of SlowFast: `path label` a line, without a header, separated by `data.separator`.

    See `_read_list` for the places of files.
    """

    def parse(line: str) -> Line:
        path, separator, label = line.rpartition(config.separator)
        if not separator:
            return Line(line, ())
        if not label.strip().isdecimal():
            raise ValueError(f"expected a path, {config.separator!r} (data.separator) and a label, got {line!r}.")
        return Line(path.strip(), (label.strip(),))

    return _read_list(config, split, parse)


def _frames_folder(listing: Listing, bases: Sequence[str], path: str) -> str | None:
    """Return the folder of frames that a path names, also one that does not exist; None for a video file."""
    for base in bases:
        is_folder = listing.is_folder(os.path.join(base, path))
        if is_folder is not None:
            return os.path.join(base, path) if is_folder else None
    return None if os.path.splitext(path)[1].lower() in VIDEO_EXTENSIONS else os.path.join(bases[0], path)


def _read_list(
    config: DataConfig, split: str, parse: _Parse, *, listing: Listing | None = None, check: _Check | None = None
) -> RecordSet:
    """Read the split's list; `check` raises `ConfigError` for lines that are wrong as a whole.

    Lists are the `.txt`, `.csv` and `.lst` files in root, root/annotations, root/labels or root/lists
    whose name has the split as a word (`train_videofolder.txt`, `ucf101_val_split_1_videos.txt`: of
    several, that of `data.fold`); or those that `data.annotations` names: a folder, a file name with the
    placeholders {split} and {fold}, or a single file, of which a part is held out.

    Class names come from a file in the list's folder or in root: `category.txt`, `classes.txt`,
    `class_names.txt`, `labels.txt`, `label_map*.txt`, `classInd.txt`, `*classnames.json` and the like;
    without one they are "0", "1", ... Paths are absolute or relative to root, root/frames, root/rawframes,
    root/videos, these with the split (root/videos_train), the split's folder, the official folders of
    20BN, or the list's folder; with `data.videos`, only to that.
    """
    files = _find_lists(config)
    choice = no_splits(config, split) if "" in files else choose_split(config, split, files)
    split_name = choice.names[0] if choice.names else ""
    parsed = {name: parse_lines(file, parse) for name, file in files.items()}
    # The lists of all splits: a class may have no video in this one.
    largest = max((int(label) for lines in parsed.values() for line in lines for label in line.class_names), default=-1)
    file = files[split_name]
    class_file = _class_file(config, file)
    if check is not None:
        check(file, parsed[split_name], has_names=class_file is not None)
    classes = _class_names(file, class_file, largest)
    lines = [
        line._replace(class_names=tuple(classes[label] for label in dict.fromkeys(map(int, line.class_names))))
        for line in parsed[split_name]
    ]
    folders = _video_folders(config, split_name) + ([] if config.videos else [file.parent])
    entries, _ = find_videos(config, file, lines, folders=list(dict.fromkeys(folders)), listing=listing)
    return record_set(config, split, entries, classes, choice=choice)


def _video_folders(config: DataConfig, split: str) -> list[Path]:
    kinds = ("frames", "rawframes", "videos")
    names = same_split(split) if split else ()
    of_split = [f"{kind}_{name}" for kind in kinds for name in names]
    return list(video_folders(config, *kinds, *of_split, *names, *_OFFICIAL_FOLDERS))


# --- which lists -----------------------------------------------------------------------------------


def _find_lists(config: DataConfig) -> dict[str, Path]:
    """The list of each split; {"": file} when one list holds all videos."""
    stated = Path(config.root) / config.annotations
    if config.annotations and not stated.is_dir():
        return _stated_lists(config)
    folders = [stated] if config.annotations else [Path(config.root) / name for name in _LIST_FOLDERS]
    by_split: dict[str, list[Path]] = {}
    for path in (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())):
        # "train_videofolder" -> {"train"}; "train_val_list" has two and is no list of one split.
        words = {canonical(word) for word in re.split(r"[^a-z]+", path.stem.lower())} & set(_SPLITS)
        fold = re.search(r"split[-_]?(\d+)", path.stem.lower())
        of_fold = fold is None or int(fold[1]) == config.fold
        if path.suffix.lower() in _LIST_SUFFIXES and len(words) == 1 and of_fold and path.is_file():
            by_split.setdefault(words.pop(), []).append(path)
    for name, paths in by_split.items():
        if len(paths) > 1:
            raise ConfigError(
                f"{config.root}: there are {len(paths)} lists of split {name!r}: {', '.join(map(str, paths))}. "
                'Set data.annotations to one, with {split} for the split, as in "{split}_videos.txt".'
            )
    if not by_split:
        raise ConfigError(
            f"{config.root}: no list was found for source {config.source!r}, such as train_videofolder.txt; looked "
            f"in {', '.join(map(str, folders))}. Set data.annotations to the list or its folder."
        )
    return {name: paths[0] for name, paths in by_split.items()}


def _stated_lists(config: DataConfig) -> dict[str, Path]:
    pattern = config.annotations.replace("{fold}", str(config.fold))
    root = Path(config.root)
    if "{split}" not in pattern:
        files = {"": root / pattern} if (root / pattern).is_file() else {}
    else:
        files = {}
        # The names of the recipe, then the usual aliases.
        stated = (config.train_split, config.val_split, config.test_split)
        for name in (*stated, *(name for split in _SPLITS for name in same_split(split))):
            file = root / pattern.replace("{split}", name)
            if file.is_file():
                files.setdefault(canonical(name), file)
    if not files:
        kind = "file for any {split}," if "{split}" in pattern else "file"
        raise missing_path("data.annotations", config.annotations, root / pattern, kind)
    return files


def _class_file(config: DataConfig, file: Path) -> Path | None:
    candidates = (
        path
        for pattern in _CLASS_FILES
        for folder in dict.fromkeys((file.parent, Path(config.root)))
        for path in sorted(folder.glob(pattern))
        if path != file
    )
    return next(candidates, None)


def _class_names(file: Path, class_file: Path | None, largest: int) -> tuple[str, ...]:
    if class_file is None:
        return tuple(map(str, range(largest + 1)))
    classes = read_class_list(class_file)
    if largest >= len(classes.names):
        raise ConfigError(
            f"{file}: the largest label of the lists is {largest}, and {classes.file} states {len(classes.names)} classes, "
            f"0 to {len(classes.names) - 1}."
        )
    return classes.names
