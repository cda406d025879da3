"""Videos inside a packed file, a shard: written by `vsn.data.packing.pack`, made for sparse reading.

Layout of `shard-00000.vsnpack`, numbers little-endian:

    "vsnpack1"
    for each video: its frames, one JPEG after the other, then its frame table (`FRAME`, a row a frame)
    the video table (`VIDEO`, a row a video)
    description: JSON; "ids" names the videos
    footer (`FOOTER`)

A video's path is `shard-00000.vsnpack/17`: the shard, and the row in its video table. What is read
is checked against the checksums stored with it. Reads state their position, so that a process may
fork, and threads may share a shard.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vsn.data.video.jpeg import decode_jpeg
from vsn.data.video.reader import PictureReader, VideoError, VideoMetadata, resize_rgb

SUFFIX = ".vsnpack"
MAGIC = b"vsnpack1"
FRAME = np.dtype([("size", "<u4"), ("crc", "<u4")])
VIDEO = np.dtype([
    ("start", "<u8"), ("table", "<u8"), ("frames_per_second", "<f8"),
    ("num_frames", "<u4"), ("height", "<u4"), ("width", "<u4"), ("table_crc", "<u4"),
])  # fmt: skip
FOOTER = struct.Struct("<QIII8s")
"""Position of the video table, videos, bytes of the description, checksum of both, magic."""

_OPEN_SHARDS = 32
"""Shards a process keeps open."""


class PackedReader(PictureReader):
    """Read a video inside a packed file; only the frames wanted are read and decoded."""

    def __init__(self, path: str | Path, *, short_side: int | None = None) -> None:
        self._shard, self._number = _locate(path)
        video = self._shard.videos[self._number]
        super().__init__(
            path,
            num_frames=int(video["num_frames"]),
            frames_per_second=float(video["frames_per_second"]),
            short_side=short_side,
        )
        self.metadata = VideoMetadata(
            self.num_frames, self.frames_per_second, int(video["height"]), int(video["width"]), rotation=0
        )

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """The frame table, and the position behind each frame."""
        table = self._shard.frame_table(self._number)
        return table, np.cumsum(table["size"], dtype=np.uint64) + self._shard.videos[self._number]["start"]

    def read_into(self, index: int, out: np.ndarray) -> None:
        """See `PictureReader.read_into`."""
        table, ends = self._table
        size = int(table["size"][index])
        data = self._shard.read(int(ends[index]) - size, size)
        if zlib.crc32(data) != table["crc"][index]:
            raise self._shard.damaged(self._number, f"frame {index}")
        try:
            if out.shape[:2] == (self.metadata.height, self.metadata.width):
                decode_jpeg(data, out)
            else:
                out[:] = resize_rgb(decode_jpeg(data), *out.shape[:2])
        except ValueError as error:
            raise self._shard.damaged(self._number, f"frame {index} ({error})") from None


def packed_place(path: str | Path) -> tuple[Path, str] | None:
    """The shard and the number in it that a path means; None for a path of another kind."""
    path = Path(path)
    return (path.parent, path.name) if path.parent.suffix == SUFFIX else None


class Shard:
    """An open shard: its video table and description, and the frames of its videos as bytes.

    Raises `VideoError` for a file that is not a whole shard. `videos` is the table, `VIDEO` rows.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle = -1
        self._lock = threading.Lock()
        try:
            self._handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            size = os.fstat(self._handle).st_size
        except FileNotFoundError:
            raise VideoError(self.path, "no such packed file.") from None
        except OSError as error:
            raise VideoError(self.path, f"cannot be opened ({error.strerror}).") from None
        if size < len(MAGIC) + FOOTER.size or self.read(0, len(MAGIC)) != MAGIC:
            raise VideoError(self.path, f"not a packed file of this version, or cut short; {_MEND}")
        position, num_videos, description_size, crc, magic = FOOTER.unpack(self.read(size - FOOTER.size, FOOTER.size))
        table_size = num_videos * VIDEO.itemsize
        if magic != MAGIC or position + table_size + description_size + FOOTER.size != size:
            raise VideoError(self.path, f"the end of the packed file is missing or damaged; {_MEND}")
        tables = self.read(position, table_size + description_size)
        if zlib.crc32(tables) != crc:
            raise VideoError(self.path, f"the table of the packed file is damaged; {_MEND}")
        self.videos = np.frombuffer(tables, VIDEO, num_videos)
        self._description = tables[table_size:]

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)

    @property
    def description(self) -> dict[str, Any]:
        """What the writer states of the shard; "ids" are the ids of its videos, in their order."""
        description: dict[str, Any] = json.loads(self._description)
        return description

    def read(self, position: int, size: int) -> bytes:
        """`size` bytes from a position. Raises `VideoError` when the file does not give them."""
        try:
            data = self._read(position, size)
            while 0 < len(data) < size:  # a network file system may give less at a time
                more = self._read(position + len(data), size - len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise VideoError(self.path, f"cannot be read ({error.strerror}).") from None
        if len(data) < size:
            raise VideoError(self.path, f"cut short: {size} bytes from {position} on are not there; {_MEND}")
        return data

    def _read(self, position: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._handle, size, position)
        with self._lock:  # Windows
            os.lseek(self._handle, position, os.SEEK_SET)
            return os.read(self._handle, size)

    def frame_table(self, number: int) -> np.ndarray:
        """Size and checksum of each frame of a video, `FRAME` rows. Raises `VideoError`."""
        video = self.videos[number]
        table = self.read(int(video["table"]), int(video["num_frames"]) * FRAME.itemsize)
        if zlib.crc32(table) != video["table_crc"]:
            raise self.damaged(number, "its frame table")
        return np.frombuffer(table, FRAME)

    def damaged(self, number: int, what: str) -> VideoError:
        """The error that names the shard, the video and what of it is damaged."""
        video_id = self.description["ids"][number]
        return VideoError(self.path / str(number), f"{what} is damaged (video {video_id!r}); {_MEND}")


_MEND = "delete this packed file and run `vsn data pack` again, which writes it anew"


def _locate(path: str | Path) -> tuple[Shard, int]:
    """The shard of a packed video's path, kept open, and the row of the video."""
    place = packed_place(path)
    if place is None:
        raise VideoError(path, f"not a video of a packed file, such as shard-00000{SUFFIX}/17.")
    file, name = place
    try:
        status = os.stat(file)
    except OSError as error:
        raise VideoError(path, f"the packed file cannot be opened ({error.strerror}).") from None
    shard = _open_shard(file, status.st_ino, status.st_size, status.st_mtime_ns)
    if not name.isdecimal() or int(name) >= len(shard.videos):
        raise VideoError(path, f"the packed file has no video {name!r}; it holds {len(shard.videos)}, from 0.")
    return shard, int(name)


@lru_cache(maxsize=_OPEN_SHARDS)
def _open_shard(file: Path, inode: int, size: int, changed: int) -> Shard:
    """A shard, opened once as long as it stays the same file."""
    return Shard(file)
