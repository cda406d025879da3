"""Frames at indices, out of a video file: the only place that knows containers and codecs.

Frames are numpy arrays, uint8, `(n, H, W, 3)`, RGB. Rotation metadata is honoured; pixels are taken
as square, whatever the container says of their aspect. FFmpeg runs with one thread: loader
processes or threads give the parallelism.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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

# What PyAV and numpy raise for damaged or absurd content. FFmpegError is most of it; sizes read from
# a damaged header end in the others.
_CONTENT_ERRORS = (
    av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, MemoryError, RuntimeError,
)  # fmt: skip


class VideoError(ValueError):
    """A file no video frames can be read from. `str()` is one line, "path: reason".

    Attributes: `path` (str) and `reason` (str). It pickles, so it crosses process borders.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = str(path)
        self.reason = " ".join(reason.split())
        super().__init__(self.path, self.reason)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds, counted rather than believed."""

    num_frames: int
    """Packets of the video stream that are shown; in a damaged file fewer may decode."""
    frames_per_second: float
    """Average rate; 0.0 when the file does not say."""
    height: int
    """Pixels, after rotation."""
    width: int
    """Pixels, after rotation."""
    rotation: int
    """Degrees the stored frames are turned counterclockwise for display: 0, 90, 180 or 270."""


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side at `short_side` pixels, the longer rounded down.

    >>> scaled_size(240, 320, 256)
    (256, 341)
    """
    if height <= width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


def probe_video(path: str | Path) -> VideoInfo:
    """Count the frames of a video and read its rate, size and rotation.

    Every packet is counted, one frame is decoded. Raises `VideoError`.
    """
    num_frames = _count_packets(path)
    with _content_errors(path), _open(path) as container:
        stream = _video_stream(path, container)
        rate = stream.average_rate or stream.guessed_rate
        frame = next(_frames(container, stream), None)
        if frame is None:
            raise _nothing_decodes(path, num_frames)
        layout = _Layout.of(frame, None)
    return VideoInfo(
        num_frames=num_frames,
        frames_per_second=float(rate) if rate else 0.0,
        height=layout.width if layout.turns % 2 else layout.height,
        width=layout.height if layout.turns % 2 else layout.width,
        rotation=90 * layout.turns,
    )


def read_frames(
    path: str | Path, choose: Callable[[int], Sequence[int] | np.ndarray], *, short_side: int | None = None
) -> np.ndarray:
    """The frames whose indices `choose(num_frames)` returns: uint8 `(n, H, W, 3)`, RGB.

    Indices count decoded frames from 0; repeats and any order are allowed. `num_frames` is the
    number of packets in the file; when decoding ends before the last wanted frame, `choose` is asked
    again with the number of frames that do decode. Decoding starts at the first frame, so indices
    are exact in every container, and stops after the last wanted one.

    Frames take the size of the video's first frame, or that size with its shorter side at
    `short_side`. Raises `VideoError` for a file without a readable frame, and `ValueError` when
    `choose` returns nothing or an index outside the video.
    """
    announced = _count_packets(path)
    indices = _ask(choose, announced)
    images, num_decoded = _decode(path, set(indices), short_side)
    if any(index not in images for index in indices):
        if num_decoded == 0:
            raise _nothing_decodes(path, announced)
        indices = _ask(choose, num_decoded)
        missing = set(indices) - images.keys()
        if missing:
            images |= _decode(path, missing, short_side)[0]
    with _content_errors(path):
        return np.stack([images[index] for index in indices])


def read_all_frames(path: str | Path, *, short_side: int | None = None) -> np.ndarray:
    """Every frame that decodes: uint8 `(num_frames, H, W, 3)`, RGB; see `read_frames`."""
    images, num_decoded = _decode(path, None, short_side)
    if num_decoded == 0:
        raise _nothing_decodes(path, _count_packets(path))
    with _content_errors(path):
        return np.stack(list(images.values()))


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


@dataclass(frozen=True)
class _Layout:
    """Size to convert stored frames to, and the quarter turns (counterclockwise) that follow."""

    height: int
    width: int
    turns: int
    # One converter a video: a new one for each frame costs four times the conversion itself.
    converter: VideoReformatter

    @classmethod
    def of(cls, first: VideoFrame, short_side: int | None) -> _Layout:
        turns = round(first.rotation / 90) % 4
        height, width = first.height, first.width
        if short_side is not None:  # the shorter side stays the shorter side when turned
            height, width = scaled_size(height, width, short_side)
        return cls(height, width, turns, VideoReformatter())

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        resized = self.converter.reformat(frame, self.width, self.height, "rgb24", interpolation="BILINEAR")
        return np.rot90(resized.to_ndarray(), self.turns)


def _decode(
    path: str | Path, wanted: Collection[int] | None, short_side: int | None
) -> tuple[dict[int, np.ndarray], int]:
    """Wanted frames (None: all) by index, and how many were decoded until the last of them was found."""
    last = None if wanted is None else max(wanted)
    images: dict[int, np.ndarray] = {}
    layout: _Layout | None = None
    num_decoded = 0
    with _content_errors(path), _open(path) as container:
        for frame in _frames(container, _video_stream(path, container)):
            layout = layout or _Layout.of(frame, short_side)
            if wanted is None or num_decoded in wanted:
                images[num_decoded] = layout.rgb(frame)
            num_decoded += 1
            if last is not None and num_decoded > last:
                break
    return images, num_decoded


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames in display order. Packets that do not decode are passed over, as players do."""
    stream.codec_context.thread_count = 1
    for packet in _packets(container, stream):
        try:
            frames = stream.decode(packet)
        except av.FFmpegError:
            continue
        yield from frames
    with contextlib.suppress(av.FFmpegError):
        yield from stream.decode(None)  # what the decoder still holds


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Packets that hold something; of a file cut short, those before the cut."""
    with contextlib.suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if packet.size:  # decoders take an empty packet for the end of the stream
                yield packet


def _count_packets(path: str | Path) -> int:
    """Packets of the video stream that lead to a shown frame. Raises `VideoError` when there are none."""
    with _content_errors(path), _open(path) as container:
        count = sum(not packet.is_discard for packet in _packets(container, _video_stream(path, container)))
    if count == 0:
        raise VideoError(path, "its video stream is empty.")
    return count


def _open(path: str | Path) -> InputContainer:
    path = Path(path)
    if path.is_dir():
        raise VideoError(path, "a folder, not a video file.")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise VideoError(path, "no such file.") from None
    except OSError as error:
        raise VideoError(path, f"cannot be opened ({error.strerror}).") from None
    if empty:
        raise VideoError(path, "the file is empty.")
    # "file:" keeps a colon in a name from being taken for a protocol; the whitelist keeps a playlist
    # in disguise off the network. Tags in an unknown encoding are no reason to refuse the pictures.
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="ignore")


def _video_stream(path: str | Path, container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover picture of a sound file
            if stream.codec_context is None:
                raise VideoError(path, "no decoder for its video stream.")
            return stream
    raise VideoError(path, "it has no video stream.")


@contextlib.contextmanager
def _content_errors(path: str | Path) -> Iterator[None]:
    """Turn whatever bad content raises into a `VideoError` that names the file."""
    try:
        yield
    except VideoError:
        raise
    except av.FFmpegError as error:
        raise VideoError(path, f"not a video that FFmpeg can read ({error.strerror}).") from error
    except _CONTENT_ERRORS as error:
        raise VideoError(path, f"cannot be decoded ({type(error).__name__}: {error}).") from error


def _nothing_decodes(path: str | Path, num_packets: int) -> VideoError:
    return VideoError(path, f"none of its {num_packets} frames decodes.")


def _ask(choose: Callable[[int], Sequence[int] | np.ndarray], num_frames: int) -> list[int]:
    indices = [int(index) for index in choose(num_frames)]
    if not indices or min(indices) < 0 or max(indices) >= num_frames:
        raise ValueError(f"frames {indices} were asked of a video whose frames are 0 to {num_frames - 1}.")
    return indices


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
