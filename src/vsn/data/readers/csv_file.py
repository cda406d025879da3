"""A CSV file of the user's own: path, label, and split where the data states its splits."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.entries import Entry, hold_out, record_set, video_id
from vsn.data.readers.files import Line, Listing, missing_videos, read_json, require_known
from vsn.data.readers.splits import find_split, means
from vsn.data.records import RecordSet

_PACK, _UNFINISHED_PACK = "pack.json", "pack.unfinished.json"
_COLUMNS = ("path", "label", "split", "id")


class _Row(NamedTuple):
    line: int
    path: str
    class_names: tuple[str, ...]
    split: str
    video_id: str


def read_csv(config: DataConfig, split: str) -> RecordSet:
    """A CSV file with a header: columns `path`, `label`, and `split` and `id` if any; others are ignored.

    The file is `data.annotations`, or the only `.csv` in root; in a packed set it is `videos.csv`, and
    `pack.json` beside it states the classes and their order. A path is a video file, a folder of
    frames, or a video in a packed file (`x.vsnpack/3`); it counts from the CSV file's folder, then
    from `data.videos`, then from root. A label may be several, as `a|b` (task "multilabel"). The test
    split may leave labels empty, and task "arrow" needs none. `id` is the video's name in results
    where its path is not to be.
    """
    root = Path(config.root)
    if not config.annotations and (root / _UNFINISHED_PACK).is_file():
        raise ConfigError(
            f"{root} holds a pack that is not finished; the same `vsn data pack` as before goes on with it."
        )
    file = _annotation_file(config, root)
    rows = _read_rows(config, file)
    classes = _packed_classes(file, rows) or sorted({name for row in rows for name in row.class_names})
    present = sorted({row.split for row in rows} - {""})
    if present:
        asked = find_split(config, split, present)
        rows = [row for row in rows if row.split == asked]
    _require_own_ids(file, rows)
    folders = list(dict.fromkeys([file.parent, *([root / config.videos] if config.videos else []), root]))
    listing = Listing()
    entries, missing = [], []
    for row in rows:
        places = (os.path.join(folder, row.path) for folder in folders)
        found = next((place for place in places if _is_there(listing, place)), None)
        if found is None:
            missing.append(Line(row.path, (), f"line {row.line}"))
        else:
            path = Path(found)
            entries.append(Entry(path, row.class_names, row.video_id or video_id(path, root)))
    if missing:
        raise ConfigError(
            f"{file}: {missing_videos(missing, len(rows))} "
            f"Paths count from the CSV file's folder, then from {'data.videos and ' if config.videos else ''}data.root."
        )
    return record_set(config, split, entries if present else hold_out(config, split, entries), classes)


def _require_own_ids(file: Path, rows: Sequence[_Row]) -> None:
    lines: dict[str, int] = {}
    for row in rows:
        if row.video_id and lines.setdefault(row.video_id, row.line) != row.line:
            raise ConfigError(
                f"{file}: lines {lines[row.video_id]} and {row.line} have the id {row.video_id!r}; the column id "
                "names a video, each its own. Where it means something else, call it something else."
            )


def _is_there(listing: Listing, path: str) -> bool:
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
    if (root / _PACK).is_file():  # a list of unreadable videos may lie beside
        return root / "videos.csv"
    files = sorted(path for path in root.glob("*.csv") if path.is_file() and not path.name.startswith("."))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise ConfigError(
            f"{config.root}: the folder should hold one .csv file, and holds {len(files)} ({names}); "
            "name the one to read in data.annotations."
        )
    return files[0]


def _packed_classes(file: Path, rows: Sequence[_Row]) -> list[str]:
    """The classes that a packed set states, also those without videos; none where the file is no packed set."""
    pack = file.with_name(_PACK)
    if not pack.is_file():
        return []
    stated = read_json(pack)
    classes: list[str] = stated.get("classes", []) if isinstance(stated, dict) else []
    for row in rows if classes else ():
        for name in row.class_names:
            require_known(file, f"line {row.line}", name, classes, pack)
    return classes


def _read_rows(config: DataConfig, file: Path) -> list[_Row]:
    needed = {"path"} if config.task == "arrow" else {"path", "label"}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            _check_lookalikes(file, header)
            if not needed <= set(header):
                came = ",".join(header) or "empty"
                raise ConfigError(
                    f"{file}: the header is {came!r}; it needs the columns {' and '.join(sorted(needed, reverse=True))} "
                    "(split if any)."
                )
            reader.fieldnames = header
            rows = [_row(config, file, reader.line_num, values, header) for values in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file}: not a CSV file in UTF-8 ({error}).") from error
    if not rows:
        raise ConfigError(f"{file}: no line follows the header; every video needs a line.")
    return rows


def _check_lookalikes(file: Path, header: Sequence[str]) -> None:
    """Refuse a misspelt column: ignoring "Split" would silently train on the test videos."""
    for name in header:
        near = difflib.get_close_matches(name.casefold(), ("path", "label", "split"), n=1, cutoff=0.8)
        if near and name not in _COLUMNS and near[0] not in header:
            raise ConfigError(f"{file}: unknown column {name!r}; did you mean {near[0]!r}?")


def _row(config: DataConfig, file: Path, line: int, values: dict[str, str | None], header: Sequence[str]) -> _Row:
    cells = {name: (values.get(name) or "").strip() for name in _COLUMNS}
    may_be_empty = set(_COLUMNS) - set(header) | {"id"}
    if config.task == "arrow" or means(cells["split"], "test"):
        may_be_empty.add("label")
    for name, value in cells.items():
        if not value and name not in may_be_empty:
            raise ConfigError(f"{file}: the {name} on line {line} is empty; every video needs one.")
    names = dict.fromkeys(part.strip() for part in cells["label"].split("|"))
    if "" in names and cells["label"]:
        raise ConfigError(f"{file}: the label on line {line} is {cells['label']!r}; a name stands beside every |.")
    return _Row(line, cells["path"], tuple(names) if cells["label"] else (), cells["split"], cells["id"])
