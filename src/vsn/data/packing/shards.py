"""Writing one packed file, and checking one: the work of one process of `vsn data pack`."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vsn.config import Decoder
from vsn.data.video import VideoError, open_video
from vsn.data.video.jpeg import MAX_SIDE, decode_jpeg, encode_jpeg
from vsn.data.video.packed_files import FOOTER, FRAME, MAGIC, VIDEO, Shard, packed_place
from vsn.system.files import atomic_write


class SourceVideo(NamedTuple):
    """A video to pack."""

    path: Path
    video_id: str


@dataclass(frozen=True)
class ShardJob:
    """A shard to write: which videos, and how."""

    path: Path
    videos: tuple[SourceVideo, ...]
    short_side: int
    """Pixels of the shorter side; smaller frames stay as they are."""
    quality: int
    """Of the JPEG frames, 1 to 100."""
    frame_template: str
    decoder: Decoder
    pack: str
    """Fingerprint of the pack it belongs to."""


class UnreadVideo(NamedTuple):
    """A video that could not be packed."""

    video_id: str
    reason: str
    stamp: str
    """Size and time of the file as it was; another stamp is worth another try."""


@dataclass(frozen=True)
class ShardContent:
    """What a shard holds, as it says of itself."""

    ids: tuple[str, ...]
    bad: tuple[UnreadVideo, ...]
    num_frames: int
    bytes_in: int
    """Size of the videos it was made of."""
    bytes_out: int


def write_shard(job: ShardJob) -> ShardContent:
    """Write a shard, read it back and compare, then give it its name.

    Frames are handled one at a time, so memory does not depend on how long videos are. A video that
    cannot be read is noted in the shard and left out. Raises `OSError` for a full disk, and
    `VideoError` when what was written does not read back; then there is no shard.
    """
    with atomic_write(job.path) as part:
        entries, bad, bytes_in = [], [], 0
        ids: list[str] = []
        with part.open("wb") as file:
            file.write(MAGIC)
            for video in job.videos:
                start = file.tell()
                try:
                    entries.append(_write_video(file, video, job))
                    ids.append(video.video_id)
                    bytes_in += _source_bytes(video.path)
                except VideoError as error:
                    file.seek(start)
                    file.truncate()
                    bad.append(UnreadVideo(video.video_id, error.reason, stamp(video.path)))
            description = {"pack": job.pack, "ids": ids, "bad": bad, "bytes_in": bytes_in}
            _write_tables(file, np.array(entries, VIDEO), description)
            file.flush()
            os.fsync(file.fileno())
        _check_written(part, job.path, ids, [entry[3] for entry in entries])
    return content_of(job.path)


def content_of(path: Path) -> ShardContent:
    """What the shard holds, from its tables. Raises `VideoError`."""
    shard = Shard(path)
    description = shard.description
    return ShardContent(
        ids=tuple(description["ids"]),
        bad=tuple(UnreadVideo(*values) for values in description["bad"]),
        num_frames=int(shard.videos["num_frames"].sum()),
        bytes_in=description["bytes_in"],
        bytes_out=path.stat().st_size,
    )


def kept_content(job: ShardJob) -> ShardContent | None:
    """What the shard holds when it is there, whole, and would come out the same; else None.

    A video that could not be read and has changed since is worth another try.
    """
    if not job.path.is_file():
        return None
    try:
        content = content_of(job.path)
        same = Shard(job.path).description["pack"] == job.pack
    except VideoError:
        return None
    now = {video.video_id: stamp(video.path) for video in job.videos if content.bad}
    same = same and {*content.ids, *(bad.video_id for bad in content.bad)} == {v.video_id for v in job.videos}
    return content if same and all(now.get(bad.video_id) == bad.stamp for bad in content.bad) else None


def shard_faults(path: str | Path) -> list[VideoError]:
    """What is wrong with a shard: every byte is read and compared with its checksum, and the first
    and last frame of each video are decoded. One error for each damaged video, or one for the shard.
    """
    try:
        return [*_faults(Shard(path))]
    except VideoError as error:
        return [error]


def stamp(path: Path) -> str:
    """Size and time of a file or folder: changes when it does."""
    try:
        status = path.stat()
    except OSError:
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns}"


def _write_video(file: io.BufferedWriter, video: SourceVideo, job: ShardJob) -> tuple[Any, ...]:
    """Append the frames and the frame table of a video; its `VIDEO` row. Raises `VideoError`."""
    stored = open_video(video.path, frame_template=job.frame_template).metadata
    short_side = job.short_side if min(stored.height, stored.width) > job.short_side else None
    frames = open_video(video.path, short_side=short_side, frame_template=job.frame_template, decoder=job.decoder)
    start, rows, shape = file.tell(), [], (0, 0)
    for frame in frames:
        shape = frame.shape[:2]
        if max(shape) > MAX_SIDE:
            raise VideoError(video.path, f"frames of {shape[0]}x{shape[1]} pixels; a JPEG has {MAX_SIDE} at most.")
        data = encode_jpeg(np.ascontiguousarray(frame), quality=job.quality)
        file.write(data)
        rows.append((len(data), zlib.crc32(data)))
    if not rows:
        raise VideoError(video.path, "no frame decodes.")
    position, table = file.tell(), np.array(rows, FRAME).tobytes()
    file.write(table)
    return start, position, stored.frames_per_second, len(rows), *shape, zlib.crc32(table)


def _check_written(part: Path, path: Path, ids: list[str], counts: list[int]) -> None:
    """Read a new shard back; raise `VideoError` unless it holds these videos, of so many frames, undamaged."""
    shard = Shard(part)
    if faults := [*_faults(shard)]:
        raise VideoError(path, f"does not read back as it was written: {faults[0].reason}")
    if shard.description["ids"] != ids or shard.videos["num_frames"].tolist() != counts:
        raise VideoError(path, "does not read back as it was written: other videos or frame counts.")


def _write_tables(file: io.BufferedWriter, videos: np.ndarray, description: dict[str, Any]) -> None:
    position = file.tell()
    text = json.dumps(description, ensure_ascii=False, separators=(",", ":")).encode()
    tables = videos.tobytes() + text
    file.write(tables)
    file.write(FOOTER.pack(position, len(videos), len(text), zlib.crc32(tables), MAGIC))


def _faults(shard: Shard) -> Iterator[VideoError]:
    for number, video in enumerate(shard.videos):
        try:
            table, position = shard.frame_table(number), int(video["start"])
            for index, (size, crc) in enumerate(table.tolist()):
                data = shard.read(position, size)
                position += size
                if zlib.crc32(data) != crc:
                    raise shard.damaged(number, f"frame {index}")
                if index in (0, len(table) - 1):
                    _check_picture(shard, number, index, data)
        except VideoError as error:
            yield error


def _check_picture(shard: Shard, number: int, index: int, data: bytes) -> None:
    stored = int(shard.videos[number]["height"]), int(shard.videos[number]["width"])
    try:
        shape = decode_jpeg(data).shape[:2]
    except ValueError as error:
        raise shard.damaged(number, f"frame {index} ({error})") from None
    if shape != stored:
        raise shard.damaged(number, f"frame {index} (of {shape[0]}x{shape[1]} pixels)")


def _source_bytes(path: Path) -> int:
    """Size of a video file, of all files of a folder of frames, or of the frames of a packed video."""
    if packed_place(path):
        shard = Shard(path.parent)
        return int(shard.frame_table(int(path.name))["size"].sum())
    if not path.is_dir():
        return path.stat().st_size
    with os.scandir(path) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file())
