"""Describe a data set: labeled videos and segments of videos, not yet read, and the class names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vsn.config import ConfigError
from vsn.data.part import Part, VideoPart

# Containers of the supported data sets and of common cameras.
VIDEO_EXTENSIONS = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov",
    ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
})  # fmt: skip
IMAGE_EXTENSIONS = frozenset({".jpeg", ".jpg", ".png", ".webp"})
# Thumbnails, deleted files and archives' extra files; in a data set they would be classes and videos.
_SYSTEM_NAMES = frozenset({
    "#recycle", "$recycle.bin", "@eadir", "@recycle", "__macosx", "desktop.ini", "lost+found", "system volume information",
    "thumbs.db",
})  # fmt: skip


REVERSED = "#reversed"
"""Ends the id of a reversed copy (task "arrow")."""


@dataclass(frozen=True)
class VideoRecord:
    """One labeled video, or a labeled segment of one, not yet read."""

    path: Path
    """A video file, a folder of frames, or a video inside a packed file."""
    labels: tuple[int, ...]
    """Indices into the classes: one, several (task "multilabel"), or none when unknown."""
    video_id: str
    """Path relative to the root, with forward slashes; then the times of a segment, as in "day1.mp4#t=12.5,20"; then
    "#reversed" for a reversed copy."""
    reverse: bool = False
    """Show the sampled frames last first."""
    listed_frames: int = 0
    """Frames that its list states, 0 when it states none. Only the doctor compares; reading counts the frames."""
    group: str = ""
    """What may not be split between training and testing: a person, a place, a recording; "" where none is stated."""
    place: str = field(default="", compare=False)
    """Where the annotations list it, for messages: "clips.csv, line 3"; "" for a video in a class folder."""
    start: float = 0.0
    """Seconds at which the segment begins; 0 for a whole video."""
    end: float | None = None
    """Seconds at which the segment ends; None: with the video."""

    @property
    def label(self) -> int:
        """The only label, or the first; -1 when unknown."""
        return self.labels[0] if self.labels else -1

    @property
    def part(self) -> Part | None:
        """The segment, None for a whole video."""
        return Part(self.start, self.end) if self.start or self.end is not None else None

    @property
    def shown(self) -> VideoPart:
        """What it shows: equal for records of the same frames."""
        return VideoPart(self.path, self.part)


@dataclass(frozen=True)
class RecordSet:
    """The records of a split and the class names of the whole data set."""

    records: tuple[VideoRecord, ...]
    classes: tuple[str, ...]
    per_video: int = 1
    """Records in a row that show the same video: 2 in the arrow of time. Training takes them together."""
    multi_label: bool = False
    """Whether a record may have several labels (task "multilabel")."""
    num_missing: int = 0
    """Videos of the split that are listed but not on disk, and left out: Kinetics and Moments in Time,
    whose source videos disappear from the web. Elsewhere a missing video is an error."""
    held_out_of: str | None = None
    """The split of the data that these are a part of, where it has no validation split: "" where it has no splits. None
    for a whole split."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What the reader decided and the user should know, one sentence each: `vsn train` and the doctor print them."""
    held_out_notes: tuple[str, ...] = field(default=(), compare=False)
    """Those of them that say how a part was held out."""

    @property
    def videos(self) -> tuple[VideoRecord, ...]:
        """One record per video: a clip and its reversed copy (task "arrow") count once."""
        return self.records[:: self.per_video]

    def classes_of(self, record: VideoRecord) -> tuple[str, ...]:
        """Return the annotated classes of a record; none in task "arrow", whose labels are forward and reversed."""
        return () if self.per_video > 1 else tuple(self.classes[label] for label in record.labels)


def missing_path(setting: str, value: str, place: Path, kind: str = "folder") -> ConfigError:
    """Return the error of a setting whose file or folder, relative to data.root, is not there."""
    here = Path(value).absolute()
    # What a shell completes is relative to the current folder.
    advice = f" It is relative to data.root; for the one here, set it to {str(here)!r}." if here.exists() else ""
    return ConfigError(f"{setting} is {value!r}, and there is no {kind} {str(place)!r}.{advice}")


def list_videos(folder: Path) -> list[Path]:
    """Return the video files at any depth below a folder, by extension, sorted by path. Raises `ConfigError` for none."""
    # Hidden folders hold thumbnails and caches of file managers.
    videos = [parent / name for parent, _, files in walk_folders(folder) for name in files if is_video(parent / name)]
    if not videos:
        raise ConfigError(
            f"{folder}: no videos were found; expected files ending in {' '.join(sorted(VIDEO_EXTENSIONS))}."
        )
    return videos


def walk_folders(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder from `folder` down with the names of its folders and files, sorted; hidden folders are skipped.

    Follows symbolic links. As with `os.walk`, the caller may remove folders from the list to skip them.
    """
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link to a parent would loop forever
            folders.clear()
            continue
        seen.add(real)
        # Sorted in place: `os.walk` visits this list, and the order of a file system is arbitrary.
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield Path(parent), folders, sorted(files)


def is_video(path: Path) -> bool:
    """Return whether a path is a file, not hidden, with one of `VIDEO_EXTENSIONS`."""
    return path.suffix.lower() in VIDEO_EXTENSIONS and not is_hidden(path.name) and path.is_file()


def is_hidden(name: str) -> bool:
    """Return whether a name is hidden, or one that operating systems and network disks give to files of their own.

    >>> is_hidden(".DS_Store"), is_hidden("@eaDir"), is_hidden("wave")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES
