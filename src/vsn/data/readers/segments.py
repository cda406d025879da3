"""Turn the segments of annotation tools into records; what their readers share, and what their writers are given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vsn.config import ConfigError, DataConfig
from vsn.data.part import Part, parse_seconds
from vsn.data.readers.class_names import ClassList, unify_classes
from vsn.data.readers.entries import Entry, record_set, video_id
from vsn.data.readers.files import Line, errors_at, part_on_disk, require_found, video_folders
from vsn.data.readers.listing import Listing, locate
from vsn.data.readers.splits import canonical, choose_split, no_splits
from vsn.data.records import RecordSet, missing_path

_FOLDERS = ("", "annotations", "labels")


class Annotation(NamedTuple):
    """A segment, or a whole video, as an annotation file states it."""

    file: Path
    where: str
    """Its place in the file, for messages: "task 3"."""
    videos: tuple[str, ...]
    """Names that its video may have, the likeliest first; relative to a folder of videos."""
    class_names: tuple[str, ...]
    part: Part | None = None
    """The segment in seconds; None for the whole video, and where `frames` states it."""
    frames: tuple[int, int] | None = None
    """Its first frame and the one after its last, numbered from 0."""
    split: str = ""
    """"" where the data states no splits."""


class TimedLabel(NamedTuple):
    """A labeled interval, in seconds, with its score; None where a person set it."""

    start: float
    end: float
    label: str
    score: float | None = None


class VideoLabels(NamedTuple):
    """What a writer is given: the labeled intervals of a video."""

    path: Path
    seconds: float
    """At which it ends."""
    frames_per_second: float
    num_frames: int
    height: int
    width: int
    segments: Sequence[TimedLabel]
    begins: float = 0.0
    """Seconds at which its first frame is shown; segments count from 0."""

    def frame_at(self, seconds: float) -> int:
        """Return the number of the frame that is shown at a time, from 0."""
        return max(0, round((seconds - self.begins) * self.frames_per_second))


def read_annotations(
    config: DataConfig,
    split: str,
    annotations: Sequence[Annotation],
    *,
    usual: Sequence[str] = ("videos",),
    may_miss: bool = False,
    classes: ClassList | None = None,
    notes: Sequence[str] = (),
) -> RecordSet:
    """Return the records of a split for what annotation files state, of all splits.

    Videos are looked for in `data.videos`, or the `usual` folders of root and root. The classes are `classes`, or all
    labels, sorted. Raises `ConfigError` for missing videos unless they `may_miss`, and as `record_set`.
    """
    if not annotations:
        raise ConfigError(f"{config.root}: the annotations hold no labeled segment.")
    has_splits = any(one.split for one in annotations)
    if has_splits and (unsplit := next((one for one in annotations if not one.split), None)):
        raise ConfigError(
            f"{unsplit.file}: {unsplit.where} states no split, and others do; state it for each, or for none."
        )
    choice = (
        choose_split(config, split, sorted({one.split for one in annotations}))
        if has_splits
        else no_splits(config, split)
    )
    chosen = [one for one in annotations if not has_splits or one.split in choice.names]
    root, listing = Path(config.root), Listing()
    bases = [str(folder) for folder in video_folders(config, *usual)]
    entries, missing, place_of = [], [], dict[tuple[str, ...], tuple[str | None, bool]]()
    for one in chosen:
        if one.videos not in place_of:
            place_of[one.videos] = locate(listing, bases, one.videos, listing.find)
        existing, is_respelled = place_of[one.videos]
        if existing is None:
            missing.append(Line(one.videos[0], (), one.where))
            continue
        path = Path(existing)
        with errors_at(one.file, one.where):
            part = part_on_disk(path, one.part, one.frames, config)
        name = video_id(path, root, part)
        place = f"{one.file.name}, {one.where}"
        respelled = one.videos[0] if is_respelled else ""
        entries.append(Entry(path, one.class_names, name, place=place, respelled=respelled, part=part))
    if not may_miss or not entries:
        advice = f"Looked in {', '.join(bases)}; set data.videos to the folder that holds them."
        require_found(chosen[0].file, missing, len(chosen), advice)
    names: Sequence[str]
    if classes is None:
        entries, names, more = unify_classes(entries, (name for one in annotations for name in one.class_names))
        notes = (*notes, *more)
    else:
        names = classes.names
    num_missing = len({line.name for line in missing})
    return record_set(config, split, entries, names, choice=choice, num_missing=num_missing, notes=notes)


def annotation_files(config: DataConfig, *suffixes: str, several: bool = False) -> list[Path]:
    """Return the annotation files: `data.annotations`, a file or a folder, or those in root and its usual folders.

    Raises `ConfigError` for none, and for several where one is read.
    """
    root = Path(config.root)
    stated = root / config.annotations
    if config.annotations and stated.is_file():
        return [stated]
    if config.annotations and not stated.is_dir():
        raise missing_path("data.annotations", config.annotations, stated, "file or folder")
    folders = [stated] if config.annotations else [root / name for name in _FOLDERS]
    files = [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and not path.name.startswith((".", "~$")) and path.is_file()
    ]
    if not files or (len(files) > 1 and not several):
        names = ", ".join(path.name for path in files) or "none"
        raise ConfigError(
            f"{config.root}: expected {'' if several else 'one '}{' or '.join(suffixes)} for source {config.source!r}, got "
            f"{len(files)} ({names}); set data.annotations to it."
        )
    return files


def seconds_between(start: object, end: object) -> Part:
    """Return the segment between two times, numbers or texts. Raises `ValueError`."""
    first, last = (parse_seconds(str(time).strip()) for time in (start, end))
    if last <= first:
        raise ValueError(f"the segment starts at {start!r} and ends at {end!r}; the end must be after the start.")
    return Part(first, last)


def require(entry: object, key: str, kind: type) -> Any:
    """Return a value of an object of JSON. Raises `ValueError` where it is missing or of another type."""
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(value, kind) or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{key} is {value!r}; expected {_KINDS[kind]}.")
    return value


_KINDS: dict[type, str] = {str: "text that is not empty", list: "a list", dict: "an object"}


def split_name(name: object) -> str:
    """Return train, val or test for what tools call them ("Train", "validation"), other names as they are."""
    return canonical(str(name).strip()) if name else ""


def to_text(value: object) -> str:
    """Return JSON for a file."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
