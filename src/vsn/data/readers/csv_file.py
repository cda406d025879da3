"""Read a CSV file of the user: path, label, times of segments, and split where the data states its splits."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vsn.config import ConfigError, DataConfig
from vsn.config.errors import quote_first
from vsn.data.part import Part, format_seconds, parse_part, parse_seconds
from vsn.data.readers.class_names import ClassList, unify_classes
from vsn.data.readers.entries import Entry, record_set, video_id
from vsn.data.readers.files import Line, errors_at, find_lines, read_json, require_found
from vsn.data.readers.listing import Listing
from vsn.data.readers.splits import choose_split, is_used, means, near_split, no_splits
from vsn.data.readers.table import read_table
from vsn.data.records import RecordSet, missing_path

_FORMULA_ERROR = re.compile(r"#(?:N/A|NV|[A-Z0/]+[!?])")
_WORDS_FOR_EMPTY = frozenset({"nan", "na", "n/a", "null", "none", "?", "-"})
_MANY_TIMES = 10
"""Times from which on it is odd that none has a fraction of a second."""
_PACK, _UNFINISHED_PACK = "pack.json", "pack.unfinished.json"


class _Row(NamedTuple):
    line: int
    path: str
    class_names: tuple[str, ...]
    split: str
    video_id: str
    group: str
    part: Part | None


def read_csv(config: DataConfig, split: str) -> RecordSet:
    """Read a CSV file with a header: columns `path`, `label`, and optionally `start`, `end`, `split`, `id` and `group`.

    See `read_table` for what spreadsheets write, and for other columns.

    The file is `data.annotations`, or the only `.csv` in root; in a packed set it is `videos.csv`, and
    `pack.json` next to it states the classes and their order. A path is a video file, a folder of
    frames, or a video in a packed file (`x.vsnpack/3`), relative to the CSV file's folder, else to
    `data.videos`, else to root. A label may be several, as `a|b`, or empty for none of the classes
    (task "multilabel"). The test split may leave labels empty, and task "arrow" needs none. `id`
    replaces the path as the video's name in results. `group` names what may not be split, such as a person.

    With `start` and `end` a line is a segment of a video: seconds, or times as video players show them (1:02.5, 1:00:03).
    Without a start it begins with the video, without an end it ends with it, without both it is the whole video.
    """
    root = Path(config.root)
    # An interrupted pack has a list of the videos packed so far, which would pass for a complete data set.
    if not config.annotations and (root / _UNFINISHED_PACK).is_file():
        raise ConfigError(f"{root} holds an unfinished pack; run the same `vsn data pack` again to complete it.")
    file = _annotation_file(config, root)
    rows, notes = _read_rows(config, file)
    _check_ids(file, rows)
    classes: Sequence[str] = _packed_classes(file, rows)
    by_split = Counter(row.split for row in rows if row.split)
    for name in by_split:
        if near := near_split(config, name):
            raise ConfigError(f"{file} has the split {name!r}; did you mean {near!r}?")
    choice = choose_split(config, split, sorted(by_split)) if by_split else no_splits(config, split)
    if unused := [name for name in by_split if not is_used(config, name)]:
        num_lines = sum(by_split[name] for name in unused)
        notes = (*notes, f"{file.name}: lines of the splits {quote_first(unused)} are not used: {num_lines}.")
    entries = _find_entries(config, file, [row for row in rows if not by_split or row.split in choice.names])
    if not classes:
        # Of all splits, so that each split has the same labels.
        entries, classes, more = unify_classes(entries, (name for row in rows for name in row.class_names))
        notes = (*notes, *more)
    return record_set(config, split, entries, classes, choice=choice, notes=notes)


def _check_ids(file: Path, rows: Sequence[_Row]) -> None:
    """Raise `ConfigError` for two videos with one id, of any split: results and flow are found by it."""
    first_of: dict[str, _Row] = {}
    for row in rows:
        first = first_of.setdefault(row.video_id, row)
        shown, first_shown = (_plain_path(row.path), row.part), (_plain_path(first.path), first.part)
        if row.video_id and first is not row and shown != first_shown:
            raise ConfigError(
                f"{file}: lines {first.line} and {row.line} have the id {row.video_id!r}; the column id names one video or "
                "segment. Begin the column's name with # if it means something else."
            )


def _plain_path(path: str) -> str:
    return posixpath.normpath(path.replace("\\", "/")).casefold()


def _find_entries(config: DataConfig, file: Path, rows: Sequence[_Row]) -> list[Entry]:
    root = Path(config.root)
    folders = list(dict.fromkeys(map(str, [file.parent, *([root / config.videos] if config.videos else []), root])))
    listing = Listing()
    lines = [
        Line(row.path, row.class_names, f"line {row.line}", video_id=row.video_id, group=row.group, part=row.part)
        for row in rows
    ]
    entries, missing = find_lines(config, file, lines, folders, listing, partial(_find, listing))
    bases = f"the CSV file's folder, {'data.videos and ' if config.videos else ''}data.root"
    # Lists from web pages often leave out the extension.
    others = (listing.find(os.path.join(folder, line.name)) for line in missing[:1] for folder in folders)
    other = next(filter(None, others), None)
    advice = f" There is {video_id(Path(other), root)!r}: write names as on disk." if other else ""
    require_found(file, missing, len(rows), f"Paths are relative to {bases}.{advice}")
    return entries


def _find(listing: Listing, path: str) -> str | None:
    # "shard-00000.vsnpack/17" is a file and a number in it.
    shard, number = os.path.split(path)
    if shard.endswith(".vsnpack") and number.isdecimal():
        return path if listing.is_folder(shard) is False else None
    return None if listing.is_folder(path) is None else path


def _annotation_file(config: DataConfig, root: Path) -> Path:
    if config.annotations:
        file = root / config.annotations
        if not file.is_file():
            raise missing_path("data.annotations", config.annotations, file, "file")
        return file
    if (root / _PACK).is_file():  # it may also hold a list of the videos that could not be packed
        return root / "videos.csv"
    tables = (
        path for path in root.iterdir() if path.suffix.lower() == ".csv" and not path.name.startswith((".", "~$"))
    )
    files = sorted(path for path in tables if path.is_file())
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise ConfigError(
            f"{config.root}: expected one .csv file, got {len(files)} ({names}); set data.annotations to one. Lists of "
            "several splits go into one file, with a column split."
        )
    return files[0]


def _packed_classes(file: Path, rows: Sequence[_Row]) -> tuple[str, ...]:
    """The classes that a packed set states, also those without videos; none for another CSV file."""
    pack = file.with_name(_PACK)
    stated = read_json(pack) if pack.is_file() else {}
    classes = ClassList(stated.get("classes", []) if isinstance(stated, dict) else [], pack)
    for row in rows if classes.names else ():
        with errors_at(file, f"line {row.line}"):
            for name in row.class_names:
                classes.label_of(name)
    return classes.names


def _read_rows(config: DataConfig, file: Path) -> tuple[list[_Row], tuple[str, ...]]:
    required = ("path",) if config.task == "arrow" else ("path", "label")
    optional = tuple(name for name in ("label", "split", "id", "group", "start", "end") if name not in required)
    table = read_table(file, required, optional)
    parsed = []
    for line, cells in table.rows:
        # Test labels are often withheld by the authors of a data set.
        may_be_empty = {"id", "start", "end"}
        # A multi-label video may show none of the classes.
        if config.task in ("arrow", "multilabel") or means(cells["split"], "test"):
            may_be_empty.add("label")
        label = cells["label"]
        names = tuple(dict.fromkeys(part.strip() for part in label.split("|"))) if label else ()
        with errors_at(file, f"line {line}"):
            for name, value in cells.items():
                if _FORMULA_ERROR.fullmatch(value):
                    raise ValueError(f"the {name} is {value!r}, the error of a formula; write the value itself.")
                if not value and name in table.columns and name not in may_be_empty:
                    raise ValueError(f"the {name} is empty; every video needs one.")
            if "" in names:
                raise ValueError(f"the label is {label!r}; expected class names separated by |.")
            part = parse_part(cells["start"], cells["end"])
        parsed.append(_Row(line, cells["path"], names, cells["split"], cells["id"], cells["group"], part))
    notes = (*table.notes, *_describe_times(file, table.rows))
    empty = [(row.line, name) for row in parsed for name in row.class_names if name.lower() in _WORDS_FOR_EMPTY]
    if not empty:
        return parsed, notes
    line, name = empty[0]
    note = (
        f"{file.name}: the class {name!r} (line {line}) is a word for an empty cell. If it is no class, remove its lines: "
        f"{len(empty)}."
    )
    return parsed, (*notes, note)


def _describe_times(file: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> tuple[str, ...]:
    """Return how times are read that might have been meant otherwise: 1:30 as hours and minutes, 75 as a frame."""
    times = [cells[name] for _, cells in rows for name in ("start", "end") if cells[name]]
    if len(times) >= _MANY_TIMES and all(time.isdecimal() for time in times):
        return (f"{file.name}: all {len(times)} times are whole numbers, and are read as seconds, not as frames.",)
    for line, cells in rows:
        for name in ("start", "end"):
            if ":" in cells[name]:
                seconds = format_seconds(parse_seconds(cells[name]))
                return (
                    f"{file.name}: times are read as minutes:seconds or hours:minutes:seconds: {cells[name]!r} (line "
                    f"{line}) is {seconds} seconds.",
                )
    return ()
