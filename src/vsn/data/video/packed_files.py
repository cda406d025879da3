"""Read videos inside a packed file (a shard, written by `vsn.data.packing`), made for reading few frames of each.

Layout of `shard-00000.vsnpack`, numbers little-endian:

    "vsnpack1"
    for each video: its frames, one JPEG after the other, then its frame table (`FRAME`, a row a frame)
    the video table (`VIDEO`, a row a video)
    description: JSON; "ids" names the videos, "times" holds seconds of unevenly spaced frames and of the end, by row,
        "begins" at how many a video shows its first frame, where that is not 0
    footer (`FOOTER`)

A video's path is `shard-00000.vsnpack/17`: the shard, and the row in its video table. Everything read is
verified against the stored checksums. Reads state their position (`pread`), so that forked workers and
threads can share an open shard.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vsn.data.video.jpeg import decode_jpeg
from vsn.data.video.reader import PictureReader, VideoError, VideoMetadata
from vsn.data.video.resize import resize_rgb

SUFFIX = ".vsnpack"
MAGIC = b"vsnpack1"
FRAME = np.dtype([("size", "<u4"), ("crc", "<u4")])
VIDEO = np.dtype([
    ("start", "<u8"), ("table", "<u8"), ("frames_per_second", "<f8"),
    ("num_frames", "<u4"), ("height", "<u4"), ("width", "<u4"), ("table_crc", "<u4"),
])  # fmt: skip
FOOTER = struct.Struct("<QIII8s")
"""Position of the video table, number of videos, bytes of the description, CRC-32 of both, magic."""

_OPEN_SHARDS = 32
"""Shards that a process keeps open."""


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
        self._times, self.begins = self._shard.times(self._number), self._shard.begins(self._number)
        self.metadata = VideoMetadata(
            self.num_frames, self.frames_per_second, int(video["height"]), int(video["width"]), rotation=0
        )

    @property
    def times(self) -> np.ndarray:
        """See `VideoReader.times`."""
        return super().times if self._times is None else self._times[:-1]

    @property
    def last_seconds(self) -> float:
        """See `VideoReader.last_seconds`."""
        return super().last_seconds if self._times is None else float(self._times[-1] - self._times[-2])

    def read_into(self, index: int, out: np.ndarray) -> None:
        """See `PictureReader.read_into`."""
        data = self._shard.jpeg(self._number, index)
        try:
            if out.shape[:2] == (self.metadata.height, self.metadata.width):
                decode_jpeg(data, out)
            else:
                out[:] = resize_rgb(decode_jpeg(data), *out.shape[:2])
        except ValueError as error:
            raise self._shard.damaged(self._number, index, f"({error})") from None


def packed_place(path: str | Path) -> tuple[Path, str] | None:
    """Split the path of a packed video into its shard and its number; None for any other path."""
    path = Path(path)
    return (path.parent, path.name) if path.parent.suffix == SUFFIX else None


def packed_bytes(path: str | Path) -> int:
    """Return the bytes of the frames of a packed video; 0 for one that is not there."""
    try:
        shard, number = _locate(path)
    except VideoError:
        return 0
    video = shard.videos[number]
    return int(video["table"] - video["start"])  # the table follows the frames


class Shard:
    """An open shard: `videos`, its table of `VIDEO` rows, its description, and its bytes.

    Raises `VideoError` for a file that is not a complete shard.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._is_flow = self.path.suffix != SUFFIX  # `vsn.data.flow.stored` has the same format
        command = "vsn flow extract" if self._is_flow else "vsn data pack"
        self._rewrite = f"delete the file and run `{command}` again"
        self._tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._times: dict[int, np.ndarray] | None = None
        self._begins: dict[int, float] = {}
        self._handle = -1  # for __del__, when opening fails
        self._lock = threading.Lock()
        try:
            self._handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            size = os.fstat(self._handle).st_size
        except FileNotFoundError:
            raise VideoError(self.path, "no such packed file.") from None
        except OSError as error:
            raise VideoError(self.path, f"cannot be opened ({error.strerror}).") from None
        if size < len(MAGIC) + FOOTER.size or self.read(0, len(MAGIC)) != MAGIC:
            raise VideoError(self.path, f"not a packed file of this version, or truncated; {self._rewrite}")
        # The footer is written last: an interrupted write has none.
        position, num_videos, description_size, crc, magic = FOOTER.unpack(self.read(size - FOOTER.size, FOOTER.size))
        table_size = num_videos * VIDEO.itemsize
        if magic != MAGIC or position + table_size + description_size + FOOTER.size != size:
            raise VideoError(self.path, f"the end of the packed file is missing or damaged; {self._rewrite}")
        tables = self.read(position, table_size + description_size)
        if zlib.crc32(tables) != crc:
            raise VideoError(self.path, f"the table of the packed file is damaged; {self._rewrite}")
        # The description is parsed on request: ids of 10,000 videos take longer to parse than a frame to decode.
        self.videos = np.frombuffer(tables, VIDEO, num_videos)
        self._description = tables[table_size:]

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)

    @property
    def description(self) -> dict[str, Any]:
        """What the writer states about the shard; "ids" are the ids of its videos, in their order."""
        description: dict[str, Any] = json.loads(self._description)
        return description

    def times(self, number: int) -> np.ndarray | None:
        """Return the seconds of a video's frames and of its end; None where frames are evenly spaced."""
        times, _ = self._clocks()
        return times.get(number)

    def begins(self, number: int) -> float:
        """Return the seconds at which a video shows its first frame."""
        _, begins = self._clocks()
        return begins.get(number, 0.0)

    def _clocks(self) -> tuple[dict[int, np.ndarray], dict[int, float]]:
        # Most shards have none: their description is not parsed.
        if self._times is None:
            has_any = any(key in self._description for key in (b'"times"', b'"begins"'))
            stored = self.description if has_any else {}
            self._begins = {int(row): float(begins) for row, begins in stored.get("begins", {}).items()}
            self._times = {int(row): np.array(times, np.float64) for row, times in stored.get("times", {}).items()}
        return self._times, self._begins

    def read(self, position: int, size: int) -> bytes:
        """Read `size` bytes at a position. Raises `VideoError` when they cannot be read."""
        data = b""
        try:
            # A network file system may return less than requested.
            while len(data) < size and (more := self._read(position + len(data), size - len(data))):
                data += more
        except OSError as error:
            raise VideoError(self.path, f"cannot be read ({error.strerror}).") from None
        if len(data) < size:
            raise VideoError(self.path, f"truncated: {size} bytes at position {position} are missing; {self._rewrite}")
        return data

    def _read(self, position: int, size: int) -> bytes:
        # pread does not move the file position, which forked workers share.
        if hasattr(os, "pread"):
            return os.pread(self._handle, size, position)
        with self._lock:  # Windows
            os.lseek(self._handle, position, os.SEEK_SET)
            return os.read(self._handle, size)

    def frame_table(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Read the `FRAME` rows of a video, and the position of the end of each frame. Raises `VideoError`."""
        if number not in self._tables:
            video = self.videos[number]
            data = self.read(int(video["table"]), int(video["num_frames"]) * FRAME.itemsize)
            if zlib.crc32(data) != video["table_crc"]:
                raise self.damaged(number)
            # Frames lie one behind the other: the end of each is the sum of the sizes before.
            table = np.frombuffer(data, FRAME)
            self._tables[number] = table, np.cumsum(table["size"], dtype=np.uint64) + video["start"]
        return self._tables[number]

    def jpeg(self, number: int, index: int) -> bytes:
        """Read frame `index` of a video, verified by its checksum. Raises `VideoError`."""
        table, ends = self.frame_table(number)
        size = int(table["size"][index])
        data = self.read(int(ends[index]) - size, size)
        if zlib.crc32(data) != table["crc"][index]:
            raise self.damaged(number, index)
        return data

    def damaged(self, number: int, index: int | None = None, reason: str = "") -> VideoError:
        """Return the error that names the shard, the video and its damaged frame; None: its frame table."""
        part = "its frame table" if index is None else f"{'field' if self._is_flow else 'frame'} {index}"
        path = self.path if self._is_flow else self.path / str(number)
        video = f"video {self.description['ids'][number]!r}"
        return VideoError(path, f"{part} is damaged {reason or f'({video})'}; {self._rewrite}")


def _locate(path: str | Path) -> tuple[Shard, int]:
    """The open shard of a packed video, and the row of the video. Raises `VideoError`."""
    place = packed_place(path)
    if place is None:
        raise VideoError(path, f"not a video of a packed file, such as shard-00000{SUFFIX}/17.")
    file, name = place
    # One stat a video notices a shard that was replaced while this process runs.
    try:
        status = os.stat(file)
    except OSError as error:
        raise VideoError(path, f"the packed file cannot be opened ({error.strerror}).") from None
    shard = _open_shard(file, status.st_ino, status.st_size, status.st_mtime_ns)
    if not name.isdecimal() or int(name) >= len(shard.videos):
        raise VideoError(path, f"the packed file has no video {name!r}; it holds videos 0 to {len(shard.videos) - 1}.")
    return shard, int(name)


@lru_cache(maxsize=_OPEN_SHARDS)
def _open_shard(file: Path, inode: int, size: int, changed: int) -> Shard:
    """Open a shard once; another inode, size or time means that it was replaced, and opens it again."""
    return Shard(file)
