"""Readers of data sets: folders or a CSV file in, labelled records and class names out."""

from __future__ import annotations

import csv
import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vsn.config import ConfigError, DataConfig

VIDEO_EXTENSIONS = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov",
    ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
})  # fmt: skip
ARROW_CLASSES = ("forward", "reversed")
_SPLIT_ALIASES = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))
_OPPOSITE_WORDS = {
    "left": "right",
    "right": "left",
    "clockwise": "counterclockwise",
    "counterclockwise": "clockwise",
}


@dataclass(frozen=True)
class VideoRecord:
    """One labelled video, not yet read."""

    path: Path
    """A video file, a folder of frames, or a video inside a packed file."""
    labels: tuple[int, ...]
    """Indices into the classes: one, several (task "multilabel"), or none when unknown."""
    video_id: str
    """Path relative to the root, with forward slashes; "#reversed" follows for a reversed copy."""
    reverse: bool = False
    """Show the sampled frames last first."""

    @property
    def label(self) -> int:
        """The only label, or the first; -1 when unknown."""
        return self.labels[0] if self.labels else -1


@dataclass(frozen=True)
class RecordSet:
    """The records of a split and the class names of the whole data set."""

    records: tuple[VideoRecord, ...]
    classes: tuple[str, ...]
    per_video: int = 1
    """Records in a row that show the same video: 2 in the arrow of time. Training takes them together."""
    multi_label: bool = False
    """Whether a record may have several labels (task "multilabel")."""


@dataclass(frozen=True)
class _Entry:
    """A video as a reader finds it: its class by name."""

    path: Path
    class_name: str
    video_id: str


def read_records(config: DataConfig, split: str) -> RecordSet:
    """The videos of one split of the data set that `config` describes.

    Without stated splits, the training split is what a hold-out of `val_fraction` of each class
    leaves, and the validation and the test split are both the part held out. Raises `ConfigError`
    for whatever is missing, naming it.
    """
    root = Path(config.root)
    if not config.root:
        raise ConfigError("data.root is empty; set it to the folder of the data set.")
    if not root.is_dir():
        synthetic = config.source == "synthetic"
        advice = f"; `vsn data synth {config.root}` writes the embedded data set there" if synthetic else ""
        raise ConfigError(f"data.root is {config.root!r}, and there is no such folder{advice}.")
    read = _read_csv if config.source == "csv" else _read_folder
    entries, classes = read(config, root, split)
    if config.task == "arrow":
        return RecordSet(tuple(_both_ways(entries)), ARROW_CLASSES, per_video=2)
    if len(classes) < 2:
        raise ConfigError(f"{config.root}: the only class is {classes[0]!r}; a classifier needs two or more.")
    labels = {name: label for label, name in enumerate(classes)}
    records = tuple(VideoRecord(entry.path, (labels[entry.class_name],), entry.video_id) for entry in entries)
    return RecordSet(records, classes)


def list_videos(folder: Path) -> list[Path]:
    """The video files at any depth below a folder, by their extensions, in the order of their paths.

    Raises:
        ConfigError: there is none.
    """
    videos = [entry.path for entry in _class_videos(folder, folder)]
    if not videos:
        raise ConfigError(
            f"{folder}: no videos were found; looked for files ending in {' '.join(sorted(VIDEO_EXTENSIONS))}."
        )
    return videos


def has_side(name: str) -> bool:
    """Whether a class name has left, right, clockwise or counterclockwise as a word.

    >>> [has_side(name) for name in ("swipe_left", "TurnRight", "left-to-right", "leftovers")]
    [True, True, True, False]
    """
    return any(word in _OPPOSITE_WORDS for word in _words(name))


def opposite_labels(classes: Sequence[str]) -> dict[int, int]:
    """Label -> label after a horizontal flip, for classes that have a side and whose opposite is a class.

    Names are compared word by word, whatever their case and separators.

    >>> opposite_labels(("swipe left", "wave", "swipe right", "turn left"))
    {0: 2, 2: 0}
    """
    by_words: dict[tuple[str, ...], list[int]] = {}
    for label, name in enumerate(classes):
        by_words.setdefault(_words(name), []).append(label)
    opposites = {}
    for label, name in enumerate(classes):
        words = _words(name)
        found = by_words.get(tuple(_OPPOSITE_WORDS.get(word, word) for word in words), [])
        if has_side(name) and len(found) == 1 and len(by_words[words]) == 1:  # two names alike: no telling
            opposites[label] = found[0]
    return opposites


def _words(name: str) -> tuple[str, ...]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    joined = re.sub(r"\b(?:counter|anti)[\s_-]*(?=clockwise)", "counter", spaced.lower().replace("_", " "))
    return tuple(re.findall(r"[^\W\d]+|\d+", joined))


def _both_ways(entries: Iterable[_Entry]) -> Iterator[VideoRecord]:
    """The arrow of time: every video forward (label 0) and played backwards (label 1), side by side."""
    for entry in entries:
        yield VideoRecord(entry.path, (0,), entry.video_id)
        yield VideoRecord(entry.path, (1,), f"{entry.video_id}#reversed", reverse=True)


# --- splits ----------------------------------------------------------------------------------------


def _same_split(split: str) -> tuple[str, ...]:
    """Names that mean this split, itself first."""
    aliases = next((names for names in _SPLIT_ALIASES if split.lower() in names), ())
    return split, *(name for name in aliases if name != split)


def _find_split(config: DataConfig, split: str, present: Sequence[str]) -> str:
    """The name under which the data has the split; `ConfigError` when it has none."""
    for name in _same_split(split):
        if name in present:
            return name
    settings = [name for name in ("train_split", "val_split", "test_split") if getattr(config, name) == split]
    others = [name for name in present if name not in _same_split(config.train_split)] or list(present)
    advice = "Ask for one of them"
    if settings:
        advice = (
            f'Set data.{settings[0]} to one of them, for example "{others[0]}" (`vsn eval` takes --split)'
        )
    raise ConfigError(
        f"{config.root}: there is no split {split!r}; present: {', '.join(map(repr, present))}. {advice}."
    )


def _hold_out(config: DataConfig, split: str, entries: Sequence[_Entry]) -> list[_Entry]:
    """The training part, or the part held out, of data that states no splits; each class apart."""
    held_names = {*_same_split(config.val_split), *_same_split(config.test_split)}
    train_names = set(_same_split(config.train_split))
    if split not in train_names | held_names:
        raise ConfigError(
            f"{config.root}: the data states no splits, so {split!r} means nothing here; "
            f"ask for {config.train_split!r}, {config.val_split!r} or {config.test_split!r}."
        )
    by_class: dict[str, list[_Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.video_id):
        by_class.setdefault(entry.class_name, []).append(entry)
    chosen = []
    for name in sorted(by_class):
        members = by_class[name]
        num_held = min(len(members) - 1, max(1, int(len(members) * config.val_fraction + 0.5)))
        # Ranked by the video alone: one that joins or leaves the data moves at most one other.
        ranked = sorted(members, key=lambda entry: _rank(config.split_seed, entry.video_id))
        held = {entry.video_id for entry in ranked[:num_held]}
        chosen += [entry for entry in members if (entry.video_id in held) != (split in train_names)]
    if not chosen:
        raise ConfigError(f"{config.root}: every class has a single video, so none is left for {split!r}.")
    return chosen


def _rank(seed: int, video_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{video_id}".encode()).digest()


# --- folders ---------------------------------------------------------------------------------------


def _read_folder(config: DataConfig, root: Path, split: str) -> tuple[list[_Entry], tuple[str, ...]]:
    """`root/split/class/video` when a split's folder is there, else `root/class/video`."""
    known = {
        name
        for asked in (split, config.train_split, config.val_split, config.test_split, "train", "val", "test")
        for name in _same_split(asked)
    }
    split_folders = [folder for folder in _sub_folders(root) if folder.name in known and _is_split(folder)]
    if not split_folders:
        if config.task == "arrow":  # labels are unused: loose videos, in any folders, will do
            entries = [replace(entry, class_name="") for entry in _class_videos(root, root)]
        else:
            entries = [entry for folder in _sub_folders(root) for entry in _class_videos(root, folder)]
        _require_videos(entries, root)
        return _hold_out(config, split, entries), tuple(sorted({entry.class_name for entry in entries}))
    asked = _find_split(config, split, [folder.name for folder in split_folders])
    class_folders = _sub_folders(root / asked)
    entries = [entry for folder in class_folders for entry in _class_videos(root, folder)]
    _require_videos(entries, root / asked)
    names = {entry.class_name for entry in entries}
    for other in split_folders:
        names |= {
            folder.name
            for folder in _sub_folders(other)
            if folder.name not in names and any(_class_videos(root, folder))
        }
    return entries, tuple(sorted(names))


def _is_split(folder: Path) -> bool:
    """A split's folder holds class folders; a folder that holds videos itself is a class of that name."""
    return bool(_sub_folders(folder)) and not any(_is_video(path) for path in folder.iterdir())


def _class_videos(root: Path, folder: Path) -> Iterator[_Entry]:
    """The videos at any depth below a class folder, in the order of their paths."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(parent)) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in sorted(Path(parent, name) for name in files):
            if _is_video(path):
                yield _Entry(path, folder.name, path.relative_to(root).as_posix())


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _require_videos(entries: Sequence[_Entry], folder: Path) -> None:
    if entries:
        return
    loose = sum(_is_video(path) for path in folder.iterdir())
    found = f"{loose} videos lie in it without a class folder" if loose else "no videos were found"
    raise ConfigError(
        f"{folder}: {found}. Looked for split/class/video (split: train, val or test) and class/video, "
        f"with the extensions {' '.join(sorted(VIDEO_EXTENSIONS))}."
    )


# --- CSV -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    class_name: str
    split: str


def _read_csv(config: DataConfig, root: Path, split: str) -> tuple[list[_Entry], tuple[str, ...]]:
    """Columns `path` and `label`, and `split` where the data states its splits; others are ignored."""
    file = _annotation_file(config, root)
    rows = _csv_rows(file)
    classes = tuple(sorted({row.class_name for row in rows}))
    present = sorted({row.split for row in rows} - {""})
    if present:
        asked = _find_split(config, split, present)
        rows = [row for row in rows if row.split == asked]
    entries, missing = [], []
    for row in rows:
        path = next((place / row.path for place in (file.parent, root) if (place / row.path).is_file()), None)
        if path is None:
            missing.append(row)
        else:
            shown = path.relative_to(root) if path.is_relative_to(root) else path
            entries.append(_Entry(path, row.class_name, shown.as_posix()))
    if missing:
        named = ", ".join(f"{row.path!r} (line {row.line})" for row in missing[:3])
        more = ", ..." if len(missing) > 3 else ""
        raise ConfigError(
            f"{file}: {len(missing)} of {len(rows)} videos are missing: {named}{more}. "
            "Paths count from the CSV file's folder, then from data.root."
        )
    return (entries if present else _hold_out(config, split, entries)), classes


def _annotation_file(config: DataConfig, root: Path) -> Path:
    if config.annotations:
        file = root / config.annotations
        if not file.is_file():
            raise ConfigError(f"data.annotations is {config.annotations!r}; there is no file {str(file)!r}.")
        return file
    files = sorted(path for path in root.glob("*.csv") if path.is_file() and not path.name.startswith("."))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise ConfigError(
            f"{config.root}: the folder should hold one .csv file, and holds {len(files)} ({names}); "
            "name the one to read in data.annotations."
        )
    return files[0]


def _csv_rows(file: Path) -> list[_Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            _check_lookalikes(file, header)
            if not {"path", "label"} <= set(header):
                came = ",".join(header) or "empty"
                raise ConfigError(
                    f"{file}: the header is {came!r}; it needs the columns path and label (split if any)."
                )
            reader.fieldnames = header
            rows = [_csv_row(file, reader.line_num, values, "split" in header) for values in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file}: not a CSV file in UTF-8 ({error}).") from error
    if not rows:
        raise ConfigError(f"{file}: no line follows the header; every video needs a line.")
    return rows


def _check_lookalikes(file: Path, header: Sequence[str]) -> None:
    """Refuse a misspelt column: ignoring "Split" would silently train on the test videos."""
    known = ("path", "label", "split")
    for name in header:
        near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.8)
        if near and name not in known and near[0] not in header:
            raise ConfigError(f"{file}: unknown column {name!r}; did you mean {near[0]!r}?")


def _csv_row(file: Path, line: int, values: dict[str, str | None], has_split: bool) -> _Row:
    path, label, split = ((values.get(name) or "").strip() for name in ("path", "label", "split"))
    for name, value in (("path", path), ("label", label), ("split", split)):
        if not value and (has_split or name != "split"):
            raise ConfigError(f"{file}: the {name} on line {line} is empty; every video needs one.")
    return _Row(line, path, label, split)
