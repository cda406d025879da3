"""Find and read annotation files, and find the videos that they list."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from vsn.config import ConfigError, DataConfig
from vsn.data.part import Part
from vsn.data.readers.entries import Entry, video_id
from vsn.data.readers.listing import Listing, locate
from vsn.data.readers.splits import SplitChoice, choose_split
from vsn.data.readers.text import read_text
from vsn.data.records import missing_path

T = TypeVar("T")

# --- annotation files ------------------------------------------------------------------------------


def annotation_folders(config: DataConfig, *official: str) -> tuple[Path, ...]:
    """Return the folders that may hold the annotation files.

    `data.annotations` if set, else those that exist of root, root/annotations, root/labels and the
    `official` names in root.
    """
    root = Path(config.root)
    if config.annotations:
        folder = root / config.annotations
        if folder.is_file():
            raise ConfigError(
                f"data.annotations is {config.annotations!r}, a file. Source {config.source!r} reads several: set it to "
                "their folder."
            )
        if not folder.is_dir():
            raise missing_path("data.annotations", config.annotations, folder)
        return (folder,)
    # Root first: what a user puts there overrides an unpacked download.
    names = ("", "annotations", "labels", *official)
    return tuple(folder for folder in (root / name for name in names) if folder.is_dir())


def require_file(config: DataConfig, folders: Sequence[Path], *names: str) -> Path:
    """Return the first of these files that exists, in any of the folders. Raises `ConfigError` when none does."""
    file = _find_file(folders, names)
    if file is None:
        no_file(config, folders, *names)
    return file


def require_split_file(
    config: DataConfig, split: str, folders: Sequence[Path], names: Mapping[str, Sequence[str]]
) -> tuple[SplitChoice, Path]:
    """Return which split of the data to read, and its annotation file.

    `names` maps each split that the data may have to the names that its file may have. Raises
    `ConfigError` when no split has a file, and `NoSplitError` when this one has none.
    """
    files = {name: file for name, file_names in names.items() if (file := _find_file(folders, file_names))}
    if not files:
        no_file(config, folders, *next(iter(names.values())))
    choice = choose_split(config, split, files)
    return choice, files[choice.names[0]]


def no_file(config: DataConfig, folders: Sequence[Path], *names: str) -> NoReturn:
    """Raise the `ConfigError` of missing annotation files."""
    raise ConfigError(
        f"{config.root}: no {' or '.join(names)} was found for source {config.source!r}; looked in "
        f"{', '.join(map(str, folders))}. Set data.annotations to the folder that holds it."
    )


def _find_file(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names for folder in folders if (folder / name).is_file()), None)


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Read the lines that are not empty, stripped, with their numbers from 1. Raises `ConfigError`."""
    # Not splitlines: it also splits at characters that class names and paths may contain.
    lines = [
        (number, stripped) for number, line in enumerate(read_text(file).split("\n"), 1) if (stripped := line.strip())
    ]
    if not lines:
        raise ConfigError(f"{file}: the file is empty.")
    return lines


def read_json(file: Path) -> list[Any] | dict[str, Any]:
    """Read a JSON file that holds a list or an object, not empty. Raises `ConfigError`."""
    try:
        value = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: not JSON ({error}).") from error
    if not isinstance(value, list | dict) or not value:
        raise ConfigError(f"{file}: expected a list or an object that is not empty, got {value!r}.")
    return value


class Line(NamedTuple):
    """A video as an annotation file names it."""

    name: str
    """Path of a video file or of a folder of frames, relative to one of the folders of videos."""
    class_names: tuple[str, ...]
    where: str = ""
    """Its place in the file, for messages: "line 3". `parse_lines` and `parse_entries` set it."""
    listed_frames: int = 0
    """See `VideoRecord.listed_frames`."""
    video_id: str = ""
    """Its id; empty where that is its path and times."""
    group: str = ""
    """See `VideoRecord.group`."""
    part: Part | None = None
    """The segment, None for a whole video, or where `frames` states it."""
    frames: tuple[int, int] | None = None
    """First frame of a segment and the one after its last; see `part_on_disk`."""


@contextlib.contextmanager
def errors_at(file: Path, where: str) -> Iterator[None]:
    """Convert a `ValueError` to a `ConfigError` that names the file and the place in it."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{file}: {where}: {error}") from None


def parse_lines(file: Path, parse: Callable[[str], Line | None]) -> list[Line]:
    """Parse each line of a text file; None skips a line. See `errors_at` for a `ValueError` of `parse`."""
    return list(_parsed(file, "line", read_lines(file), parse))


def parse_entries(file: Path, parse: Callable[[dict[str, Any]], Line | None]) -> list[Line]:
    """Parse each object of a JSON list; see `parse_lines`."""
    entries = read_json(file)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{file}: expected a list of objects, one for each video.")
    return list(_parsed(file, "entry", enumerate(entries, 1), parse))


def _parsed(file: Path, kind: str, items: Iterable[tuple[int, T]], parse: Callable[[T], Line | None]) -> Iterator[Line]:
    # `parse` states what is wrong with a line; the file and the place are added here, once for all readers.
    for number, item in items:
        with errors_at(file, where := f"{kind} {number}"):
            line = parse(item)
        if line is not None:
            yield line._replace(where=where)


# --- videos ----------------------------------------------------------------------------------------


def video_folders(config: DataConfig, *usual: str) -> tuple[Path, ...]:
    """Return the folders that paths of videos may be relative to: `data.videos`, or the `usual` ones in root, then root."""
    root = Path(config.root)
    if config.videos:
        folder = root / config.videos
        if not folder.is_dir():
            raise missing_path("data.videos", config.videos, folder)
        return (folder,)
    return tuple(folder for folder in (root / name for name in (*usual, "")) if folder.is_dir())


def find_videos(
    config: DataConfig,
    file: Path,
    lines: Sequence[Line],
    usual: Sequence[str] = (),
    *,
    folders: Sequence[Path] | None = None,
    flat: bool = False,
    may_miss: bool = False,
    listing: Listing | None = None,
) -> tuple[list[Entry], int]:
    """Find the videos that an annotation file lists; return them and the number of missing ones.

    Looks in `folders`, by default those of `video_folders(config, *usual)`. `flat`: also look for the last part
    of a name, without its class folder. Raises `ConfigError` when any is missing, or, with `may_miss`, when all are.
    """
    listing = listing or Listing()
    bases = [str(folder) for folder in folders or video_folders(config, *usual)]
    entries, missing = find_lines(config, file, lines, bases, listing, listing.find, flat=flat)
    if not may_miss or not entries:
        require_found(file, missing, len(lines), f"Looked in {', '.join(bases)}; {_SET_VIDEOS}")
    return entries, len(missing)


_SET_VIDEOS = "set data.videos to the folder that holds them."


def find_lines(
    config: DataConfig,
    file: Path,
    lines: Sequence[Line],
    bases: Sequence[str],
    listing: Listing,
    find: Callable[[str], str | None],
    *,
    flat: bool = False,
) -> tuple[list[Entry], list[Line]]:
    """Find the videos of lines below the folders `bases`, as `locate` does; return them and the lines without a video."""
    root = Path(config.root)
    entries, missing = [], []
    for line in lines:
        # UCF101 lists "YoYo/v_YoYo_g01_c01.avi"; some copies have all videos in one folder.
        names = (line.name, os.path.basename(line.name)) if flat else (line.name,)
        existing, is_respelled = locate(listing, bases, names, find)
        if existing is None:
            missing.append(line)
        else:
            path = Path(existing)
            with errors_at(file, line.where):
                part = part_on_disk(path, line.part, line.frames, config)
            entries.append(
                Entry(
                    path,
                    line.class_names,
                    line.video_id or video_id(path, root, part),
                    line.listed_frames,
                    place=f"{file.name}, {line.where}",
                    respelled=line.name if is_respelled else "",
                    group=line.group,
                    part=part,
                )
            )
    return entries, missing


def require_found(file: Path, missing: Sequence[Line], num_lines: int, advice: str) -> None:
    """Raise `ConfigError` when videos are missing, naming the first of them."""
    # All are reported at once: one by one, a wrong folder would take a run for each video.
    if missing:
        named = ", ".join(f"{line.name!r} ({line.where})" for line in missing[:3])
        more = ", ..." if len(missing) > 3 else ""
        cause = next((text for pattern, text in _CAUSES if re.search(pattern, missing[0].name)), "")
        raise ConfigError(f"{file}: {len(missing)} of {num_lines} videos are missing: {named}{more}.{cause} {advice}")


# What makes a listed name wrong, where the name shows it.
_CAUSES = (
    (r"^[a-z]+://", " That is a web address: download the videos, and write paths relative to the list."),
    (r"^[A-Za-z]:[\\/]", " That is a path on a Windows machine: write paths relative to the list."),
    (
        r"^['\"\u2018-\u201f\u00ab\u00bb].*['\"\u2018-\u201f\u00ab\u00bb]$",
        " The quotes are part of the name: remove them.",
    ),
    (r"%[0-9A-Fa-f]{2}", " That is written as in a web address: write a space for %20."),
    (r"[,;\t]\s*\d+$", " The name ends in a separator and a number: set data.separator."),
    (r"^/", " Paths that begin with / are those of a disk: write paths relative to the list."),
    (r"\s\d+$", " The name ends in numbers: the line has more numbers than this format."),
    (r"[ÃÂ][\x80-\xbf€-™]|\ufffd", " Its letters were damaged when the list was saved: save it as UTF-8 again."),
)


# --- times of frames -------------------------------------------------------------------------------


def part_on_disk(path: Path, part: Part | None, frames: tuple[int, int] | None, config: DataConfig) -> Part | None:
    """Return a segment as its video is read: from seconds, or from a first frame and the one after the last, from 0.

    Annotations count frames by `data.annotation_rate`, else they are the frames of the file, with its time stamps. The
    frames of a folder have no times: each counts as a second, as `VideoReader.times` has it, and `data.annotation_rate`
    says how many were extracted per second.

    Raises `ValueError` for frames that the file does not have, a file that cannot be read, and seconds of a folder of frames
    without that rate.
    """
    rate = config.annotation_rate
    if frames is None:
        if part is None or not path.is_dir():
            return part
        if not rate:
            raise ValueError(
                f"{path.name} is a folder of frames, which have no times: set data.annotation_rate to the frames per second "
                "that were extracted."
            )
        first = round(part.start * rate)
        return Part(first, None if part.end is None else max(round(part.end * rate), first + 1))
    if path.is_dir():
        return Part(*map(float, frames))
    if rate:
        return Part(round(frames[0] / rate, 3), round(frames[1] / rate, 3))
    times = _frame_times(path, os.stat(path).st_mtime_ns)
    if frames[1] >= len(times):  # the time after the last is its end
        raise ValueError(
            f"the frames are {frames[0]} to {frames[1] - 1}, and {path.name} has {len(times) - 1} frames. If another rate "
            "than that of the file counts them, set data.annotation_rate."
        )
    return Part(round(times[frames[0]], 3), round(times[frames[1]], 3))


@lru_cache(maxsize=64)
def _frame_times(path: Path, changed: int) -> tuple[float, ...]:
    """Return the seconds of each frame of a file and of its end, from the time stamps of its packets."""
    # Only here: readers of lists open no video.
    from vsn.data.video.container import (
        content_errors,
        open_container,
        read_packets,
        shown_at,
        time_stamp,
        video_stream,
    )
    from vsn.data.video.reader import VideoError

    try:
        with content_errors(path), open_container(path) as container:
            stream = video_stream(path, container)
            packets = [packet for packet in read_packets(path, container, stream) if not packet.is_discard]
            stamps = sorted(stamp for packet in packets if (stamp := time_stamp(container, packet)) is not None)
            begins, base = shown_at(container, stream, min(stamps, default=None)), float(stream.time_base or 0)
    except VideoError as error:
        raise ValueError(f"the frames of {path} cannot be counted ({error}); set data.annotation_rate.") from None
    if len(stamps) < max(2, len(packets)):
        raise ValueError(f"the frames of {path} have no times; set data.annotation_rate to their number in a second.")
    times = [begins + (stamp - stamps[0]) * base for stamp in stamps]
    return (*times, times[-1] + (times[-1] - times[0]) / (len(times) - 1))
