"""Open containers of video files safely, and read their packets and frames in order."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vsn.data.video.reader import MAX_PIXELS, VideoError

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
_NOT_SHOWN = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
"""Cover pictures of sound files, and layers and tiles that are no picture by themselves."""
_PICTURE_BRANDS = {"avif", "avis", "heic", "heim", "heis", "heix", "mif1", "msf1"}
_STALL_SECONDS = 60.0
UNDECODABLE = (av.FFmpegError, ValueError)
"""What PyAV raises for a packet that does not decode; since version 19 a plain ValueError when no decoder opens."""
_REFUSES_TAGS = int(av.__version__.partition(".")[0]) < 19
"""Whether PyAV refuses files whose tags are in an unknown encoding unless told to ignore them."""


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
    """Return the stream that players show, ready to decode. Raises `VideoError`."""
    streams = [stream for stream in container.streams.video if not stream.disposition & _NOT_SHOWN]
    tiles = [stream for stream in container.streams.video if stream.disposition & Disposition.dependent]
    if tiles and container.metadata.get("major_brand") in _PICTURE_BRANDS:
        raise VideoError(
            path,
            f"a picture of {len(tiles)} tiles, as phones write HEIC, and tiles are not joined. Convert it to JPEG.",
        )
    if not streams:
        raise VideoError(path, "it has no video stream.")
    # The one that is marked, and of those of an animated AVIF not its still picture; else the first.
    stream = max(streams, key=lambda one: (bool(one.disposition & Disposition.default), one.frames != 1))
    if stream.codec_context is None:
        raise VideoError(path, "no decoder for its video stream.")
    # Options of a decoder must be set before it opens.
    if not stream.codec_context.is_open:
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def shown_at(container: InputContainer, stream: VideoStream, stamp: int | None) -> float:
    """Return at how many seconds players show the first picture, whose time stamp this is.

    Later than 0 where the sound begins earlier, as in what was cut out without coding it again: players and FFmpeg's tools
    count from the earlier one. 0.0 where that is unknown.
    """
    if stamp is None or container.start_time is None or stream.time_base is None:
        return 0.0
    return max(0.0, float(stamp * stream.time_base) - container.start_time / av.time_base)


def picture_start(path: str | Path) -> float:
    """Return `shown_at` of a file. Reads the packets before the first picture. Raises `VideoError`."""
    # From its packet: where the sound begins more than 5 seconds earlier, FFmpeg does not know when the stream starts.
    with content_errors(path), open_container(path) as container:
        stream = video_stream(path, container)
        first = next(read_packets(path, container, stream), None)
        return 0.0 if first is None else shown_at(container, stream, time_stamp(container, first))


def time_stamp(container: InputContainer, packet: Packet) -> int | None:
    """Return the presentation time stamp of a packet: in AVI, which stores only times of decoding, that of decoding."""
    return packet.dts if container.format.name == "avi" else packet.pts


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


def read_packets(path: str | Path, container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Yield packets that hold data; of a truncated file, those before the cut."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # decoders take an empty packet for the end of the stream
                yield packet
    except av.ExitError:
        raise VideoError(path, f"reading it stalled for {_STALL_SECONDS:.0f} seconds.") from None
    except av.FFmpegError:  # a truncated file
        return


def decoded_frames(stream: VideoStream, packets: Iterable[Packet]) -> Iterator[VideoFrame]:
    """Yield frames in display order. Packets that do not decode are skipped, as players do."""
    for packet in packets:
        yield from decode_packet(stream, packet)
    yield from decode_packet(stream, None)  # flush: codecs with B-frames hold frames back


def decode_packet(stream: VideoStream, packet: Packet | None) -> Sequence[VideoFrame]:
    """Return the frames that a packet completes, none when it does not decode. Packet None flushes the decoder."""
    try:
        return stream.decode(packet)
    except UNDECODABLE:
        return ()
