"""Frames of video files, through PyAV: the one place that knows containers and codecs.

Rotation metadata is honoured; pixels are taken as square, whatever the container says of their
aspect. FFmpeg runs with one thread: loader processes or threads give the parallelism.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vsn.data.video.frames import MAX_PIXELS, Choose, VideoError, VideoInfo, chosen, frame_size

# What PyAV and numpy raise for damaged or absurd content. FFmpegError is most of it; sizes read from
# a damaged header end in the others.
_CONTENT_ERRORS = (
    av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, MemoryError, RuntimeError,
)  # fmt: skip

# A file can pose as a playlist of these kinds, which open other files: itself without end, a pipe.
_PLAYLISTS = {"concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"}
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(av.formats_available - _PLAYLISTS)),
    "max_pixels": str(MAX_PIXELS),
}
_STALL_SECONDS = 60.0
UNDECODABLE = (av.FFmpegError, ValueError)
"""What PyAV raises of a packet; a plain ValueError since 19, once a decoder could not be opened."""
_REFUSES_TAGS = int(av.__version__.partition(".")[0]) < 19
"""Whether PyAV refuses a file for its tags unless told otherwise; since 19 it never does, and cannot be told."""


def probe_file(path: str | Path) -> VideoInfo:
    """Count the frames of a video and read its rate, size and rotation. Raises `VideoError`."""
    num_frames, frames_per_second = count_packets(path)
    with content_errors(path), open_container(path) as container:
        frame = next(_frames(path, container), None)
        if frame is None:
            raise _nothing_decodes(path)
        layout = FrameLayout.of(path, frame, None)
    return VideoInfo(
        num_frames=num_frames,
        frames_per_second=frames_per_second,
        height=layout.width if layout.turns % 2 else layout.height,
        width=layout.height if layout.turns % 2 else layout.width,
        rotation=90 * layout.turns,
    )


def read_file(path: str | Path, choose: Choose, *, short_side: int | None = None) -> np.ndarray:
    """Chosen frames; see `vsn.data.video.decode.read_frames`."""
    announced, frames_per_second = count_packets(path)
    indices = chosen(choose, announced, frames_per_second)
    images, num_decoded = _decode(path, set(indices), short_side)
    if any(index not in images for index in indices):
        if num_decoded == 0:
            raise _nothing_decodes(path)
        indices = chosen(choose, num_decoded, frames_per_second)
        missing = set(indices) - images.keys()
        if missing:
            images |= _decode(path, missing, short_side)[0]
    with content_errors(path):
        return np.stack([images[index] for index in indices])


def read_whole_file(path: str | Path, *, short_side: int | None = None) -> tuple[np.ndarray, float]:
    """Every frame, and frames per second; see `vsn.data.video.decode.read_all_frames`."""
    images = list(iter_file(path, short_side=short_side))
    with content_errors(path):
        return np.stack(images), count_packets(path)[1]


def iter_file(path: str | Path, *, short_side: int | None = None) -> Iterator[np.ndarray]:
    """Every frame in turn; see `vsn.data.video.decode.iter_frames`."""
    layout: FrameLayout | None = None
    with content_errors(path), open_container(path) as container:
        for frame in _frames(path, container):
            layout = layout or FrameLayout.of(path, frame, short_side)
            yield layout.rgb(frame)
    if layout is None:
        raise _nothing_decodes(path)


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    *,
    frames_per_second: float,
    crf: int = 23,
    keyframe_every: int = 12,
) -> None:
    """Write frames, uint8 `(H, W, 3)` RGB of one even size, as H.264 (yuv420p) in MP4.

    The file is written beside its place and renamed, so a file of that name is always whole. The
    same frames give the same bytes with the same FFmpeg. `crf`: 0 is best, 51 worst.
    """
    path = Path(path)
    waiting = iter(frames)
    first = next(waiting, None)
    if first is None:
        raise ValueError(f"{path}: a video needs at least one frame, and none came.")
    if not frames_per_second > 0:
        raise ValueError(f"{path}: frames_per_second is {frames_per_second}; it must be above 0.")
    height, width = _checked_size(path, first)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with av.open(f"file:{beside}", "w", format="mp4") as container:
            # cpu-independent: x264 with AVX-512 gives other bytes at each call for frames this small.
            options = {"crf": str(crf), "g": str(keyframe_every), "preset": "veryfast"}
            options["x264-params"] = "cpu-independent=1"
            rate = Fraction(frames_per_second).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1
            for image in _chain(first, waiting):
                if _checked_size(path, image) != (height, width):
                    raise ValueError(f"{path}: a frame of {image.shape} follows {first.shape}; keep to one.")
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


# --- what checkers and other decoders share -----------------------------------------------------------


def open_container(path: str | Path) -> InputContainer:
    """The file, opened for reading. Raises `VideoError` for what is no file, and PyAV's errors for content.

    No read of it waits longer than a minute, no decoder makes frames of more than `MAX_PIXELS`, and no
    other file is opened on its behalf.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise VideoError(path, "a folder, not a video file.")
        if not stat.S_ISREG(status.st_mode):
            raise VideoError(path, "not a regular file (a pipe, socket or device).")
        with open(path, "rb"):
            pass
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(path, "no such file.") from None
    except OSError as error:
        raise VideoError(path, f"cannot be opened ({error.strerror}).") from None
    if status.st_size == 0:
        raise VideoError(path, "the file is empty.")
    # "file:" keeps a colon in a name from being taken for a protocol.
    return open_source(f"file:{path}", options=_OPTIONS, timeout=_STALL_SECONDS)


def open_source(source: str, *, options: dict[str, str], timeout: float) -> InputContainer:
    """`av.open` for reading. Tags in an unknown encoding are no reason to refuse the pictures."""
    if _REFUSES_TAGS:
        return av.open(source, options=options, metadata_errors="ignore", timeout=timeout)  # type: ignore[call-overload,no-any-return,unused-ignore]
    return av.open(source, options=options, timeout=timeout)


def video_stream(path: str | Path, container: InputContainer) -> VideoStream:
    """The first video stream that is not a cover picture, ready to decode. Raises `VideoError`."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover picture of a sound file
            if stream.codec_context is None:
                raise VideoError(path, "no decoder for its video stream.")
            if not stream.codec_context.is_open:
                stream.codec_context.thread_count = 1
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            return stream
    raise VideoError(path, "it has no video stream.")


def iter_packets(path: str | Path, container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Packets that hold something; of a file cut short, those before the cut."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # decoders take an empty packet for the end of the stream
                yield packet
    except av.ExitError:
        raise VideoError(path, f"reading it stalled for {_STALL_SECONDS:.0f} seconds.") from None
    except av.FFmpegError:
        return


def count_packets(path: str | Path) -> tuple[int, float]:
    """Packets that lead to a shown frame, and frames per second (0.0 when unknown). Raises `VideoError`."""
    with content_errors(path), open_container(path) as container:
        stream = video_stream(path, container)
        rate = stream.average_rate or stream.guessed_rate
        count = sum(not packet.is_discard for packet in iter_packets(path, container, stream))
    if count == 0:
        raise VideoError(path, "its video stream is empty.")
    return count, float(rate) if rate else 0.0


@contextlib.contextmanager
def content_errors(path: str | Path) -> Iterator[None]:
    """Turn whatever bad content raises into a `VideoError` that names the file."""
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


@dataclass(frozen=True)
class FrameLayout:
    """Size to convert stored frames to, and the quarter turns (counterclockwise) that follow."""

    height: int
    width: int
    turns: int
    # One converter a video: a new one for each frame costs four times the conversion itself.
    converter: VideoReformatter

    @classmethod
    def of(cls, path: str | Path, first: VideoFrame, short_side: int | None) -> FrameLayout:
        """That of a video which begins with this frame. Raises `VideoError` for too many pixels."""
        # The shorter side stays the shorter side when turned.
        height, width = frame_size(path, first.height, first.width, short_side)
        return cls(height, width, round(first.rotation / 90) % 4, VideoReformatter())

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """A frame, whatever its own size, as uint8 `(H, W, 3)`, RGB, in this size and turned."""
        # By default a conversion starts a thread for every processor; one is faster for frames of our sizes.
        resized = self.converter.reformat(frame, self.width, self.height, "rgb24", interpolation="BILINEAR", threads=1)
        return np.rot90(resized.to_ndarray(), self.turns)


# --- decoding -----------------------------------------------------------------------------------------


def _decode(path: str | Path, wanted: Collection[int], short_side: int | None) -> tuple[dict[int, np.ndarray], int]:
    """Wanted frames by index, and how many were decoded until the last of them was found."""
    last = max(wanted)
    images: dict[int, np.ndarray] = {}
    layout: FrameLayout | None = None
    num_decoded = 0
    with content_errors(path), open_container(path) as container:
        for frame in _frames(path, container):
            layout = layout or FrameLayout.of(path, frame, short_side)
            if num_decoded in wanted:
                images[num_decoded] = layout.rgb(frame)
            num_decoded += 1
            if num_decoded > last:
                break
    return images, num_decoded


def _frames(path: str | Path, container: InputContainer) -> Iterator[VideoFrame]:
    """Frames in display order. Packets that do not decode are passed over, as players do."""
    stream = video_stream(path, container)
    for packet in iter_packets(path, container, stream):
        try:
            frames = stream.decode(packet)
        except UNDECODABLE:
            continue
        yield from frames
    with contextlib.suppress(*UNDECODABLE):
        yield from stream.decode(None)  # what the decoder still holds


def _nothing_decodes(path: str | Path) -> VideoError:
    reason = f"none of its {count_packets(path)[0]} frames decodes"
    with content_errors(path), open_container(path) as container:
        if not video_stream(path, container).codec_context.width:
            reason += f"; the header is damaged, or announces more than {MAX_PIXELS // 10**6} million pixels"
    return VideoError(path, f"{reason}.")


def _checked_size(path: Path, image: np.ndarray) -> tuple[int, int]:
    height, width, channels = image.shape if image.ndim == 3 else (0, 0, 0)
    if image.dtype != np.uint8 or channels != 3 or not height or not width or height % 2 or width % 2:
        raise ValueError(
            f"{path}: a frame of {image.dtype} {image.shape} came; "
            "frames to write are uint8 (H, W, 3) with H and W even."
        )
    return height, width


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest
