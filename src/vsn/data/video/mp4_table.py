"""Read the table of samples of an MP4 or MOV file: times and key frames of all packets, without reading the packets.

For long files, and files on a network, this is many times as fast as reading all packets. Only plain files are
understood: one video track, no fragments, no empty or cut edits, nothing truncated. ISO/IEC 14496-12 describes the boxes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

_MAX_TABLE_BYTES = 64 * 2**20
_MAX_SAMPLES = 10_000_000


@dataclass(frozen=True)
class SampleTable:
    """The samples of the video track, in the order of the file."""

    timescale: int
    """Units of a second."""
    dts: np.ndarray
    """Times of decoding, from 0, int64."""
    pts: np.ndarray
    """Times of display, up to a constant, int64."""
    durations: np.ndarray
    """Distances of the times of decoding, int64."""
    keys: np.ndarray
    """Places of the samples marked as key frames, int64."""
    first_offset: int
    """Where the first sample begins in the file."""


def read_sample_table(path: str | Path) -> SampleTable | None:
    """Return the samples of the only video track; None for a file that is not plain, or not understood."""
    try:
        with open(path, "rb") as file:
            movie = _movie(file)
            return None if movie is None else _video_samples(movie, os.fstat(file.fileno()).st_size)
    except (OSError, struct.error, ValueError, IndexError, KeyError, OverflowError):  # damaged
        return None


def _movie(file: BinaryIO) -> bytes | None:
    """The content of the box "moov", at the beginning or the end of the file."""
    movie = None
    while header := file.read(8):
        size, name = struct.unpack(">I4s", header)
        start = 8
        if size == 1:
            (size,), start = struct.unpack(">Q", file.read(8)), 16
        if name in (b"moof", b"sidx"):  # fragments
            return None
        if name == b"moov":
            if movie is not None or not start <= size <= _MAX_TABLE_BYTES:
                return None
            movie = file.read(size - start)
        elif size == 0:  # to the end of the file
            break
        else:
            file.seek(size - start, os.SEEK_CUR)
    return movie


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = 0
    while start + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, start)
        if size < 8:
            raise ValueError("a box of no size")
        yield name, content[start + 8 : start + size]
        start += size


def _video_samples(movie: bytes, file_size: int) -> SampleTable | None:
    boxes = list(_boxes(movie))
    tracks = [track for track in (dict(_boxes(box)) for name, box in boxes if name == b"trak") if _is_video(track)]
    if len(tracks) != 1 or b"mvex" in dict(boxes):
        return None
    media = dict(_boxes(tracks[0][b"mdia"]))
    table = dict(_boxes(dict(_boxes(media[b"minf"]))[b"stbl"]))
    timescale = struct.unpack_from(">I", media[b"mdhd"], 20 if media[b"mdhd"][0] == 1 else 12)[0]
    sizes = _sizes(table[b"stsz"])
    num_samples = len(sizes)
    offsets = _offsets(table)
    has_one_format = struct.unpack_from(">I", table[b"stsd"], 4)[0] == 1
    if not has_one_format or not (sizes > 0).all() or not _is_complete(table, offsets, sizes, file_size):
        return None
    durations = _repeated(table[b"stts"], num_samples)
    dts = np.cumsum(durations) - durations
    # Offsets of version 0 are unsigned by the standard, and signed in files.
    pts = dts + _repeated(table[b"ctts"], num_samples) if b"ctts" in table else dts
    keys = _numbers(table[b"stss"], 8) - 1 if b"stss" in table else np.arange(num_samples)
    if (keys < 0).any() or (keys >= num_samples).any() or not _shows_all(tracks[0], pts, durations, timescale, movie):
        return None
    return SampleTable(timescale, dts, pts, durations, keys, int(offsets[0]))


def _is_video(track: dict[bytes, bytes]) -> bool:
    return dict(_boxes(track[b"mdia"]))[b"hdlr"][8:12] == b"vide"


def _numbers(box: bytes, start: int) -> np.ndarray:
    """The numbers of 32 bits with a sign from this byte on, int64."""
    return np.frombuffer(box[start : start + (len(box) - start) // 4 * 4], ">i4").astype(np.int64)


def _sizes(box: bytes) -> np.ndarray:
    """Bytes of each sample."""
    size, number = struct.unpack_from(">II", box, 4)
    if number > _MAX_SAMPLES:
        raise ValueError("too many samples")
    sizes = np.full(number, size, np.int64) if size else _numbers(box, 12)
    if len(sizes) != number:
        raise ValueError("not all sizes")
    return sizes


def _repeated(box: bytes, num_samples: int) -> np.ndarray:
    """The values of pairs (how often, value), one for each sample, int64."""
    counts, values = _numbers(box, 8).reshape(-1, 2).T
    if (counts < 0).any() or counts.sum() != num_samples:
        raise ValueError("not one value a sample")
    return np.repeat(values, counts)


def _offsets(table: dict[bytes, bytes]) -> np.ndarray:
    """Where each chunk, a run of samples, begins in the file, int64."""
    if b"co64" in table:
        return np.frombuffer(table[b"co64"][8:], ">u8").astype(np.int64)
    return np.frombuffer(table[b"stco"][8:], ">u4").astype(np.int64)


def _is_complete(table: dict[bytes, bytes], offsets: np.ndarray, sizes: np.ndarray, file_size: int) -> bool:
    """Whether all samples lie within the file."""
    first_chunks, per_chunk, _ = _numbers(table[b"stsc"], 8).reshape(-1, 3).T
    samples = np.repeat(per_chunk, np.diff(first_chunks, append=len(offsets) + 1))
    ends = np.cumsum(samples)
    if len(samples) != len(offsets) or ends[-1] != len(sizes):
        return False
    total = np.concatenate([[0], np.cumsum(sizes)])
    return bool((offsets + total[ends] - total[ends - samples] <= file_size).all())


def _shows_all(track: dict[bytes, bytes], pts: np.ndarray, durations: np.ndarray, timescale: int, movie: bytes) -> bool:
    """Whether an edit list, if there is one, shows all samples from the first one on."""
    edits = dict(_boxes(track[b"edts"])).get(b"elst") if b"edts" in track else None
    if edits is None:
        return True
    is_long = edits[0] == 1
    if struct.unpack_from(">I", edits, 4)[0] != 1:
        return False
    length, media_time, rate = struct.unpack_from(">QqI" if is_long else ">IiI", edits, 8)
    header = dict(_boxes(movie))[b"mvhd"]
    movie_timescale = struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0]
    # One frame of tolerance: the length is rounded to the units of the movie.
    shown = length / movie_timescale * timescale + durations.max()
    return bool(rate == 0x10000 and media_time == pts.min() and shown >= pts.max() - pts.min() + durations[-1])
