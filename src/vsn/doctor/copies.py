"""Videos with the same content under different names: by size first, then by ever more of the content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_EDGE_BYTES = 16 * 1024
_THREADS = 8  # they wait for the disk; hashing lets go of the interpreter

Signature = Callable[[Path], Hashable]


def find_copies(paths: Iterable[Path]) -> tuple[tuple[Path, ...], ...]:
    """Groups of two or more paths, files or folders of frames, with the same content, byte for byte.

    Each step reads more of fewer: sizes, then beginnings and ends, then everything. Of folders: the
    number of files, then names and sizes, then the files. What is empty or cannot be read is in no group.
    Links to one file are copies of each other.
    """
    files: list[Path] = []
    folders: list[Path] = []
    for path in dict.fromkeys(paths):
        (folders if path.is_dir() else files).append(path)
    return tuple(
        tuple(group)
        for members, signatures in (
            (files, (_size, _edges, _content)),
            (folders, (_names, _names_and_sizes, _folder_content)),
        )
        for group in _narrowed(members, signatures)
    )


def _narrowed(paths: list[Path], signatures: tuple[Signature, ...]) -> list[list[Path]]:
    """Groups that agree in every signature; each is taken only of those that agree in the former."""
    groups = [paths]
    with ThreadPoolExecutor(_THREADS) as pool:
        for signature in signatures:
            finer: list[list[Path]] = []
            members = [path for group in groups for path in group]
            found = dict(zip(members, pool.map(_tried(signature), members), strict=True))
            for group in groups:
                alike: dict[Hashable, list[Path]] = {}
                for path in group:
                    if found[path] is not None:
                        alike.setdefault(found[path], []).append(path)
                finer += [some for some in alike.values() if len(some) > 1]
            groups = finer
    return groups


def _tried(signature: Signature) -> Signature:
    def safe(path: Path) -> Hashable:
        try:
            return signature(path)
        except OSError:
            return None

    return safe


def _size(path: Path) -> Hashable:
    return path.stat().st_size or None  # empty files are a finding of their own


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
    """A hash of the values, None when there are none: folders are many, and their lists long."""
    return hashlib.sha256(repr(values).encode(errors="surrogatepass")).digest() if values else None
