"""Find videos with the same content under different names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

_EDGE_BYTES = 16 * 1024
_THREADS = 8  # they wait for the disk, and hashing releases the GIL

Signature = Callable[[Path], Hashable]


def find_copies(paths: Iterable[Path]) -> tuple[tuple[Path, ...], ...]:
    """Return groups of two or more paths, files or folders of frames, with the same content, byte for byte.

    Empty and unreadable ones are in no group. Links to one file are copies of each other.
    """
    files: list[Path] = []
    folders: list[Path] = []
    for path in dict.fromkeys(paths):
        (folders if path.is_dir() else files).append(path)
    groups = [
        *_equal_groups(files, (_size, _edges, _content)),
        *_equal_groups(folders, (_names, _names_and_sizes, _folder_content)),
    ]
    return tuple(map(tuple, groups))


def _equal_groups(paths: list[Path], signatures: tuple[Signature, ...]) -> list[list[Path]]:
    """Group paths that agree in every signature.

    Signatures get more expensive: the content is read only of paths that agree in the cheaper ones, so that a data
    set without copies costs little more than listing it.
    """
    groups = [paths]
    with ThreadPoolExecutor(_THREADS) as pool:
        for signature in signatures:
            # All groups in one map, so that many groups of two keep all threads busy.
            members = [(index, path) for index, group in enumerate(groups) for path in group]
            values = pool.map(partial(_value, signature), [path for _, path in members])
            alike: dict[tuple[int, Hashable], list[Path]] = {}
            for (index, path), value in zip(members, values, strict=True):
                if value is not None:
                    alike.setdefault((index, value), []).append(path)
            groups = [group for group in alike.values() if len(group) > 1]
    return groups


def _value(signature: Signature, path: Path) -> Hashable:
    """Return the signature of a path; None if it cannot be read, which is another finding."""
    try:
        return signature(path)
    except OSError:
        return None


def _size(path: Path) -> Hashable:
    return path.stat().st_size or None  # empty files are another finding


def _edges(path: Path) -> Hashable:
    with path.open("rb") as file:
        head = file.read(_EDGE_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _EDGE_BYTES))
        return hashlib.sha256(head + file.read(_EDGE_BYTES)).digest()


def _content(path: Path) -> Hashable:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _names(folder: Path) -> Hashable:
    return _digest(sorted(os.listdir(folder)))


def _names_and_sizes(folder: Path) -> Hashable:
    with os.scandir(folder) as entries:
        return _digest(sorted((entry.name, entry.stat().st_size) for entry in entries))


def _folder_content(folder: Path) -> Hashable:
    return _digest([(path.name, _content(path) if path.is_file() else b"") for path in sorted(folder.iterdir())])


def _digest(values: list[Any]) -> Hashable:
    """Return a hash of the values, which saves memory over many long listings; None without values."""
    return hashlib.sha256(repr(values).encode(errors="surrogatepass")).digest() if values else None
