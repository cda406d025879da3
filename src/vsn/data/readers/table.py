"""Read CSV tables with a header, also as spreadsheets write them."""

from __future__ import annotations

import contextlib
import csv
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vsn.config import ConfigError
from vsn.config.errors import quote_first
from vsn.data.readers.text import decode_file
from vsn.data.records import VIDEO_EXTENSIONS

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_UNUSED = (
    "actor age angle author background camera clothing codec comment comments date day description device distance "
    "duration fps frame_rate frames framing gender handedness height instance length license light lighting location "
    "nframes notes num_frames number num participant people performer person place position quality recording repetition "
    "resolution scene seconds session sex signer size source speaker subject take take_number time url user view viewpoint "
    "weather width "
)
"""Columns that describe a video and change nothing in a run."""
_PART = re.compile(
    r"(?:^|_)(?:start|begin|end|stop|from|to|onset|offset|first|last|t0|t1)(?:_|$)"
    r"|^(?:t|time|frame|clip|seconds?|sec)?(?:start|begin|end|stop)(?:s|sec|seconds|ms|time|frame|frames|idx|index)?$"
)
"""Columns that name a part of a video."""
_SAME_MEANING = {
    "path": "file filename file_name filepath file_path video videos video_path video_name name clip clip_path",
    "label": "tag class classes category target action gesture class_name y",
    "split": "subset set partition usage phase mode",
}


class Table(NamedTuple):
    """The rows of a CSV file."""

    columns: tuple[str, ...]
    """Names in lower case, of the known columns that the file has."""
    rows: list[tuple[int, dict[str, str]]]
    """Line number, and the stripped cell of every known column, "" where the file has none."""
    notes: tuple[str, ...]
    """What was read otherwise than as plain CSV, and what was not read."""


def read_table(file: Path, required: Sequence[str], optional: Sequence[str] = (), *, official: bool = False) -> Table:
    """Read a CSV file with a header.

    The header decides the separator: comma, semicolon or tab. Names of columns match in upper and lower case.

    Args:
        file: in UTF-8, or with a byte order mark.
        required: columns that the file must have.
        optional: other columns that are read.
        official: a file of a published data set, whose other columns are known to change nothing.

    Raises:
        ConfigError: a column is missing, stated twice, or not known; a row does not fit the header. Only columns that
            describe a video, and those whose name begins with "#", are ignored: an ignored "start" would train on
            whole videos, and an ignored "subset" on the test videos.
    """
    text, encoding = decode_file(file)
    lines = text.split("\n")
    # Spreadsheets may state the separator in a line of its own.
    skipped = int(re.fullmatch(r'"?sep=.?"?', lines[0].strip(), re.IGNORECASE) is not None)
    header = next((line for line in lines[skipped:] if line.strip()), "")
    known = [*required, *optional]
    separator = max(_SEPARATORS, key=lambda mark: len(set(known) & set(_split_header(header, mark))))
    columns = _split_header(header, separator)
    _check_columns(file, header, columns, required, known, official=official)
    # Strict: a quote that is not closed would take all following lines for one cell.
    reader = csv.reader(
        (f"{line}\n" for line in lines[skipped:]), delimiter=separator, skipinitialspace=True, strict=True
    )
    rows = []
    try:
        for cells in (row for row in reader if any(map(str.strip, row))):  # spreadsheets append empty rows
            line = reader.line_num + skipped
            if any(map(str.strip, cells[len(columns) :])):
                raise ConfigError(
                    f"{file}: line {line} has {len(cells)} cells, and the header {len(columns)} columns. Put quotes "
                    f"around a value that has a {separator!r} in it."
                )
            row = dict(zip(columns, map(str.strip, cells), strict=False))
            rows.append((line, {name: row.get(name, "") for name in known}))
    except csv.Error as error:
        raise ConfigError(f"{file}: line {reader.line_num + skipped} is not CSV ({error}).") from error
    del rows[:1]  # the header
    if not rows:
        raise ConfigError(f"{file}: no line follows the header; every video needs a line.")
    forms = [encoding.upper()] if encoding.startswith(("utf-16", "utf-32")) else []
    forms += [f"cells separated by {_SEPARATORS[separator]}"] if separator != "," else []
    notes = [f"{file.name} is read as {' with '.join(forms)}."] if forms else []
    unused = [name for name in columns if name not in known and name and not name.startswith("unnamed:")]
    if unused and not official:
        notes.append(f"{file.name}: the columns {quote_first(unused, 8)} are not used.")
    return Table(tuple(name for name in columns if name in known), rows, tuple(notes))


def has_columns(file: Path, columns: Sequence[str]) -> bool:
    """Return whether the first line of a file names these columns, in any encoding; not if it cannot be read."""
    with contextlib.suppress(OSError), file.open("rb") as stream:
        line = re.sub(rb"[^\t\x20-\x7e]", b"", stream.readline(10_000)).decode()  # no byte order mark, no UTF-16
        return any(set(columns) <= set(_split_header(line, mark)) for mark in _SEPARATORS)
    return False


def _split_header(header: str, separator: str) -> list[str]:
    cells = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
    return [cell.strip().casefold() for cell in cells]


def _check_columns(
    file: Path, header: str, columns: Sequence[str], required: Sequence[str], known: Sequence[str], *, official: bool
) -> None:
    for name in columns:
        if name in known and columns.count(name) > 1:
            raise ConfigError(f"{file}: the header has the column {name!r} twice; keep one of them.")
    # The name that pandas gives to the row numbers is empty.
    others = [name for name in columns if name not in known and name and not name.startswith(("#", "unnamed:"))]
    words = {name: re.sub(r"[\W_]+", "_", name) for name in others}
    for name in others:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        same = [column for column, meanings in _SAME_MEANING.items() if words[name] in meanings.split()]
        meant = [column for column in (*near, *same) if column in known and column not in columns and len(column) > 2]
        # "idx" is near "id", and means something else.
        if meant:
            raise ConfigError(f"{file}: unknown column {name!r}; did you mean {meant[0]!r}?")
    if not set(required) <= set(columns):
        is_row = any(header.lower().find(extension) > 0 for extension in VIDEO_EXTENSIONS)
        advice = " Its first line is a video: add a line with the names of the columns." if is_row else ""
        raise ConfigError(
            f"{file}: the header is {header.strip() or 'empty'!r}; it needs the columns {','.join(required)}, separated "
            f"by commas, semicolons or tabs.{advice}"
        )
    if official:
        return
    parts = [name for name in others if _PART.search(words[name])]
    if parts:
        advice = ": divide numbers of frames by the frames per second" if any("frame" in name for name in parts) else ""
        raise ConfigError(
            f"{file}: the columns {quote_first(parts)} name parts of videos; whole videos would be used. Name them 'start' "
            f"and 'end', with times in seconds{advice}. If the videos are cut there already, begin the columns' names "
            "with #."
        )
    # Splits or groups say more than folds; where they are absent, folds may be meant to keep videos apart.
    unused = {*_UNUSED.split(), *(["fold"] if {"split", "group"} & set(columns) else [])}
    unknown = [name for name in others if words[name] not in unused]
    if unknown:
        raise ConfigError(
            f"{file}: unknown columns {quote_first(unknown)}; known are {', '.join(known)}, and columns that describe a "
            "video, such as subject. Remove them, or begin their names with # to have them ignored."
        )
