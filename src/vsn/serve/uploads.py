"""Uploads: streamed into a private folder, within the limits while they come, and always deleted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from vsn.serve.problems import bad_form, megabytes, no_form, too_large, too_slow_upload

FIELD = b"video"
FORM_BYTES = 64 * 1024
"""What a form may have beside the video: boundaries, headers, other fields."""
_PREFIX = "vsn-serve-"


class UploadFolder:
    """A folder for uploads that only this user can look into (mode 0700), deleted when closed.

    Folders that a killed service left behind are deleted too: a service holds a lock on its own.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        _delete_leftovers(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = _take_lock(self.path / "starting")
        # Only now, locked, does it have the name by which others know a folder of a service.
        (self.path / "starting").rename(self.path / "lock")

    @contextlib.contextmanager
    def file(self) -> Iterator[Path]:
        """A new file of a name of ours, deleted at the end of the block."""
        handle, name = tempfile.mkstemp(prefix="upload-", dir=self.path)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    @property
    def num_files(self) -> int:
        """Uploads that are there now."""
        return sum(1 for _ in self.path.glob("upload-*"))

    def close(self) -> None:
        """Delete the folder and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _take_lock(path: Path) -> BinaryIO:
    """Open a file and lock it for as long as it is open. Raises `BlockingIOError` when another has it."""
    file = path.open("ab")
    try:
        import fcntl
    except ImportError:  # Windows, where the folder of a killed service stays until the system clears it
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _delete_leftovers(parent: Path) -> None:
    if os.name == "nt":
        return
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # its service lives, or it is somebody else's
            if (folder / "lock").is_file():
                lock = _take_lock(folder / "lock")
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()


async def receive_video(
    chunks: AsyncIterator[bytes],
    target: Path,
    *,
    content_type: str,
    content_length: str,
    max_bytes: int,
    max_seconds: float,
) -> int:
    """Write the video of a form into a file as it comes; return its bytes.

    The name and the type that the form gives the file are not looked at.

    Raises:
        Problem: no form (415), no video or several (422), too large (413), too slow (408).
    """
    try:
        async with asyncio.timeout(max_seconds):
            return await _receive(chunks, target, content_type, content_length, max_bytes)
    except TimeoutError:
        raise too_slow_upload(target.stat().st_size, max_seconds) from None


async def _receive(
    chunks: AsyncIterator[bytes], target: Path, content_type: str, content_length: str, max_bytes: int
) -> int:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise no_form(f"The body is of type {content_type[:80]!r}." if content_type else "The body has no type.")
    if content_length.isdecimal() and int(content_length) > max_bytes + FORM_BYTES:
        raise too_large(f"The upload has {megabytes(int(content_length))}.", max_bytes)
    with target.open("wb") as file:
        form = _Form(file, max_bytes)
        try:
            parser = form.parser(options[b"boundary"])
            async for chunk in chunks:
                parser.write(chunk)
                form.check(len(chunk))
        except MultipartParseError as error:
            raise bad_form(f"The form cannot be read ({error}).") from None
    return form.finish()


class _Form:
    """Callbacks of the parser: the bytes of the field go to the file, all else is passed over."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._num_in_all = 0
        self._num_videos = 0
        self._is_whole = False
        self._in_video = False
        self._header, self._value = b"", b""

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_part_data": self._data,
                "on_end": self._ends,
            },
        )

    def check(self, num_bytes: int) -> None:
        """Count what came, form and all. Raises `Problem` (413) past the limit."""
        self._num_in_all += num_bytes
        if self._num_in_all > self._max_bytes + FORM_BYTES:
            raise too_large(f"More than {megabytes(self._max_bytes)} came.", self._max_bytes)

    def finish(self) -> int:
        """The bytes of the video. Raises `Problem` (422) for a form without one, with several, or cut short."""
        if not self._is_whole:
            raise bad_form("The form is cut short.")
        if self._num_videos != 1:
            raise bad_form(f"The form has {self._num_videos or 'no'} files in the field 'video'.")
        if not self._num_bytes:
            raise bad_form("The file in the field 'video' is empty.")
        return self._num_bytes

    def _part_begins(self) -> None:
        self._in_video = False
        self._header, self._value = b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._in_video = options.get(b"name") == FIELD
            self._num_videos += self._in_video
        self._header, self._value = b"", b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_video or self._num_videos > 1:
            return
        self._num_bytes += end - start
        if self._num_bytes > self._max_bytes:
            raise too_large(f"More than {megabytes(self._max_bytes)} came.", self._max_bytes)
        self._file.write(data[start:end])

    def _ends(self) -> None:
        self._is_whole = True
