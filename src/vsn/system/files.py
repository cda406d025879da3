"""Write files atomically, and continue output folders only with the settings they were written with."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from vsn.config import ConfigError
from vsn.system.lock import LOCK_FILE

# The names that `tempfile` makes for `atomic_write`: .NAME-abcd1234.SUFFIX
_TEMPORARY = re.compile(r"\.(?P<stem>.+)-[a-z0-9_]{8}(?P<suffix>\.[^.]*)?", re.DOTALL)
_RENAME_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8) if os.name == "nt" else ()
"""Seconds between attempts to rename: Windows refuses while a program, such as a virus scanner, has a file open."""


@contextlib.contextmanager
def atomic_write(path: str | Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` when the block succeeds.

    When the block fails (full disk, Ctrl-C), the temporary file is removed and `path` stays as it was. The temporary
    name keeps the suffix, which some writers look at. With `folder=True`, yield a new folder; then nothing may be at
    `path`.

    Raises:
        ConfigError: a file is to be written, and a folder is at `path`.
    """
    path = Path(path)
    if path.is_dir() and not folder:
        raise ConfigError(f"{path} is a folder, and the output is a file. Name a file, for example one in it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    else:
        # In the same folder, because a rename is atomic within one file system only.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
    try:
        yield temporary
        # tempfile makes private files; the result should have the permissions of any new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod((0o777 if folder else 0o666) & ~umask)
        _rename(temporary, path)
    except OSError as error:
        # A write states no name, and the message would not say which disk is full.
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = os.fspath(path)
        raise
    finally:
        _remove(temporary)


def remove_temporary_files(paths: Iterable[Path]) -> None:
    """Remove temporary files and folders that killed writers of these paths left.

    Only these: another machine may be writing other files of the same folder.
    """
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items():
        for entry in folder.iterdir() if folder.is_dir() else ():
            match = _TEMPORARY.fullmatch(entry.name)
            if match and match["stem"] + (match["suffix"] or "") in wanted:
                _remove(entry)


def _rename(temporary: Path, path: Path) -> None:
    for seconds in _RENAME_WAITS:
        try:
            temporary.replace(path)
        except PermissionError:
            time.sleep(seconds)
        else:
            return
    temporary.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have: other programs could not read it.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        name, number = next(_not_finite(value), ("a number", "not finite"))
        raise ValueError(f"{name} is {number}, which JSON cannot hold.") from None


def _not_finite(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the names and values of numbers in nested lists and dicts that are NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield name or "the value", value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{name}[{index}]")


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON atomically. Raises `ValueError` as `to_json`."""
    write_text(path, to_json(value, indent=2) + "\n")


def write_csv(path: str | Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV (UTF-8) atomically. Raises `ValueError` for the name of a file that is not UTF-8."""
    rows = list(rows)
    for cell in (cell for row in rows for cell in row if isinstance(cell, str)):
        if any("\ud800" <= letter <= "\udfff" for letter in cell):  # how Python reads such bytes of a name
            raise ValueError(f"{path}: the name {cell!r} cannot be listed, because it is not UTF-8. Rename the file.")
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    stat = path.stat()
    return _file_sha256(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)


# The same weights are compared with each of a run's results. A file is written by renaming, which changes st_ino.
@lru_cache
def _file_sha256(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output_folder(folder: Path, settings: Mapping[str, Any], *, names: Sequence[str]) -> None:
    """Check that `folder` is absent, empty, or holds output written with the same settings.

    Long work that was stopped continues in its folder, and must not mix two kinds of output there.

    Args:
        folder: Where output is about to be written.
        settings: JSON values that decide what is written; keys that only the file has are ignored.
        names: File names of the JSON description in the folder; the first that exists is compared.

    Raises:
        ConfigError: `folder` is a file, holds other files, or was written with other settings.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file, and the output needs a folder. Choose another name.")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        if any(not file.name.startswith(LOCK_FILE) for file in folder.iterdir()):
            raise ConfigError(f"{folder} holds other files and no {names[0]}. Choose a new or an empty folder.")
        return
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        stored = _flatten({key: description.get(key) for key in settings})
    except (ValueError, AttributeError):
        raise ConfigError(f"{path} does not hold a description of this output. Choose another folder.") from None
    # Name every difference: one of them tells the user which command wrote the folder.
    wanted = _flatten(settings)
    changed = [
        f"{key} is {stored.get(key)!r} there, {wanted.get(key)!r} here"
        for key in {**wanted, **stored}
        if stored.get(key) != wanted.get(key)
    ]
    if changed:
        raise ConfigError(
            f"{folder} was written with other settings ({'; '.join(changed)}). Choose another folder, use the same "
            "settings, or delete it."
        )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one table with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
