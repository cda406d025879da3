"""Look up the videos of a list on disk: one listing per folder, other containers, other spellings."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence

from vsn.config import ConfigError
from vsn.data.records import VIDEO_EXTENSIONS


class Listing:
    """The contents of folders, each listed once: looking up 200,000 videos one by one takes minutes on a network disk."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, bool]] = {}
        self._stems: dict[str, dict[str, str]] = {}
        self._plain: dict[str, dict[str, str | None]] = {}

    def names(self, folder: str) -> dict[str, bool]:
        """Map each name in a folder to whether it is a folder; empty when there is no such folder."""
        # scandir tells folders from files without a call for each entry.
        if folder not in self._names:
            try:
                with os.scandir(folder or ".") as entries:
                    self._names[folder] = {entry.name: _is_folder(entry) for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = {}
            except OSError as error:
                raise ConfigError(f"{folder}: the folder cannot be listed ({error.strerror}).") from error
        return self._names[folder]

    def is_folder(self, path: str) -> bool | None:
        """Return whether a path is a folder; None when it does not exist."""
        folder, name = os.path.split(path.rstrip("/"))
        return self.names(folder).get(name)

    def find(self, path: str) -> str | None:
        """Return the path, or the same video in another container or as a folder of frames; None when absent.

        `1.webm` may exist as `1.mp4`, or as the folder `1`; files take precedence.
        """
        folder, name = os.path.split(path.rstrip("/"))
        names = self.names(folder)
        if name in names:
            return os.path.join(folder, name)
        # Data sets are often re-encoded: the lists say .avi or .webm, and the files are .mp4.
        if folder not in self._stems:
            candidates = [
                (is_folder, entry)
                for entry, is_folder in names.items()
                if is_folder or os.path.splitext(entry)[1].lower() in VIDEO_EXTENSIONS
            ]
            # Sorted in reverse, the last of several with one stem wins: a file, and the first by name.
            self._stems[folder] = {_stem(entry): entry for _, entry in sorted(candidates, reverse=True)}
        other = self._stems[folder].get(_stem(name))
        return None if other is None else os.path.join(folder, other)

    def respell(self, path: str) -> str | None:
        """Return the only path that differs from this one in case and Unicode form; None for none or several.

        Lists from macOS have composed names for decomposed ones, and those from Windows any case.
        """
        folder, name = os.path.split(path.rstrip("/"))
        if not name:
            return folder if self.names(folder) else None
        if not self.names(folder):
            existing = self.respell(folder) if folder else None
            if existing is None:
                return None
            folder = existing
        if name in self.names(folder):
            return os.path.join(folder, name)
        if folder not in self._plain:
            plain: dict[str, str | None] = {}
            for entry in self.names(folder):
                plain[_plain_name(entry)] = None if _plain_name(entry) in plain else entry
            self._plain[folder] = plain
        other = self._plain[folder].get(_plain_name(name))
        return None if other is None else os.path.join(folder, other)


def locate(
    listing: Listing, bases: Sequence[str], names: Sequence[str], find: Callable[[str], str | None]
) -> tuple[str | None, bool]:
    """Find the first of some names below the first of some folders, with `find`, which looks up one path.

    Returns the path, None when absent, and whether it is spelled otherwise than listed: with slashes for
    backslashes, in another case or Unicode form. A path that is spelled as listed always takes precedence.
    """
    paths = (os.path.join(base, name) for base in bases for name in names)
    existing = next(filter(None, map(find, paths)), None)
    if existing is not None:
        return existing, False
    slashed = [os.path.join(base, name.replace("\\", "/")) for base in bases for name in names]
    respelled = (listing.respell(path) for path in slashed)
    return next(filter(None, map(find, (*slashed, *filter(None, respelled)))), None), True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def _stem(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in VIDEO_EXTENSIONS else name  # "Mr. Smith" has no extension


def _plain_name(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
