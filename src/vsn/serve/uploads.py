"""Stream uploads into a private folder, enforce the limits while bytes arrive, and always delete the files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vsn.serve.problems import Problem
from vsn.system.lock import LOCK_FILE, is_locked, lock_folder

log = logging.getLogger("vsn.serve")
FIELD = b"video"
FORM_BYTES = 64 * 1024
"""Bytes of a form besides the video: boundaries, headers, other fields."""
_PREFIX = "vsn-serve-"
_NEW_SECONDS = 60.0
"""A folder may exist for so long before its service holds it."""


class UploadFolder:
    """A folder for uploads that only this user can read (mode 0700), deleted when closed.

    Folders of killed services are deleted too: every running service holds the lock of its folder.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent or Path(tempfile.gettempdir())
        _delete_leftovers(self._parent)
        self._make()

    def _make(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        self._held = contextlib.ExitStack()
        self._held.enter_context(lock_folder(self.path))

    @contextlib.contextmanager
    def file(self) -> Iterator[Path]:
        """Create a file with a random name; delete it at the end of the block. Raises `Problem` (507)."""
        with _storing():
            # Programs that clean up folders of temporary files delete it after days.
            if not self.path.is_dir():
                self._held.close()
                self._make()
            # mkstemp: mode 0600, and no name that a client could predict or choose.
            handle, name = tempfile.mkstemp(prefix="upload-", dir=self.path)
            os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    @property
    def num_files(self) -> int:
        """Uploads on disk."""
        return sum(1 for _ in self.path.glob("upload-*"))

    def close(self) -> None:
        """Delete the folder with its files."""
        self._held.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _delete_leftovers(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        # OSError: another user owns it, or it is deleted meanwhile.
        with contextlib.suppress(OSError):
            is_new = time.time() - folder.stat().st_mtime < _NEW_SECONDS
            if (folder / LOCK_FILE).is_file() and not is_new and not is_locked(folder, without_locks=True):
                shutil.rmtree(folder, ignore_errors=True)


async def receive_video(
    chunks: AsyncIterator[bytes],
    target: Path,
    *,
    content_type: str,
    content_length: str,
    max_bytes: int,
    max_seconds: float,
) -> int:
    """Write the video of a form into `target` as it arrives; return its size in bytes.

    The file name and type in the form are ignored: both are chosen by the client.

    Raises:
        Problem: no form (415), no video or several (422), too large (413), too slow (408), no space on the disk (507).
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        received = f"The body has the type {content_type[:80]!r}." if content_type else "The body has no type."
        raise Problem("not_a_form", received)
    # Refuse early if the length is announced; it may be absent or wrong, so bytes are counted as well.
    if content_length.isdecimal() and int(content_length) > max_bytes + FORM_BYTES:
        raise _too_large(f"The upload has {shown_bytes(int(content_length))}.", max_bytes)
    try:
        async with asyncio.timeout(max_seconds):
            with _storing(), target.open("wb") as file:
                form = _Form(options[b"boundary"], file, max_bytes)
                async for chunk in chunks:
                    form.write(chunk)
        return form.finish()
    except FormParserError as error:
        raise Problem("bad_form", f"The form cannot be parsed ({error}).") from None
    except TimeoutError:
        raise Problem(
            "upload_too_slow",
            f"Received {shown_bytes(target.stat().st_size)} in {max_seconds:g} s.",
            limit=f"The limit is {max_seconds:g} s.",
        ) from None


class _Form:
    """Parser of a form: bytes of the field `video` go to the file, all others are skipped.

    Starlette's `request.form()` would store the whole body first, of any size.
    """

    def __init__(self, boundary: bytes, file: BinaryIO, max_bytes: int) -> None:
        self._file, self._max_bytes = file, max_bytes
        self._num_received = self._num_bytes = self._num_videos = 0
        self._is_complete = self._in_video = False
        self._header, self._value = b"", b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_part_data": self._add_data,
                "on_end": self._end_form,
            },
        )

    def write(self, chunk: bytes) -> None:
        """Parse the next bytes of the body. Raises `Problem` (413) past the limit."""
        self._parser.write(chunk)
        self._num_received += len(chunk)
        if self._num_received > self._max_bytes + FORM_BYTES:
            raise _too_large(f"Received more than {shown_bytes(self._max_bytes)}.", self._max_bytes)

    def finish(self) -> int:
        """Return the size of the video. Raises `Problem` (422) for a form without one, with several, or truncated."""
        if not self._is_complete:
            raise Problem("bad_form", "The form is truncated.")
        if self._num_videos != 1:
            raise Problem("bad_form", f"The form has {self._num_videos or 'no'} files in the field 'video'.")
        if not self._num_bytes:
            raise Problem("bad_form", "The file in the field 'video' is empty.")
        return self._num_bytes

    def _begin_part(self) -> None:
        self._in_video = False
        self._header, self._value = b"", b""

    # A chunk may end anywhere, also within a header: names and values come in pieces.
    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._in_video = options.get(b"name") == FIELD
            self._num_videos += self._in_video
        self._header, self._value = b"", b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        # A second video makes the form invalid (`finish`), so its bytes are not written.
        if not self._in_video or self._num_videos > 1:
            return
        self._num_bytes += end - start
        if self._num_bytes > self._max_bytes:
            raise _too_large(f"Received more than {shown_bytes(self._max_bytes)}.", self._max_bytes)
        self._file.write(data[start:end])

    def _end_form(self) -> None:
        self._is_complete = True


def shown_bytes(num_bytes: float) -> str:
    """Return a size as people write it.

    >>> shown_bytes(1.2e6), shown_bytes(1e10)
    ('1.2 MB', '10 GB')
    """
    if num_bytes < 1000:
        return f"{num_bytes:.0f} byte{'s' if num_bytes != 1 else ''}"
    value = float(num_bytes)
    for unit in ("KB", "MB", "GB", "TB"):
        value /= 1000
        # Rounded as below: 999,999 bytes are 1 MB, not 1000 KB.
        if float(f"{value:.3g}") < 1000 or unit == "TB":
            break
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """Convert errors of the disk to a `Problem` (507), with one line in the log."""
    try:
        yield
    except OSError as error:
        # Without the path, which is of the server.
        reason = error.strerror or type(error).__name__
        log.error("An upload cannot be stored: %s", reason)
        raise Problem("cannot_store", f"The service cannot store the upload: {reason}.") from None


def _too_large(received: str, max_bytes: int) -> Problem:
    return Problem("too_large", received, limit=f"The limit is {shown_bytes(max_bytes)}.")
