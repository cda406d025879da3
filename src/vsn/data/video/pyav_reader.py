"""Read video files through PyAV, decoding from the first frame; open containers safely for other modules.

`torchcodec_reader` seeks where a file's frame numbers allow it. FFmpeg runs with one thread, because worker
processes or threads already run in parallel.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vsn.data.video.frame_converter import FrameConverter, is_hdr
from vsn.data.video.orientation import frame_orientation
from vsn.data.video.reader import (
    MAX_PIXELS,
    FewerFramesError,
    VideoError,
    VideoMetadata,
    VideoReader,
    checked_indices,
)

# What PyAV and numpy raise for damaged content: mostly FFmpegError. Sizes read from a damaged header
# cause the others.
_CONTENT_ERRORS = (
    av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, MemoryError, RuntimeError,
)  # fmt: skip

# Playlist formats open other files: a hostile one could name itself without end, or a pipe.
_PLAYLISTS = {"concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"}
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(av.formats_available - _PLAYLISTS)),
    "max_pixels": str(MAX_PIXELS),
}
_STALL_SECONDS = 60.0
UNDECODABLE = (av.FFmpegError, ValueError)
"""What PyAV raises for a packet that does not decode; since version 19 a plain ValueError when no decoder opens."""
_REFUSES_TAGS = int(av.__version__.partition(".")[0]) < 19
"""Whether PyAV refuses files whose tags are in an unknown encoding unless told to ignore them."""


@dataclass(frozen=True)
class PacketIndex:
    """The packets of a file's video stream, found in one demux pass, without decoding.

    A packet stands for one frame. Packets that are never shown (an edit list cuts them off) are left out.
    """

    container_format: str
    """FFmpeg's name, such as "mov,mp4,m4a,3gp,3g2,mj2"."""
    stream_index: int | None
    """Index of the video stream among all streams; None when it is the only video stream."""
    frames_per_second: float
    """Average rate; 0.0 when unknown."""
    time_base: Fraction | None
    """Seconds of one unit of `pts`."""
    pts: tuple[int | None, ...]
    """Presentation timestamp of each packet, in file order."""
    is_key: tuple[bool, ...]
    """Whether each packet is marked as a key frame."""


class PyAVReader(VideoReader):
    """Read a video file through PyAV.

    Decoding starts at the first frame, so that indices are exact in every container, and stops after
    the last frame wanted.
    """

    def __init__(self, path: str | Path, *, short_side: int | None = None, decode_first: bool = False) -> None:
        self.index, first = _index_packets(path, decode_first=decode_first)
        super().__init__(
            path, num_frames=len(self.index.pts), frames_per_second=self.index.frames_per_second, short_side=short_side
        )
        if first is not None:
            self.metadata = self._metadata_from(first)

    @cached_property
    def metadata(self) -> VideoMetadata:
        """See `VideoReader.metadata`."""
        with content_errors(self.path), open_container(self.path) as container:
            first = next(_decoded_frames(self.path, container), None)
            if first is None:
                raise self._nothing_decodes()
            return self._metadata_from(first)

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader.frames_at`."""
        indices = checked_indices(indices, self.num_frames)
        wanted, last = set(indices), max(indices)
        images: dict[int, np.ndarray] = {}
        converter: FrameConverter | None = None
        num_decoded = 0
        with content_errors(self.path), open_container(self.path) as container:
            for frame in _decoded_frames(self.path, container):
                converter = converter or FrameConverter.of(self.path, frame, self.short_side)
                if num_decoded in wanted:  # converting to RGB costs as much as decoding: only what is wanted
                    images[num_decoded] = converter.rgb(frame)
                num_decoded += 1
                if num_decoded > last:
                    break
        if not num_decoded:
            raise self._nothing_decodes()
        # Truncated and damaged files announce frames that do not decode. Their number is known only now.
        if len(images) < len(wanted):
            announced, self.num_frames = self.num_frames, num_decoded
            raise FewerFramesError(self.path, f"it announces {announced} frames, of which {num_decoded} decode.")
        with content_errors(self.path):
            return np.stack([images[index] for index in indices])

    def __iter__(self) -> Iterator[np.ndarray]:
        converter: FrameConverter | None = None
        with content_errors(self.path), open_container(self.path) as container:
            for frame in _decoded_frames(self.path, container):
                converter = converter or FrameConverter.of(self.path, frame, self.short_side)
                yield converter.rgb(frame)
        if converter is None:
            raise self._nothing_decodes()

    def _metadata_from(self, first: VideoFrame) -> VideoMetadata:
        size = FrameConverter.of(self.path, first, None)
        orientation = frame_orientation(self.path, first)
        return VideoMetadata(
            len(self.index.pts),
            self.frames_per_second,
            size.height,
            size.width,
            orientation.rotation,
            orientation.mirrored,
            is_hdr(first),
        )

    def _nothing_decodes(self) -> VideoError:
        # FFmpeg refuses frames of more than max_pixels; the codec then has no width.
        reason = f"none of its {len(self.index.pts)} frames decodes"
        with content_errors(self.path), open_container(self.path) as container:
            if not video_stream(self.path, container).codec_context.width:
                reason += f"; the header is damaged, or announces more than {MAX_PIXELS // 10**6} million pixels"
        return VideoError(self.path, f"{reason}.")


# --- containers, shared with streams, checks of data sets and other decoders -------------------------


def open_container(path: str | Path) -> InputContainer:
    """Open a file for reading. Raises `VideoError` for a path that is no file, and PyAV's errors for content.

    Safe for untrusted files: reads time out after a minute, frames of more than `MAX_PIXELS` are
    not decoded, and no other file is opened.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise VideoError(path, "a folder, not a video file.")
        if not stat.S_ISREG(status.st_mode):
            raise VideoError(path, "not a regular file (a pipe, socket or device).")
        with open(path, "rb"):  # a permission error here names its reason; FFmpeg's does not
            pass
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(path, "no such file.") from None
    except OSError as error:
        raise VideoError(path, f"cannot be opened ({error.strerror}).") from None
    if status.st_size == 0:
        raise VideoError(path, "the file is empty.")
    # Without "file:", FFmpeg takes a colon in the name as the end of a protocol.
    return open_source(f"file:{path}", options=_OPTIONS, timeout=_STALL_SECONDS)


def open_source(source: str, *, options: dict[str, str], timeout: float) -> InputContainer:
    """Call `av.open` for reading; accept files whose tags are in an unknown encoding."""
    # Latin-1 titles are common in old AVI files, and say nothing about the frames.
    if _REFUSES_TAGS:
        return av.open(source, options=options, metadata_errors="ignore", timeout=timeout)  # type: ignore[call-overload,no-any-return,unused-ignore]
    return av.open(source, options=options, timeout=timeout)


def video_stream(path: str | Path, container: InputContainer) -> VideoStream:
    """Return the first video stream that is not a cover picture, ready to decode. Raises `VideoError`."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover picture of a sound file
            if stream.codec_context is None:
                raise VideoError(path, "no decoder for its video stream.")
            # Options of a decoder must be set before it opens.
            if not stream.codec_context.is_open:
                stream.codec_context.thread_count = 1
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            return stream
    raise VideoError(path, "it has no video stream.")


@contextlib.contextmanager
def content_errors(path: str | Path) -> Iterator[None]:
    """Convert the errors that damaged content raises to a `VideoError` that names the file."""
    try:
        yield
    except VideoError:
        raise
    except av.ExitError:
        raise VideoError(path, f"opening it stalled for {_STALL_SECONDS:.0f} seconds.") from None
    except av.FFmpegError as error:
        raise VideoError(path, f"not a video that FFmpeg can read ({error.strerror}).") from error
    except _CONTENT_ERRORS as error:
        raise VideoError(path, f"cannot be decoded ({type(error).__name__}: {error}).") from error


def _index_packets(path: str | Path, *, decode_first: bool) -> tuple[PacketIndex, VideoFrame | None]:
    """Index a file in one pass; with `decode_first` also return the first frame that decodes. Raises `VideoError`."""
    # Counted, because the header's number of frames is often wrong.
    pts: list[int | None] = []
    is_key: list[bool] = []
    first: VideoFrame | None = None
    with content_errors(path), open_container(path) as container:
        stream = video_stream(path, container)
        rate = stream.average_rate or stream.guessed_rate
        for packet in _packets(path, container, stream):
            if decode_first and first is None:
                first = next(iter(decode_packet(stream, packet)), None)
            # Edit lists of MP4 cut packets off, which decode and are not shown.
            if not packet.is_discard:
                pts.append(packet.pts)
                is_key.append(packet.is_keyframe)
        if decode_first and first is None:  # a decoder may hold the only frame until the end
            first = next(iter(decode_packet(stream, None)), None)
        index = PacketIndex(
            container_format=container.format.name,
            stream_index=stream.index if len(container.streams.video) > 1 else None,
            frames_per_second=float(rate) if rate else 0.0,
            time_base=stream.time_base,
            pts=tuple(pts),
            is_key=tuple(is_key),
        )
    if not pts:
        raise VideoError(path, "its video stream is empty.")
    return index, first


def _packets(path: str | Path, container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Yield packets that hold data; of a truncated file, those before the cut."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # decoders take an empty packet for the end of the stream
                yield packet
    except av.ExitError:
        raise VideoError(path, f"reading it stalled for {_STALL_SECONDS:.0f} seconds.") from None
    except av.FFmpegError:  # a truncated file
        return


def _decoded_frames(path: str | Path, container: InputContainer) -> Iterator[VideoFrame]:
    """Yield frames in display order. Packets that do not decode are skipped, as players do."""
    stream = video_stream(path, container)
    for packet in _packets(path, container, stream):
        yield from decode_packet(stream, packet)
    yield from decode_packet(stream, None)  # flush: codecs with B-frames hold frames back


def decode_packet(stream: VideoStream, packet: Packet | None) -> Sequence[VideoFrame]:
    """Return the frames that a packet completes, none when it does not decode. Packet None flushes the decoder."""
    try:
        return stream.decode(packet)
    except UNDECODABLE:
        return ()
