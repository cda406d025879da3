"""Read the table of samples of an MP4 or MOV file: times and key frames of all packets, without reading the packets.

For long files, and files on a network, this is many times as fast as reading all packets. Only plain files are
understood: one video track, no fragments, no empty or cut edits, no other files, nothing truncated or said twice. ISO/IEC
14496-12 describes the boxes.
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
_MAX_BOXES = 1000
_READ_BOXES = {
    b"mvhd", b"mvex", b"mdia", b"edts", b"elst", b"mdhd", b"hdlr", b"minf", b"dinf", b"dref", b"stbl",
    b"stsd", b"stsz", b"stsc", b"stco", b"co64", b"stts", b"ctts", b"stss",
}  # fmt: skip


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
    offsets: np.ndarray
    """Where each sample begins in the file, int64."""
    sizes: np.ndarray
    """Bytes of each sample, int64."""


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
        if name in (b"moof", b"sidx") or 0 < size < start:  # fragments, or damaged
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
    start = number = 0
    while start + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, start)
        number += 1
        if size < 8 or number > _MAX_BOXES:
            raise ValueError("a box of no size, or too many")
        yield name, content[start + 8 : start + size]
        start += size


def _named_boxes(content: bytes) -> dict[bytes, bytes]:
    boxes: dict[bytes, bytes] = {}
    for name, box in _boxes(content):
        # Which of two counts depends on the reader.
        if name in boxes and name in _READ_BOXES:
            raise ValueError("two boxes of one name")
        boxes[name] = box
    return boxes


def _video_samples(movie: bytes, file_size: int) -> SampleTable | None:
    boxes = _named_boxes(movie)
    all_tracks = [_named_boxes(box) for name, box in _boxes(movie) if name == b"trak"]
    tracks = [track for track in all_tracks if _is_video(track)]
    if len(tracks) != 1 or b"mvex" in boxes:
        return None
    # FFmpeg stops at what it cannot read, such as a sound outside the file.
    if any((_offsets(_tables(track)) >= file_size).any() for track in all_tracks):
        return None
    media = _named_boxes(tracks[0][b"mdia"])
    table = _tables(tracks[0])
    timescale = _timescale(media[b"mdhd"])
    sizes = _sizes(table[b"stsz"], file_size)
    num_samples = len(sizes)
    offsets = _sample_offsets(table, sizes)
    has_one_format = struct.unpack_from(">I", table[b"stsd"], 4)[0] == 1
    is_plain = has_one_format and _is_self_contained(_named_boxes(media[b"minf"]))
    if not is_plain or (offsets + sizes > file_size).any():
        return None
    durations = _repeated(table[b"stts"], num_samples)
    dts = np.cumsum(durations) - durations
    # Offsets of version 0 are unsigned by the standard, and signed in files.
    pts = dts + _repeated(table[b"ctts"], num_samples) if b"ctts" in table else dts
    keys = _entries(table[b"stss"], 1)[:, 0] - 1 if b"stss" in table else np.arange(num_samples)
    is_ascending = (np.diff(keys, prepend=-1) > 0).all() and (keys < num_samples).all()
    if (durations < 0).any() or not is_ascending:
        return None
    if not _shows_all(tracks[0], pts, durations, keys, timescale=timescale, movie_timescale=_timescale(boxes[b"mvhd"])):
        return None
    return SampleTable(timescale, dts, pts, durations, keys, offsets, sizes)


def _tables(track: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The boxes that list the samples of a track."""
    return _named_boxes(_named_boxes(_named_boxes(track[b"mdia"])[b"minf"])[b"stbl"])


def _is_video(track: dict[bytes, bytes]) -> bool:
    return _named_boxes(track[b"mdia"])[b"hdlr"][8:12] == b"vide"


def _timescale(header: bytes) -> int:
    """Units of a second, of the movie's or the track's header."""
    timescale = int(struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0])
    if not timescale:
        raise ValueError("no units of time")
    return timescale


def _is_self_contained(information: dict[bytes, bytes]) -> bool:
    """Whether the samples are in this file, not in another one."""
    references = _named_boxes(information[b"dinf"])[b"dref"] if b"dinf" in information else b""
    # The flag of each reference that says so is 1.
    return all(reference[3] & 1 for _, reference in _boxes(references[8:]))


def _numbers(box: bytes, start: int, number: int) -> np.ndarray:
    """So many numbers of 32 bits with a sign from this byte on, int64. Raises `ValueError` when the box has fewer."""
    return np.frombuffer(box, ">i4", number, start).astype(np.int64)


def _entries(box: bytes, num_columns: int) -> np.ndarray:
    """The rows of numbers that the box announces, int64: it may be longer."""
    (number,) = struct.unpack_from(">I", box, 4)
    return _numbers(box, 8, number * num_columns).reshape(-1, num_columns)


def _sizes(box: bytes, file_size: int) -> np.ndarray:
    """Bytes of each sample; none is empty."""
    size, number = struct.unpack_from(">II", box, 4)
    if number > min(_MAX_SAMPLES, file_size):
        raise ValueError("too many samples")
    sizes = np.full(number, size, np.int64) if size else _numbers(box, 12, number)
    if not (sizes > 0).all():
        raise ValueError("an empty sample")
    return sizes


def _repeated(box: bytes, num_samples: int) -> np.ndarray:
    """The values of pairs (how often, value), one for each sample, int64."""
    counts, values = _entries(box, 2).T
    if (counts < 0).any() or counts.sum() != num_samples:
        raise ValueError("not one value a sample")
    return np.repeat(values, counts)


def _offsets(table: dict[bytes, bytes]) -> np.ndarray:
    """Where each chunk, a run of samples, begins in the file, int64."""
    name, kind = (b"co64", ">i8") if b"co64" in table else (b"stco", ">u4")
    (number,) = struct.unpack_from(">I", table[name], 4)
    return np.frombuffer(table[name], kind, number, 8).astype(np.int64)


def _sample_offsets(table: dict[bytes, bytes], sizes: np.ndarray) -> np.ndarray:
    """Where each sample begins in the file, int64."""
    offsets = _offsets(table)
    first_chunks, per_chunk, formats = _entries(table[b"stsc"], 3).T
    num_chunks = np.diff(first_chunks, append=len(offsets) + 1)
    if first_chunks[0] != 1 or (num_chunks < 1).any() or (per_chunk < 1).any() or (formats != 1).any():
        raise ValueError("not the chunks that are there")
    samples = np.repeat(per_chunk, num_chunks)
    ends = np.cumsum(samples)
    if ends[-1] != len(sizes) or (offsets < 0).any():
        raise ValueError("not all samples")
    before = np.cumsum(sizes) - sizes
    return np.repeat(offsets - before[ends - samples], samples) + before


def _shows_all(
    track: dict[bytes, bytes],
    pts: np.ndarray,
    durations: np.ndarray,
    keys: np.ndarray,
    *,
    timescale: int,
    movie_timescale: int,
) -> bool:
    """Whether an edit list, if there is one, shows all samples from the first one on."""
    edits = _named_boxes(track[b"edts"]).get(b"elst") if b"edts" in track else None
    if edits is None:
        return True
    is_long = edits[0] == 1
    if struct.unpack_from(">I", edits, 4)[0] != 1:
        return False
    length, media_time, rate = struct.unpack_from(">QqI" if is_long else ">IiI", edits, 8)
    shown = (2 * length * timescale + movie_timescale) // (2 * movie_timescale)  # rounded, as FFmpeg does
    since_first = pts - pts.min()
    # FFmpeg cuts off all that follows a key frame at the end of the edit.
    last_keys = keys[since_first[keys] + durations[keys] >= shown]
    ends_early = (last_keys < len(pts) - 1).any()
    return bool(rate == 0x10000 and media_time == pts.min() and shown > since_first.max() and not ends_early)
