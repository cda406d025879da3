"""Finding annotation files and videos where people have them, and reading the former."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.entries import Entry, video_id
from vsn.data.records import VIDEO_EXTENSIONS

# --- annotation files ------------------------------------------------------------------------------


def annotation_folders(config: DataConfig, *official: str) -> tuple[Path, ...]:
    """Folders that may hold the annotation files: the stated one, or those people use.

    Without `data.annotations`: root, root/annotations, root/labels and the `official` names in root.
    """
    root = Path(config.root)
    if config.annotations:
        folder = root / config.annotations
        if not folder.is_dir():
            raise ConfigError(
                f"data.annotations is {config.annotations!r}, and there is no folder {str(folder)!r}; "
                f"source {config.source!r} reads several files, so name their folder."
            )
        return (folder,)
    names = ("", "annotations", "labels", *official)
    return tuple(folder for folder in (root / name for name in names) if folder.is_dir())


def find_file(folders: Sequence[Path], *names: str) -> Path | None:
    """The first of these files that is there; a name counts before a folder."""
    return next((folder / name for name in names for folder in folders if (folder / name).is_file()), None)


def require_file(config: DataConfig, folders: Sequence[Path], *names: str) -> Path:
    """As `find_file`; `ConfigError` when none is there."""
    file = find_file(folders, *names)
    if file is None:
        no_file(config, folders, *names)
    return file


def no_file(config: DataConfig, folders: Sequence[Path], *names: str) -> NoReturn:
    """Raise the `ConfigError` of annotation files that are not there."""
    looked = ", ".join(map(str, folders))
    raise ConfigError(
        f"{config.root}: no {' or '.join(names)} was found for source {config.source!r}; looked in {looked}. "
        "Set data.annotations to the folder that holds it."
    )


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Line numbers from 1 and lines, stripped, without the empty ones. Raises `ConfigError`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not text in UTF-8 ({error}).") from error
    lines = [(number, stripped) for number, line in enumerate(text.split("\n"), 1) if (stripped := line.strip())]
    if not lines:
        raise ConfigError(f"{file}: the file is empty.")
    return lines


def read_json(file: Path) -> list[Any] | dict[str, Any]:
    """A JSON file that holds a list, or an object, with something in it. Raises `ConfigError`."""
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file}: not JSON in UTF-8 ({error}).") from error
    if not isinstance(value, list | dict) or not value:
        raise ConfigError(f"{file}: it should hold a list or an object with something in it; it holds {value!r}.")
    return value


def read_json_entries(file: Path) -> list[dict[str, Any]]:
    """A JSON file that holds a list of objects, one a video. Raises `ConfigError`."""
    value = read_json(file)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ConfigError(f"{file}: it should hold a list of objects, one a video.")
    return value


def require_known(file: Path, where: str, name: str, classes: Collection[str], stated_in: Path | str) -> None:
    """Raise `ConfigError` for a label that the label file does not state."""
    if name not in classes:
        near = difflib.get_close_matches(name, classes, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"{file}: the label on {where} is {name!r}, which {stated_in} does not list{hint}.")


# --- videos ----------------------------------------------------------------------------------------


class Line(NamedTuple):
    """A video as an annotation file names it."""

    name: str
    """Path of a video file or of a folder of frames, relative to one of the folders of videos."""
    class_names: tuple[str, ...]
    where: str
    """Its place in the file, for messages: "line 3"."""
    listed_frames: int = 0
    """See `VideoRecord.listed_frames`."""


def video_folders(config: DataConfig, *usual: str) -> tuple[Path, ...]:
    """Folders the videos' paths may count from: `data.videos`, or the `usual` names in root, then root."""
    root = Path(config.root)
    if config.videos:
        folder = root / config.videos
        if not folder.is_dir():
            raise ConfigError(f"data.videos is {config.videos!r}; there is no folder {str(folder)!r}.")
        return (folder,)
    return tuple(folder for folder in (root / name for name in (*usual, "")) if folder.is_dir())


class Listing:
    """What folders hold. Each folder is listed once: a look-up in it then costs no access to the disk."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, bool]] = {}
        self._stems: dict[str, dict[str, str]] = {}

    def names(self, folder: str) -> dict[str, bool]:
        """Name -> whether it is a folder; empty when there is no such folder."""
        if folder not in self._names:
            try:
                with os.scandir(folder or ".") as found:
                    self._names[folder] = {entry.name: _is_folder(entry) for entry in found}
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = {}
            except OSError as error:
                raise ConfigError(f"{folder}: the folder cannot be listed ({error.strerror}).") from error
        return self._names[folder]

    def is_folder(self, path: str) -> bool | None:
        """Whether a path is a folder; None when there is nothing."""
        folder, name = os.path.split(path.rstrip("/"))
        return self.names(folder).get(name)

    def find(self, path: str) -> str | None:
        """The path, or the same in another container or as a folder of frames; None without any of them.

        `1.webm` may be there as `1.mp4`, or as the folder `1`; files come first.
        """
        folder, name = os.path.split(path.rstrip("/"))
        names = self.names(folder)
        if name in names:
            return os.path.join(folder, name)
        if folder not in self._stems:
            candidates = [(is_folder, other) for other, is_folder in names.items() if _may_be_video(other, is_folder)]
            self._stems[folder] = {_stem(other): other for is_folder, other in sorted(candidates, reverse=True)}
        other = self._stems[folder].get(_stem(name))
        return None if other is None else os.path.join(folder, other)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _may_be_video(name: str, is_folder: bool) -> bool:
    return is_folder or os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def _stem(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in VIDEO_EXTENSIONS else name


def find_videos(
    config: DataConfig,
    file: Path,
    lines: Sequence[Line],
    folders: Sequence[Path],
    *,
    flat: bool = False,
    may_miss: bool = False,
    listing: Listing | None = None,
) -> tuple[list[Entry], int]:
    """The videos that an annotation file names, and how many of them are not there.

    `flat`: the last part of a name will do. Raises `ConfigError` when some are not there, or, with
    `may_miss`, when none is.
    """
    listing = listing or Listing()
    root = Path(config.root)
    bases = [str(folder) for folder in folders]
    entries, missing = [], []
    for line in lines:
        names = (line.name, os.path.basename(line.name)) if flat else (line.name,)
        places = (os.path.join(base, name) for base in bases for name in names)
        found = next(filter(None, map(listing.find, places)), None)
        if found is None:
            missing.append(line)
        else:
            path = Path(found)
            entries.append(Entry(path, line.class_names, video_id(path, root), line.listed_frames))
    require_found(file, missing, len(lines), folders, may_miss=may_miss)
    return entries, len(missing)


def require_found(
    file: Path, missing: Sequence[Line], num_lines: int, folders: Iterable[Path], *, may_miss: bool
) -> None:
    """Raise `ConfigError` for missing videos: for any, or, with `may_miss`, for all."""
    if missing and (not may_miss or len(missing) == num_lines):
        raise ConfigError(
            f"{file}: {missing_videos(missing, num_lines)} "
            f"Looked in {', '.join(map(str, folders))}; set data.videos to the folder that holds them."
        )


def missing_videos(missing: Sequence[Line], num_lines: int) -> str:
    """One sentence: how many videos are missing, and the first of them.

    >>> missing_videos([Line("a.mp4", (), "line 2")], 3)
    "1 of 3 videos are missing: 'a.mp4' (line 2)."
    """
    named = ", ".join(f"{line.name!r} ({line.where})" for line in missing[:3])
    return f"{len(missing)} of {num_lines} videos are missing: {named}{', ...' if len(missing) > 3 else ''}."
