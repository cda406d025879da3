"""Index the packets of a video file: which frame each one shows, and where decoding may start.

One pass over the packets, without decoding, or the table of a plain MP4 or MOV file, gives the frame numbers that a player
would show. Where time stamps and key frames can be trusted, single frames can then be decoded without those before them
(`pyav_reader`).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vsn.data.video.bit_streams import (
    can_skip_unreferenced,
    ends_sequence,
    is_access_point,
    is_hidden,
    is_of_early_x264,
)
from vsn.data.video.container import read_packets, shown_at, video_stream
from vsn.data.video.mp4_table import SampleTable, read_sample_table
from vsn.data.video.reader import VideoError

_SEEKABLE_FORMATS = ("mov", "matroska")
"""Containers that seek to a packet. Others, such as AVI and MPEG-TS, guess positions or mark key frames wrongly."""
_ONE_PACKET_A_FRAME = {"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "prores", "dnxhd", "ffv1"}
"""Codecs of which each packet completes exactly one shown frame, or is known to be hidden. In others, such as MPEG-4
part 2, a packet may hold two frames or none."""
MAX_STEP_SECONDS, MAX_BACK_SECONDS = 10.0, 0.1
"""Where a clock may restart, a longer step of the decoding time, or one further back, is a restart: FFmpeg's limits."""
_CACHE_BYTES = 64 * 2**20
_KEPT_BYTES = 16 * 2**20
_FIRST_BYTES = 2000
_EARLY_X264 = "an early version of x264 wrote it, whose errors can be corrected only from the first packet on"
_DROPS_FRAMES = "a key frame makes decoders drop frames beside it"
_HEAD_BYTES = 4096
_ENDS_OF_SEQUENCE = (b"\2\x48\1", b"\2\x4a\1")
"""How a packet of HEVC ends in which the last NAL unit is one of end of sequence, or of bit stream."""
_PACKET_BYTES = 400
"""About the memory of a packet besides its data."""


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """The packets of a file's video stream.

    A packet stands for one frame. Hidden packets are decoded and not shown: an edit list cuts them off, or only other
    frames refer to them.
    """

    container_format: str
    """FFmpeg's name, such as "mov,mp4,m4a,3gp,3g2,mj2"."""
    stream_index: int | None
    """Index of the video stream among all streams; None when it is the only video stream."""
    frames_per_second: float
    """Average rate; 0.0 when unknown."""
    time_base: Fraction | None
    """Seconds of one unit of `pts`."""
    num_frames: int
    """Packets that are shown."""
    pts: np.ndarray
    """Presentation time stamp of each packet in file order, hidden ones too, int64; without the jumps of a clock that
    restarts. Of decoding where a container stores no others; empty when some packets have neither."""
    positions: np.ndarray
    """Of each frame in the order of display, the place of its packet in the file, int32; empty as `pts`."""
    begins: float
    """Seconds at which players show the first frame; see `container.shown_at`."""
    last_seconds: float
    """How long the last frame is shown; 0.0 when unknown."""
    starts: np.ndarray
    """Places of the packets where decoding may start, int32: key frames across which no frame refers."""
    skips_unreferenced: bool
    """Whether the decoder knows which frames no other refers to, and can leave them out."""
    obstacle: str
    """Why frames are decoded from the first one on, such as "time stamps repeat"; empty when decoding may start at
    any of `starts`."""
    from_table: bool
    """Whether it is from the table of an MP4 or MOV file. That table may be wrong, and mark other frames as key frames."""

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        return self.pts.nbytes + self.positions.nbytes + self.starts.nbytes


def index_packets(path: str | Path, container: InputContainer) -> tuple[PacketIndex, list[Packet] | None]:
    """Index the video stream of a container that has just been opened, which is read to its end.

    Returns the index, and the packets unless they take too much memory. Raises `VideoError`.
    """
    stream = video_stream(path, container)
    codec = stream.codec_context
    name = codec.codec.canonical_name
    pts: list[int | None] = []
    dts: list[int | None] = []
    durations: list[int] = []
    hidden: list[int] = []
    keys: list[int] = []
    kept: list[Packet] | None = []
    num_bytes = 0
    obstacle = ""
    for position, packet in enumerate(read_packets(path, container, stream)):
        pts.append(packet.pts)
        dts.append(packet.dts)
        durations.append(packet.duration or 0)
        num_bytes += packet.size + _PACKET_BYTES
        if kept is not None:
            kept.append(packet)
            kept = kept if num_bytes <= _KEPT_BYTES else None
        # Counted, because the header's number of frames is often wrong.
        if packet.is_discard or is_hidden(name, packet):
            hidden.append(position)
        if packet.is_keyframe:
            if is_access_point(codec, bytes(packet)):
                keys.append(position)
            if position and packet.has_sidedata("new_extradata"):
                obstacle = obstacle or "the stream changes its parameters"
        if name == "hevc" and ends_sequence(codec, bytes(packet), is_first=not position):
            obstacle = obstacle or _DROPS_FRAMES
        if not position and is_of_early_x264(codec, bytes(packet)[:_FIRST_BYTES]):
            obstacle = _EARLY_X264
        if packet.is_corrupt:
            obstacle = obstacle or "a packet is damaged"
    if len(pts) == len(hidden):
        raise VideoError(path, "its video stream is empty.")
    if None in pts:
        obstacle = obstacle or "time stamps are missing"
    # AVI stores times of decoding only, from which FFmpeg guesses those of display. Frames are shown as far apart.
    known = dts if None in pts or container.format.name == "avi" else pts
    stamps = np.empty(0, np.int64)
    if stream.time_base is not None and None not in known:
        stamps = np.array(known, np.int64)
        if clock_may_restart(container):
            # Times of display step back too where there are B-frames.
            clock, max_back = (stamps, MAX_STEP_SECONDS) if None in dts else (np.array(dts, np.int64), MAX_BACK_SECONDS)
            unit = float(stream.time_base)
            stamps = stamps + _clock_offsets(clock, max_step=MAX_STEP_SECONDS / unit, max_back=max_back / unit)
    index = _assembled(
        container, stream, stamps, keys,
        num_frames=len(pts) - len(hidden), hidden=hidden, durations=durations, is_delayed=dts != pts, obstacle=obstacle,
    )  # fmt: skip
    return index, kept


def index_from_table(path: str | Path, container: InputContainer) -> PacketIndex | None:
    """Index a plain MP4 or MOV file by its table of samples; no packet is read. None for other files."""
    stream = video_stream(path, container)
    is_known = container.format.name.startswith("mov") and len(container.streams.video) == 1
    # Whether frames of VP8 and VP9 are hidden only their packets tell.
    if not is_known or stream.codec_context.codec.canonical_name in ("vp8", "vp9"):
        return None
    table = read_sample_table(path)
    if table is None or stream.time_base != Fraction(1, table.timescale) or stream.start_time is None:
        return None
    # Only the data shows where frames are missing: before the first access point, or at a joint of HEVC.
    codec = stream.codec_context
    with open(path, "rb") as file:
        first = _read_at(file, table.offsets[0], table.sizes[0])
        if is_of_early_x264(codec, first[:_FIRST_BYTES]) or not is_access_point(codec, first):
            return None
        if codec.name == "hevc" and _has_joints(codec, file, table):
            return None
    index = _assembled(
        container, stream, table.pts - table.pts.min() + stream.start_time, table.keys.tolist(),
        num_frames=len(table.pts), hidden=[], durations=table.durations, is_delayed=bool((table.pts != table.dts).any()),
        obstacle="", from_table=True,
    )  # fmt: skip
    # Where the table's marks do not suffice, the packets may tell more.
    return None if index.obstacle else index


def _read_at(file: BinaryIO, offset: int, num_bytes: int) -> bytes:
    file.seek(offset)
    return file.read(num_bytes)


def _has_joints(codec: VideoCodecContext, file: BinaryIO, table: SampleTable) -> bool:
    """Return whether frames of HEVC may be dropped at a key frame, or whether its first bytes do not show it."""
    for place in table.keys[table.keys > 0].tolist():
        head = _read_at(file, table.offsets[place], min(table.sizes[place], _HEAD_BYTES))
        if not is_access_point(codec, head) or ends_sequence(codec, head, is_first=False):
            return True
        size = table.sizes[place - 1]
        if size > 3 and _read_at(file, table.offsets[place - 1] + size - 3, 3) in _ENDS_OF_SEQUENCE:
            return True
    return False


def _assembled(
    container: InputContainer,
    stream: VideoStream,
    pts: np.ndarray,
    keys: list[int],
    *,
    num_frames: int,
    hidden: list[int],
    durations: Sequence[int] | np.ndarray,
    is_delayed: bool,
    obstacle: str,
    from_table: bool = False,
) -> PacketIndex:
    """Return the index of packets with these time stamps (empty when some have none), some of them hidden."""
    codec = stream.codec_context
    obstacle = _untrusted_kind(container.format.name, codec.codec.canonical_name) or obstacle
    last_seconds = 0.0
    starts = positions = pts
    if len(pts) and stream.time_base is not None:
        order = np.argsort(pts, kind="stable")
        positions = order[~np.isin(order, hidden)] if hidden else order
        starts = _closed_starts(pts, keys)
        is_ascending = bool((np.diff(pts) > 0).all())
        if (np.diff(pts[order]) == 0).any():
            obstacle = obstacle or "time stamps repeat"
        # Frames that change places need a delay between decoding and display. Matroska stores no times of decoding.
        is_ordered = is_delayed and not container.format.name.startswith("matroska")
        if codec.has_b_frames and not is_ordered and is_ascending:
            obstacle = obstacle or "time stamps are those of decoding, not of display"
        # With B-frames a duration is a distance of decoding times: that of the last frame says nothing then.
        if is_ascending:
            last_seconds = float(durations[positions[-1]] * stream.time_base)
        if not len(starts) or starts[0] != 0:
            obstacle = obstacle or "it does not begin with a key frame"
    # Without time stamps the average is FFmpeg's default of 25, and its guess the rate in the header of the codec.
    rate = (stream.average_rate if len(pts) else None) or stream.guessed_rate or stream.average_rate
    return PacketIndex(
        container_format=container.format.name,
        stream_index=stream.index if len(container.streams.video) > 1 else None,
        frames_per_second=float(rate) if rate else 0.0,
        time_base=stream.time_base,
        num_frames=num_frames,
        pts=pts,
        positions=positions.astype(np.int32),
        begins=shown_at(container, stream, int(pts[positions[0]]) if len(positions) else None),
        last_seconds=last_seconds,
        starts=starts.astype(np.int32),
        skips_unreferenced=can_skip_unreferenced(codec),
        obstacle=obstacle,
        from_table=from_table,
    )


class FileKey(NamedTuple):
    """What identifies the content of a file."""

    path: str
    num_bytes: int
    modified: int
    """Nanoseconds."""
    inode: int
    device: int


class PacketIndexCache:
    """The indices of the files read last, up to a number of bytes; a file that changed is indexed again.

    Worker processes end with their epoch: what they index is moved to the process that starts them with `take_new`
    and `add`, and the next workers, where they are forked, begin with it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._indices: OrderedDict[FileKey, PacketIndex] = OrderedDict()
        self._new: dict[FileKey, None] = {}
        self._lock = threading.Lock()

    def get(self, key: FileKey) -> PacketIndex | None:
        """Return the index of a file, see `file_key`; None when it is not there."""
        with self._lock:
            index = self._indices.get(key)
            if index is not None:
                self._indices.move_to_end(key)
            return index

    def put(self, key: FileKey, index: PacketIndex) -> None:
        """Keep an index made here, instead of an earlier one; the ones used longest ago make room."""
        with self._lock:
            if (earlier := self._indices.pop(key, None)) is not None:
                self._num_bytes -= earlier.num_bytes + _OBJECT_BYTES
            self._new[key] = None
        self.add([(key, index)])

    def add(self, indices: Iterable[tuple[FileKey, PacketIndex]]) -> None:
        """Keep indices made by another process."""
        with self._lock:
            for key, index in indices:
                if key not in self._indices:
                    self._indices[key] = index
                    self._num_bytes += index.num_bytes + _OBJECT_BYTES
            while self._num_bytes > self._max_bytes:
                key, index = self._indices.popitem(last=False)
                self._num_bytes -= index.num_bytes + _OBJECT_BYTES
                self._new.pop(key, None)

    def take_new(self) -> list[tuple[FileKey, PacketIndex]]:
        """Return what was `put` since the last call."""
        with self._lock:
            new = [(key, self._indices[key]) for key in self._new if key in self._indices]
            self._new.clear()
            return new

    def clear(self) -> None:
        """Forget all indices."""
        with self._lock:
            self._indices.clear()
            self._new.clear()
            self._num_bytes = 0


_OBJECT_BYTES = 1500
"""About the memory of an index without its arrays' data, and of its key."""
CACHE = PacketIndexCache(_CACHE_BYTES)
"""The cache of this process."""


def file_key(path: str | Path) -> FileKey | None:
    """Return what identifies the content of a file; None when it cannot be read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a name with a null byte
        return None
    return FileKey(os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def _untrusted_kind(container_format: str, codec: str) -> str:
    """Return why a kind of file is not seekable; empty when it may be."""
    if not container_format.startswith(_SEEKABLE_FORMATS):
        return f"the container ({container_format}) does not seek exactly"
    if codec not in _ONE_PACKET_A_FRAME:
        return f"a packet of its codec ({codec}) may hold any number of frames"
    return ""


def clock_may_restart(container: InputContainer) -> bool:
    """Return whether a format has clocks that restart, such as MPEG-TS; in others a long step of time is a pause."""
    flags = container.format.flags  # an enumeration, or an integer, depending on PyAV's version
    return bool(int(getattr(flags, "value", flags)) & 0x200)  # AVFMT_TS_DISCONT


def _clock_offsets(stamps: np.ndarray, *, max_step: float, max_back: float) -> np.ndarray:
    """Return what to add to each time stamp, in file order, so that a clock that restarts runs on.

    The two frames at a restart are as far apart as frames usually are.
    """
    steps = np.diff(stamps)
    usual = int(np.median(steps)) if len(steps) else 0
    restarts = (steps - usual > max_step) | (steps < -max_back)
    return np.concatenate([[0], np.cumsum(np.where(restarts, usual - steps, 0))])


def _closed_starts(pts: np.ndarray, keys: list[int]) -> np.ndarray:
    """Return the keys that are shown after all packets before them and before all packets after them, int64.

    Frames that follow a key in the file and precede it in time may refer across it (an open GOP).
    """
    places = np.array(keys, np.int64)
    latest_before = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(pts)[:-1]])
    earliest_from = np.minimum.accumulate(pts[::-1])[::-1]
    is_closed = (latest_before[places] < pts[places]) & (pts[places] == earliest_from[places])
    return places[is_closed]
