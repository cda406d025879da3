"""Read video files through PyAV, decoding only what the wanted frames need.

`packet_index` finds which packet shows a frame and where decoding may start. FFmpeg runs with one thread, because
worker processes or threads already run in parallel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, groupby, islice, takewhile
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vsn.data.video.bit_streams import is_access_point
from vsn.data.video.container import (
    UNDECODABLE,
    content_errors,
    decoded_frames,
    open_container,
    read_packets,
    video_stream,
)
from vsn.data.video.frame_converter import FrameConverter, is_hdr
from vsn.data.video.orientation import frame_orientation
from vsn.data.video.packet_index import (
    CACHE,
    FileKey,
    PacketIndex,
    file_key,
    index_from_table,
    index_packets,
)
from vsn.data.video.reader import (
    MAX_PIXELS,
    FewerFramesError,
    VideoError,
    VideoMetadata,
    VideoReader,
    checked_indices,
)

_LARGE_PIXELS = 1280 * 720
"""Frames from which on several threads decode faster than one."""


class PyAVReader(VideoReader):
    """Read a video file through PyAV.

    Where the packets' time stamps and key frames can be trusted, `frames_at` decodes from the key frame before each
    group of wanted frames, leaves out what no other frame refers to, and identifies frames by their time stamps. Otherwise,
    and when anything is not as the index says, it decodes from the first frame on and counts. Both give the same
    frames; `obstacle` says which way is taken.

    The file stays open until `close`. `num_decoded` counts the frames that `frames_at` decoded so far.
    """

    def __init__(self, path: str | Path, *, short_side: int | None = None, num_threads: int = 1) -> None:
        self._num_threads = num_threads
        self._file: _OpenFile | None = None
        self.path, self.num_decoded = path, 0
        key = file_key(path)
        index = CACHE.get(key) if key is not None else None
        with content_errors(path):
            container = self._open().container
            if index is None:
                index = index_from_table(path, container) or self._index_packets()
                self._remember(key, index)
        self._use(index)
        super().__init__(
            path, num_frames=index.num_frames, frames_per_second=index.frames_per_second, short_side=short_side
        )

    def _use(self, index: PacketIndex) -> None:
        self.index = index
        self.obstacle, self.begins = index.obstacle, index.begins
        self._must_count = bool(index.obstacle)

    def _remember(self, key: FileKey | None, index: PacketIndex) -> None:
        if key is not None and key == file_key(self.path):  # else the file was replaced while it was indexed
            CACHE.put(key, index)

    def _index_packets(self) -> PacketIndex:
        if self._file is not None and not self._file.is_unread:
            self.close()
        container = self._open().container
        index, kept = index_packets(self.path, container)
        self._file = _OpenFile(self.path, container, self._num_threads, kept, next_place=-1)
        return index

    def close(self) -> None:
        """See `VideoReader.close`."""
        if self._file is not None:
            self._file.container.close()
            self._file = None

    @property
    def times(self) -> np.ndarray:
        """See `VideoReader.times`."""
        stamps = self.index.pts[self.index.positions[: self.num_frames]]
        # Some writers give most frames the same stamp.
        is_usable = len(stamps) > 0 and np.count_nonzero(np.diff(stamps)) >= len(stamps) // 2
        if not is_usable or self.index.time_base is None:
            return super().times
        return (stamps - stamps[0]) * float(self.index.time_base)

    @property
    def last_seconds(self) -> float:
        """See `VideoReader.last_seconds`."""
        if self.index.last_seconds and self.num_frames == self.index.num_frames:
            return self.index.last_seconds
        return super().last_seconds

    @cached_property
    def metadata(self) -> VideoMetadata:
        """See `VideoReader.metadata`."""
        with content_errors(self.path):
            first = next(self._frames_from_first(), None)
        if first is None:
            raise self._nothing_decodes()
        size = FrameConverter.of(self.path, first, None)
        orientation = frame_orientation(self.path, first)
        return VideoMetadata(
            self.index.num_frames,
            self.frames_per_second,
            size.height,
            size.width,
            orientation.rotation,
            orientation.mirrored,
            is_hdr(first),
        )

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader.frames_at`."""
        indices = checked_indices(indices, self.num_frames)
        wanted = sorted(set(indices))
        images = None if self._must_count else self._seek(wanted)
        if images is None and self.index.from_table:
            self._replace_table()
            images = None if self._must_count else self._seek(wanted)
        if images is None:
            self._must_count = True
            images = self._count(wanted)
        with content_errors(self.path):
            return np.stack([images[index] for index in indices])

    def __iter__(self) -> Iterator[np.ndarray]:
        converter: FrameConverter | None = None
        # A container of its own: frames may be read by number while this loop runs.
        with content_errors(self.path), open_container(self.path) as container:
            stream = video_stream(self.path, container)
            for frame in decoded_frames(stream, read_packets(self.path, container, stream)):
                converter = converter or FrameConverter.of(self.path, frame, self.short_side)
                yield converter.rgb(frame)
        if converter is None:
            raise self._nothing_decodes()

    def _replace_table(self) -> None:
        """Index the packets of a file whose table is wrong; raises `FewerFramesError` when their number differs."""
        listed, key = self.num_frames, file_key(self.path)
        with content_errors(self.path):
            self._use(self._index_packets())
        self._remember(key, self.index)
        self.num_frames = self.index.num_frames
        if self.num_frames != listed:
            raise FewerFramesError(self.path, f"it lists {listed} frames and holds {self.num_frames}.")

    def _count(self, wanted: Sequence[int]) -> dict[int, np.ndarray]:
        """Return these frames, ascending, decoding from the first one; raises `FewerFramesError`."""
        images: dict[int, np.ndarray] = {}
        converter: FrameConverter | None = None
        num_decoded, remaining = 0, set(wanted)
        with content_errors(self.path):
            for frame in self._frames_from_first():
                self.num_decoded += 1
                converter = converter or FrameConverter.of(self.path, frame, self.short_side)
                if num_decoded in remaining:  # converting to RGB costs as much as decoding: only what is wanted
                    images[num_decoded] = converter.rgb(frame)
                num_decoded += 1
                if num_decoded > wanted[-1]:
                    break
        if not num_decoded:
            raise self._nothing_decodes()
        # Truncated and damaged files announce frames that do not decode. Their number is known only now.
        if len(images) < len(wanted):
            announced, self.num_frames = self.num_frames, num_decoded
            raise FewerFramesError(self.path, f"it announces {announced} frames, of which {num_decoded} decode.")
        return images

    def _seek(self, wanted: Sequence[int]) -> dict[int, np.ndarray] | None:
        """Return these frames, ascending, decoding as little as possible; None when the file is not as indexed."""
        index = self.index
        places = index.positions[wanted]
        starts = index.starts[np.searchsorted(index.starts, places, side="right") - 1].tolist()
        frame_of = {int(index.pts[place]): frame for place, frame in zip(places.tolist(), wanted, strict=True)}
        images: dict[int, np.ndarray] = {}
        converter: FrameConverter | None = None
        with content_errors(self.path):
            file = self._open()
            try:
                for start, group in groupby(zip(starts, places.tolist(), strict=True), key=lambda pair: pair[0]):
                    for stamp, frame in file.decode(index, start, [place for _, place in group]):
                        self.num_decoded += 1
                        if stamp in frame_of:
                            converter = converter or FrameConverter.of(self.path, frame, self.short_side)
                            images[frame_of[stamp]] = converter.rgb(frame)
            except (*UNDECODABLE, _NotAsIndexedError):
                return None
        return images if len(images) == len(wanted) else None

    def _open(self) -> _OpenFile:
        if self._file is None:
            self._file = _OpenFile(self.path, open_container(self.path), self._num_threads)
        return self._file

    def _frames_from_first(self) -> Iterator[VideoFrame]:
        """Decode all frames in display order, as from a file just opened: seeking back is not exact in every format."""
        if self._file is not None and not self._file.is_unread:
            self.close()
        return self._open().decode_all()

    def _nothing_decodes(self) -> VideoError:
        # FFmpeg refuses frames of more than max_pixels; the codec then has no width.
        reason = f"none of its {self.index.num_frames} frames decodes"
        with content_errors(self.path), open_container(self.path) as container:
            if container.format.name == "webp_pipe" and _is_animated(self.path):
                reason += ": FFmpeg before 9 does not decode animated WebP. Convert it to MP4, or use PyAV 19 or newer"
            elif not video_stream(self.path, container).codec_context.width:
                reason += f"; the header is damaged, or announces more than {MAX_PIXELS // 10**6} million pixels"
        return VideoError(self.path, f"{reason}.")


class _NotAsIndexedError(Exception):
    """A packet or a frame is not as the index says, or as other frames of the file must be."""


def _is_animated(webp: str | Path) -> bool:
    with open(webp, "rb") as file:
        return b"ANIM" in file.read(64)  # the second chunk, after the size and perhaps a color profile


class _OpenFile:
    """An open container: packets from any place of its index, and the frames that they decode to.

    Args:
        num_threads: that decode large frames; small ones are decoded by one.
        kept: all packets, when they are in memory already.
        next_place: place of the packet that the container gives next; -1 when that is not known.
    """

    def __init__(
        self,
        path: str | Path,
        container: InputContainer,
        num_threads: int,
        kept: list[Packet] | None = None,
        *,
        next_place: int = 0,
    ) -> None:
        self.container = container
        self.stream: VideoStream = video_stream(path, container)
        if num_threads > 1 and self.stream.width * self.stream.height >= _LARGE_PIXELS:
            self.stream.codec_context.thread_count = num_threads
            self.stream.codec_context.thread_type = "AUTO"
        self._path, self._kept, self._next_place = path, kept, next_place
        self.is_unread = kept is not None or next_place == 0
        """Whether the first packet can be had, and nothing was decoded yet."""
        self._size = (self.stream.width, self.stream.height)

    def decode_all(self) -> Iterator[VideoFrame]:
        """Decode all frames of a file that is unread."""
        unread = read_packets(self._path, self.container, self.stream) if self._kept is None else self._kept
        self.is_unread, self._next_place = False, -1
        return decoded_frames(self.stream, unread)

    def decode(self, index: PacketIndex, start: int, wanted: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Decode from a packet where decoding may start; yield time stamps and frames until the wanted packets' are out.

        Raises `_NotAsIndexedError`, and PyAV's errors for packets that do not decode.
        """
        codec = self.stream.codec_context
        stamps = index.pts[start : max(wanted) + 1].tolist()
        missing = {stamps[place - start] for place in wanted}
        # A search that fails has moved the container, too.
        next_place, self.is_unread, self._next_place = self._next_place, False, -1
        coming: Iterable[Packet]
        if self._kept is not None:
            coming = self._kept[start : start + len(stamps)]
        elif next_place == start:
            coming = read_packets(self._path, self.container, self.stream)
        else:
            coming = self._seek(index, start)
        skipping, codec.skip_frame = False, "DEFAULT"
        shown = -(2**63)
        needed = takewhile(lambda _: bool(missing), zip(stamps, coming, strict=False))
        # Told by None that no more packets come, the decoder gives the frames that it holds back.
        for stamp, packet in chain(needed, [(None, None)]):
            if packet is not None:
                if packet.pts != stamp:
                    raise _NotAsIndexedError
                if index.from_table and stamp == stamps[0] and not is_access_point(codec, bytes(packet)):
                    raise _NotAsIndexedError
                if index.skips_unreferenced and skipping == (stamp in missing):
                    skipping = not skipping
                    codec.skip_frame = "NONREF" if skipping else "DEFAULT"
            for frame in codec.decode(packet):
                # All frames get the size of the first frame of the file, which is not known here.
                is_as_first = (frame.width, frame.height) == self._size
                # Of interlaced frames a packet may hold one field of two, so that packets do not count frames.
                is_one_packet = not frame.interlaced_frame
                if frame.is_corrupt or not (is_as_first and is_one_packet) or frame.pts is None or frame.pts <= shown:
                    raise _NotAsIndexedError
                shown = frame.pts
                missing.discard(shown)
                yield shown, frame
        codec.flush_buffers()

    def _seek(self, index: PacketIndex, start: int) -> Iterator[Packet]:
        """Return the packets from place `start` on, where decoding may start."""
        starts = index.starts[: np.searchsorted(index.starts, start, side="right")]
        # Some containers search by time of decoding, which is before that of display: a start further back always fits.
        for key in dict.fromkeys((*starts[:-4:-1].tolist(), 0)):
            self.container.seek(int(index.pts[key]), stream=self.stream, backward=True)
            coming = read_packets(self._path, self.container, self.stream)
            first = next(coming, None)
            if first is None or first.pts is None:
                continue
            landed = np.flatnonzero(index.pts == first.pts).tolist()
            if landed and landed[0] <= start:
                return islice(chain([first], coming), start - landed[0], None)
        raise _NotAsIndexedError
