"""Find and read annotation files, and find the videos that they list."""

from __future__ import annotations

import contextlib
import csv
import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.entries import Entry, video_id
from vsn.data.readers.splits import find_split
from vsn.data.records import VIDEO_EXTENSIONS

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
        if not folder.is_dir():
            raise ConfigError(
                f"data.annotations is {config.annotations!r}, and there is no folder {str(folder)!r}. "
                f"Source {config.source!r} reads several files: set it to their folder."
            )
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
) -> tuple[str, Path]:
    """Return the name of the split in the data, and its annotation file.

    `names` maps each split that the data may have to the names that its file may have. Raises
    `ConfigError` when no split has a file, and `NoSplitError` when this one has none.
    """
    files = {name: file for name, file_names in names.items() if (file := _find_file(folders, file_names))}
    if not files:
        no_file(config, folders, *next(iter(names.values())))
    name = find_split(config, split, list(files))
    return name, files[name]


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
    # utf-8-sig: Excel writes a byte order mark, which would become part of the first name.
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not text in UTF-8 ({error}).") from error
    # Not splitlines: it also splits at characters that class names and paths may contain.
    lines = [(number, stripped) for number, line in enumerate(text.split("\n"), 1) if (stripped := line.strip())]
    if not lines:
        raise ConfigError(f"{file}: the file is empty.")
    return lines


def read_json(file: Path) -> list[Any] | dict[str, Any]:
    """Read a JSON file that holds a list or an object, not empty. Raises `ConfigError`."""
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file}: not JSON in UTF-8 ({error}).") from error
    if not isinstance(value, list | dict) or not value:
        raise ConfigError(f"{file}: expected a list or an object that is not empty, got {value!r}.")
    return value


def read_csv_rows(
    file: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV file with a header: its columns, and line numbers with stripped cells, "" for missing ones.

    Other columns are ignored. Raises `ConfigError` for a missing column, and for one whose name is nearly
    that of a known column: ignoring "Split" would silently train on the test videos.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            known = [*required, *optional]
            for name in columns:
                near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.8)
                # "idx" is near "id", and means something else.
                if near and len(near[0]) > 2 and name not in known and near[0] not in columns:
                    raise ConfigError(f"{file}: unknown column {name!r}; did you mean {near[0]!r}?")
            if not set(required) <= set(columns):
                raise ConfigError(
                    f"{file}: the header is {','.join(columns) or 'empty'!r}; it needs the columns {','.join(required)}."
                )
            reader.fieldnames = columns  # stripped: "path, label" is common
            rows = [(reader.line_num, {name: (row.get(name) or "").strip() for name in known}) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file}: not a CSV file in UTF-8 ({error}).") from error
    if not rows:
        raise ConfigError(f"{file}: no line follows the header; every video needs a line.")
    return columns, rows


class Line(NamedTuple):
    """A video as an annotation file names it."""

    name: str
    """Path of a video file or of a folder of frames, relative to one of the folders of videos."""
    class_names: tuple[str, ...]
    where: str = ""
    """Its place in the file, for messages: "line 3". `parse_lines` and `parse_entries` set it."""
    listed_frames: int = 0
    """See `VideoRecord.listed_frames`."""


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
            raise ConfigError(f"data.videos is {config.videos!r}; there is no folder {str(folder)!r}.")
        return (folder,)
    return tuple(folder for folder in (root / name for name in (*usual, "")) if folder.is_dir())


class Listing:
    """The contents of folders, each listed once: looking up 200,000 videos one by one takes minutes on a network disk."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, bool]] = {}
        self._stems: dict[str, dict[str, str]] = {}

    def names(self, folder: str) -> dict[str, bool]:
        """Map each name in a folder to whether it is a folder; empty when there is no such folder."""
        # scandir tells folders from files without a call for each entry.
        if folder not in self._names:
            try:
                with os.scandir(folder or ".") as entries:
                    self._names[folder] = {entry.name: _is_folder(entry) for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = {}
            except OSError as error:
                raise ConfigError(f"{folder}: the folder cannot be listed ({error.strerror}).") from error
        return self._names[folder]

    def is_folder(self, path: str) -> bool | None:
        """Return whether a path is a folder; None when it does not exist."""
        folder, name = os.path.split(path.rstrip("/"))
        return self.names(folder).get(name)

    def find(self, path: str) -> str | None:
        """Return the path, or the same video in another container or as a folder of frames; None when absent.

        `1.webm` may exist as `1.mp4`, or as the folder `1`; files take precedence.
        """
        folder, name = os.path.split(path.rstrip("/"))
        names = self.names(folder)
        if name in names:
            return os.path.join(folder, name)
        # Data sets are often re-encoded: the lists say .avi or .webm, and the files are .mp4.
        if folder not in self._stems:
            candidates = [
                (is_folder, entry)
                for entry, is_folder in names.items()
                if is_folder or os.path.splitext(entry)[1].lower() in VIDEO_EXTENSIONS
            ]
            # Sorted in reverse, the last of several with one stem wins: a file, and the first by name.
            self._stems[folder] = {_stem(entry): entry for _, entry in sorted(candidates, reverse=True)}
        other = self._stems[folder].get(_stem(name))
        return None if other is None else os.path.join(folder, other)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def _stem(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in VIDEO_EXTENSIONS else name  # "Mr. Smith" has no extension


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
    root = Path(config.root)
    bases = [str(folder) for folder in folders or video_folders(config, *usual)]
    entries, missing = [], []
    for line in lines:
        # UCF101 lists "YoYo/v_YoYo_g01_c01.avi"; some copies have all videos in one folder.
        names = (line.name, os.path.basename(line.name)) if flat else (line.name,)
        candidates = (os.path.join(base, name) for base in bases for name in names)
        existing = next(filter(None, map(listing.find, candidates)), None)
        if existing is None:
            missing.append(line)
        else:
            path = Path(existing)
            entries.append(Entry(path, line.class_names, video_id(path, root), line.listed_frames))
    if not may_miss or not entries:
        require_found(file, missing, len(lines), f"Looked in {', '.join(bases)}; {_SET_VIDEOS}")
    return entries, len(missing)


_SET_VIDEOS = "set data.videos to the folder that holds them."


def require_found(file: Path, missing: Sequence[Line], num_lines: int, advice: str) -> None:
    """Raise `ConfigError` when videos are missing, naming the first of them."""
    # All are reported at once: one by one, a wrong folder would take a run for each video.
    if missing:
        named = ", ".join(f"{line.name!r} ({line.where})" for line in missing[:3])
        more = ", ..." if len(missing) > 3 else ""
        raise ConfigError(f"{file}: {len(missing)} of {num_lines} videos are missing: {named}{more}. {advice}")
