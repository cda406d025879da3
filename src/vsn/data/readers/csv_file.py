"""Read a CSV file of the user: path, label, and split where the data states its splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.class_names import ClassList
from vsn.data.readers.entries import Entry, hold_out, record_set, video_id
from vsn.data.readers.files import Line, Listing, errors_at, read_csv_rows, read_json, require_found
from vsn.data.readers.splits import find_split, means
from vsn.data.records import RecordSet

_PACK, _UNFINISHED_PACK = "pack.json", "pack.unfinished.json"


class _Row(NamedTuple):
    line: int
    path: str
    class_names: tuple[str, ...]
    split: str
    video_id: str


def read_csv(config: DataConfig, split: str) -> RecordSet:
    """Read a CSV file with a header: columns `path`, `label`, and optionally `split` and `id`; others are ignored.

    The file is `data.annotations`, or the only `.csv` in root; in a packed set it is `videos.csv`, and
    `pack.json` next to it states the classes and their order. A path is a video file, a folder of
    frames, or a video in a packed file (`x.vsnpack/3`), relative to the CSV file's folder, else to
    `data.videos`, else to root. A label may be several, as `a|b` (task "multilabel"). The test split may
    leave labels empty, and task "arrow" needs none. `id` replaces the path as the video's name in results.
    """
    root = Path(config.root)
    # An interrupted pack has a list of the videos packed so far, which would pass for a complete data set.
    if not config.annotations and (root / _UNFINISHED_PACK).is_file():
        raise ConfigError(f"{root} holds an unfinished pack; run the same `vsn data pack` again to complete it.")
    file = _annotation_file(config, root)
    rows = _read_rows(config, file)
    # Classes of all splits, so that each split has the same labels.
    classes = _packed_classes(file, rows) or sorted({name for row in rows for name in row.class_names})
    present = sorted({row.split for row in rows} - {""})
    if present:
        split_name = find_split(config, split, present)
        rows = [row for row in rows if row.split == split_name]
    # Results and flow are found by id: two videos with one id would share them.
    lines: dict[str, int] = {}
    for row in rows:
        if row.video_id and lines.setdefault(row.video_id, row.line) != row.line:
            raise ConfigError(
                f"{file}: lines {lines[row.video_id]} and {row.line} have the id {row.video_id!r}; the column id "
                "names one video. Rename the column if it means something else."
            )
    folders = list(dict.fromkeys([file.parent, *([root / config.videos] if config.videos else []), root]))
    listing = Listing()
    entries, missing = [], []
    for row in rows:
        candidates = (os.path.join(folder, row.path) for folder in folders)
        existing = next((path for path in candidates if _exists(listing, path)), None)
        if existing is None:
            missing.append(Line(row.path, (), f"line {row.line}"))
        else:
            path = Path(existing)
            entries.append(Entry(path, row.class_names, row.video_id or video_id(path, root)))
    bases = f"the CSV file's folder, {'data.videos and ' if config.videos else ''}data.root"
    require_found(file, missing, len(rows), f"Paths are relative to {bases}.")
    return record_set(config, split, entries if present else hold_out(config, split, entries), classes)


def _exists(listing: Listing, path: str) -> bool:
    # "shard-00000.vsnpack/17" is a file and a number in it.
    shard, number = os.path.split(path)
    if shard.endswith(".vsnpack") and number.isdecimal():
        return listing.is_folder(shard) is False
    return listing.is_folder(path) is not None


def _annotation_file(config: DataConfig, root: Path) -> Path:
    if config.annotations:
        file = root / config.annotations
        if not file.is_file():
            raise ConfigError(f"data.annotations is {config.annotations!r}; there is no file {str(file)!r}.")
        return file
    if (root / _PACK).is_file():  # it may also hold a list of the videos that could not be packed
        return root / "videos.csv"
    files = sorted(path for path in root.glob("*.csv") if path.is_file() and not path.name.startswith("."))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise ConfigError(
            f"{config.root}: expected one .csv file, got {len(files)} ({names}); set data.annotations to one."
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


def _read_rows(config: DataConfig, file: Path) -> list[_Row]:
    required = ("path",) if config.task == "arrow" else ("path", "label")
    optional = tuple(name for name in ("label", "split", "id") if name not in required)
    columns, rows = read_csv_rows(file, required, optional)
    parsed = []
    for line, cells in rows:
        # Test labels are often withheld by the authors of a data set.
        may_be_empty = {"id"}
        if config.task == "arrow" or means(cells["split"], "test"):
            may_be_empty.add("label")
        label = cells["label"]
        names = tuple(dict.fromkeys(part.strip() for part in label.split("|"))) if label else ()
        with errors_at(file, f"line {line}"):
            for name, value in cells.items():
                if not value and name in columns and name not in may_be_empty:
                    raise ValueError(f"the {name} is empty; every video needs one.")
            if "" in names:
                raise ValueError(f"the label is {label!r}; expected class names separated by |.")
        parsed.append(_Row(line, cells["path"], names, cells["split"], cells["id"]))
    return parsed
