"""Write one packed file (a shard) and check one: the work of one process of `vsn data pack`."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vsn.config import Decoder
from vsn.data.part import VideoPart
from vsn.data.video import VideoError, open_video, part_reader, stored_bytes
from vsn.data.video.constant_rate import is_at_constant_rate
from vsn.data.video.jpeg import MAX_SIDE, decode_jpeg, encode_jpeg
from vsn.data.video.packed_files import FOOTER, FRAME, MAGIC, VIDEO, Shard
from vsn.system.files import atomic_write


class SourceVideo(NamedTuple):
    """A video, or a segment of one, to pack."""

    shown: VideoPart
    video_id: str


@dataclass(frozen=True)
class ShardJob:
    """A shard to write: which videos, and how."""

    path: Path
    videos: tuple[SourceVideo, ...]
    short_side: int
    """Pixels of the shorter side; smaller frames keep their size."""
    quality: int
    """JPEG quality of the frames, 1 to 100."""
    frame_template: str
    decoder: Decoder
    pack: str
    """Fingerprint of the pack it belongs to."""


class UnreadVideo(NamedTuple):
    """A video that could not be packed."""

    video_id: str
    reason: str
    stamp: str
    """Size and modification time of the file; when they change, the video is tried again."""


@dataclass(frozen=True)
class ShardContent:
    """What a shard holds, read from its tables."""

    pack: str
    """Fingerprint of the pack it belongs to."""
    ids: tuple[str, ...]
    bad: tuple[UnreadVideo, ...]
    num_frames: int
    bytes_in: int
    """Size of the source videos."""
    bytes_out: int

    @classmethod
    def of(cls, path: Path) -> ShardContent:
        """Read the tables of the shard at `path`. Raises `VideoError`."""
        shard = Shard(path)
        description = shard.description
        return cls(
            pack=description["pack"],
            ids=tuple(description["ids"]),
            bad=tuple(UnreadVideo(*values) for values in description["bad"]),
            num_frames=int(shard.videos["num_frames"].sum()),
            bytes_in=description["bytes_in"],
            bytes_out=path.stat().st_size,
        )


class ShardWriter:
    """Write the file format that `vsn.data.video.packed_files` reads.

    Example:
        writer = ShardWriter(file)
        for jpeg in frames:
            writer.add_frame(jpeg)
        writer.end_video(frames_per_second=25.0, height=256, width=340)
        writer.finish(b'{"ids": ["a.mp4"]}')
    """

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file
        self._videos: list[tuple[int, int, float, int, int, int, int]] = []
        file.write(MAGIC)
        self._start_video()

    def _start_video(self) -> None:
        self._start = self._file.tell()
        self._frames: list[tuple[int, int]] = []

    def add_frame(self, jpeg: bytes) -> None:
        """Append a frame to the current video."""
        self._file.write(jpeg)
        self._frames.append((len(jpeg), zlib.crc32(jpeg)))

    def end_video(self, *, frames_per_second: float, height: int, width: int) -> None:
        """Append the frame table of the current video, and start the next one."""
        table_start, table = self._file.tell(), np.array(self._frames, FRAME).tobytes()
        self._file.write(table)
        self._videos.append(
            (self._start, table_start, frames_per_second, len(self._frames), height, width, zlib.crc32(table))
        )
        self._start_video()

    def discard_video(self) -> None:
        """Remove the frames of the current video."""
        self._file.seek(self._start)
        self._file.truncate()
        self._start_video()

    def finish(self, description: bytes) -> None:
        """Write the video table, the description (JSON) and the footer, and flush them to the disk."""
        # The tables come last, because their size is known last; the footer at the very end says where they start.
        start = self._file.tell()
        tables = np.array(self._videos, VIDEO).tobytes() + description
        self._file.write(tables)
        self._file.write(FOOTER.pack(start, len(self._videos), len(description), zlib.crc32(tables), MAGIC))
        self._file.flush()
        # The caller renames the file next. Without fsync, a power failure can leave the new name on an empty file.
        os.fsync(self._file.fileno())


def write_shard(job: ShardJob) -> ShardContent:
    """Write a shard atomically, after reading it back.

    Frames are written one at a time, so memory does not grow with the length of a video. A video that cannot be read
    is recorded in the shard and skipped. Raises `OSError` for a full disk and `VideoError` when the file does not
    read back.
    """
    with atomic_write(job.path) as temporary:
        ids: list[str] = []
        counts: list[int] = []
        times: dict[int, list[float]] = {}
        begins: dict[int, float] = {}
        bad: list[UnreadVideo] = []
        bytes_in = 0
        with temporary.open("wb") as file:
            writer = ShardWriter(file)
            for video in job.videos:
                try:
                    stored = _write_video(writer, video, job)
                    if stored.times:
                        times[len(ids)] = stored.times
                    if stored.begins:
                        begins[len(ids)] = stored.begins
                    counts.append(stored.num_frames)
                    ids.append(video.video_id)
                    bytes_in += stored_bytes(video.shown.path)
                except VideoError as error:
                    writer.discard_video()  # frames before the damaged one are written already
                    bad.append(UnreadVideo(video.video_id, error.reason, _stamp(video.shown.path)))
            description: dict[str, object] = {"pack": job.pack, "ids": ids, "bad": bad, "bytes_in": bytes_in}
            # Left out where empty: most shards need not be parsed to open a video.
            description |= {key: value for key, value in (("times", times), ("begins", begins)) if value}
            writer.finish(json.dumps(description, ensure_ascii=False, separators=(",", ":")).encode())
        # Read back now: damage found at training time would cost a run, and the source may be gone by then.
        if faults := shard_faults(temporary):
            raise VideoError(job.path, f"does not read back as written: {faults[0].reason}")
        content = ShardContent.of(temporary)
        if list(content.ids) != ids or Shard(temporary).videos["num_frames"].tolist() != counts:
            raise VideoError(job.path, "does not read back as written: other videos or frame counts.")
    return content


class _Stored(NamedTuple):
    """A video that was appended to a shard."""

    num_frames: int
    times: list[float]
    """Seconds of each frame and of the end; empty where frames are evenly spaced."""
    begins: float
    """See `VideoReader`."""


def _write_video(writer: ShardWriter, video: SourceVideo, job: ShardJob) -> _Stored:
    """Append a video to a shard. Raises `VideoError`."""
    path, part = video.shown
    source = open_video(path, frame_template=job.frame_template).metadata
    # Never enlarge: that would cost space and add nothing.
    short_side = job.short_side if min(source.height, source.width) > job.short_side else None
    whole = open_video(path, short_side=short_side, frame_template=job.frame_template, decoder=job.decoder)
    frames = part_reader(whole, part)
    num_frames, height, width = 0, 0, 0
    # One frame at a time.
    for frame in frames:
        height, width = frame.shape[:2]
        if max(height, width) > MAX_SIDE:
            raise VideoError(path, f"frames have {height}x{width} pixels; a JPEG has at most {MAX_SIDE} a side.")
        writer.add_frame(encode_jpeg(np.ascontiguousarray(frame), quality=job.quality))
        num_frames += 1
    if not num_frames:
        raise VideoError(path, "no frame can be decoded.")
    writer.end_video(frames_per_second=source.frames_per_second, height=height, width=width)
    # Of a damaged file fewer frames may decode than have time stamps; of some codecs more.
    seconds = [*frames.times.tolist(), frames.seconds]
    if is_at_constant_rate(frames) or num_frames >= len(seconds):
        return _Stored(num_frames, [], frames.begins)
    return _Stored(num_frames, seconds[: num_frames + 1], frames.begins)


def reusable_content(job: ShardJob) -> ShardContent | None:
    """Return what an existing shard holds if writing it again would give the same file, else None."""
    if not job.path.is_file():
        return None
    try:
        content = ShardContent.of(job.path)
    except VideoError:
        return None
    if content.pack != job.pack:
        return None
    # Another shard of the same pack, copied here, has the same fingerprint.
    if {*content.ids, *(bad.video_id for bad in content.bad)} != {video.video_id for video in job.videos}:
        return None
    # A video that could not be read and has changed since, for example copied again, may be readable now.
    bad_stamps = {bad.video_id: bad.stamp for bad in content.bad}
    changed = any(
        _stamp(video.shown.path) != bad_stamps[video.video_id] for video in job.videos if video.video_id in bad_stamps
    )
    return None if changed else content


def shard_faults(path: str | Path) -> list[VideoError]:
    """Check every byte of a shard against its checksum, and decode the first and last frame of each video.

    Returns one error for each damaged video, or one for a shard that cannot be opened.
    """
    try:
        return list(_video_faults(Shard(path)))
    except VideoError as error:
        return [error]


def _video_faults(shard: Shard) -> Iterator[VideoError]:
    for number, video in enumerate(shard.videos):
        try:
            last = int(video["num_frames"]) - 1
            for index in range(last + 1):
                data = shard.jpeg(number, index)
                # Checksums cover the bytes. Two decoded frames show that the bytes are pictures of the stated size.
                if index in (0, last):
                    try:
                        decode_jpeg(data, np.empty((video["height"], video["width"], 3), np.uint8))
                    except ValueError as error:
                        raise shard.damaged(number, index, f"({error})") from None
        except VideoError as error:
            yield error


def _stamp(path: Path) -> str:
    """Return size and modification time of a file or folder."""
    try:
        status = path.stat()
    except OSError:
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns}"
