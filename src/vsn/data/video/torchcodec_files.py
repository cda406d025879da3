"""Frames of video files through TorchCodec, an extra, on the CPU or on an NVIDIA GPU.

TorchCodec seeks to the frames wanted, where PyAV decodes all before them: a gain for long videos with
frequent key frames. PyAV looks through the packets first. What TorchCodec would number otherwise (a
container other than MP4, MOV, MKV and WebM, a start without key frame, missing or repeated time
stamps, packets it cannot decode), PyAV reads.
Frames are the same by index, and differ by a few gray levels at most. Where they may not be the same:
behind a damaged packet that PyAV passes over and TorchCodec never meets, because it seeks past it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from vsn.config import ConfigError, Decoder
from vsn.data.video import video_files
from vsn.data.video.frames import Choose, VideoError, chosen, frame_size

if TYPE_CHECKING:
    import torch

_FORMATS = ("mov", "matroska")
"""Containers whose key frame marks hold; AVI files in use mark frames as key frames that are none."""
_PIECE = 32
"""Frames decoded at a time when all are wanted in turn."""


def device_of(decoder: Decoder) -> str:
    """The device that "torchcodec" or "torchcodec-cuda" decodes on. Raises `ConfigError` without it."""
    _load()
    if decoder == "torchcodec":
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            'data.decoder is "torchcodec-cuda" and there is no CUDA device; set it to "torchcodec" or "pyav".'
        )
    return "cuda"


@functools.cache
def _load() -> None:
    """See whether TorchCodec works here; it looks for FFmpeg's libraries when they are first needed."""
    try:
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        raise ConfigError(
            'data.decoder asks for TorchCodec, which is not installed. Install it with pip install "vsn[torchcodec]", or '
            'set data.decoder = "pyav".'
        ) from error
    except (ImportError, RuntimeError, OSError) as error:
        raise _without_libraries(error) from error
    try:
        VideoDecoder(b"no video")
    except Exception as error:  # of what is no video, whatever it likes
        if "libtorchcodec" in str(error):
            raise _without_libraries(error) from error


def read_file(path: str | Path, choose: Choose, *, short_side: int | None, device: str) -> np.ndarray:
    """Chosen frames; see `vsn.data.video.decode.read_frames`."""
    facts = _Facts.of(path)
    indices = chosen(choose, facts.num_frames, facts.frames_per_second)
    frames = None
    if facts.steady:
        frames = _read(_open(path, facts, device), facts, indices, frame_size(path, *facts.size, short_side))
    if frames is not None:
        return frames

    def choose_once(num_frames: int, frames_per_second: float) -> Sequence[int] | np.ndarray:
        return indices if num_frames == facts.num_frames else choose(num_frames, frames_per_second)

    return video_files.read_file(path, choose_once, short_side=short_side)


def iter_file(path: str | Path, *, short_side: int | None, device: str) -> Iterator[np.ndarray]:
    """Every frame in turn; see `vsn.data.video.decode.iter_frames`."""
    facts = _Facts.of(path)
    start = 0
    if facts.steady:
        size, decoder = frame_size(path, *facts.size, short_side), _open(path, facts, device)
        while start < facts.num_frames:
            piece = range(start, min(start + _PIECE, facts.num_frames))
            frames = _read(decoder, facts, piece, size)
            if frames is None:
                break
            yield from frames
            start = piece.stop
    if start < facts.num_frames:
        yield from itertools.islice(video_files.iter_file(path, short_side=short_side), start, None)


@dataclass(frozen=True)
class _Facts:
    """What PyAV finds by reading all packets and decoding one frame."""

    stream: int | None
    """Index of the video stream among all streams; None when there is no other video to confuse it with."""
    num_frames: int
    frames_per_second: float
    seconds: tuple[float, ...]
    """When each frame is shown."""
    steady: bool
    """Whether TorchCodec can tell the frames: key frames are marked, the first is one, no two are shown
    at the same time."""
    size: tuple[int, int]
    """(height, width) of the first frame, turned."""
    rotation: int

    @classmethod
    def of(cls, path: str | Path) -> _Facts:
        first = None
        times: list[int | None] = []
        keys: list[bool] = []
        with video_files.content_errors(path), video_files.open_container(path) as container:
            stream = video_files.video_stream(path, container)
            for packet in video_files.iter_packets(path, container, stream):
                first = first or _first_frame(stream, packet)
                if not packet.is_discard:
                    times.append(packet.pts)
                    keys.append(packet.is_keyframe)
            first = first or _first_frame(stream, None)
            rate, unit = stream.average_rate or stream.guessed_rate, stream.time_base
            marked = container.format.name.startswith(_FORMATS)
            index = stream.index if len(container.streams.video) > 1 else None
        if not times:
            raise VideoError(path, "its video stream is empty.")
        if first is None:
            raise VideoError(path, f"none of its {len(times)} frames decodes.")
        stamps = sorted({time for time in times if time is not None})
        steady = marked and keys[0] and unit is not None and len(stamps) == len(times)
        height, width = first.height, first.width
        rotation = 90 * (round(first.rotation / 90) % 4)
        return cls(
            stream=index,
            num_frames=len(times),
            frames_per_second=float(rate) if rate else 0.0,
            seconds=tuple(float(stamp * unit) for stamp in stamps) if unit is not None else (),
            steady=steady,
            size=(width, height) if rotation in (90, 270) else (height, width),
            rotation=rotation,
        )


def _first_frame(stream: av.VideoStream, packet: av.Packet | None) -> av.VideoFrame | None:
    try:
        return next(iter(stream.decode(packet)), None)
    except video_files.UNDECODABLE:
        return None


def _open(path: str | Path, facts: _Facts, device: str) -> Any:
    """A `VideoDecoder`; None when TorchCodec cannot read the file, or counts or turns its frames otherwise."""
    from torchcodec.decoders import VideoDecoder

    try:
        decoder = VideoDecoder(
            f"file:{path}",
            stream_index=facts.stream,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            device=device,
            seek_mode="exact",
        )
    except (RuntimeError, ValueError, LookupError, AssertionError) as error:
        if "libtorchcodec" in str(error):
            raise _without_libraries(error) from error
        return None
    if len(decoder) != facts.num_frames or round(decoder.metadata.rotation or 0) % 360 != facts.rotation:
        return None
    return decoder


def _read(decoder: Any, facts: _Facts, indices: Sequence[int], size: tuple[int, int]) -> np.ndarray | None:
    """These frames, uint8 `(n, H, W, 3)`; None when TorchCodec has not got them."""
    if decoder is None:
        return None
    import torch

    wanted = sorted(set(indices))
    try:
        batch = decoder.get_frames_at(wanted)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, LookupError):
        return None
    expected = torch.tensor([facts.seconds[index] for index in wanted], dtype=torch.float64)
    if not torch.allclose(batch.pts_seconds.cpu().double(), expected, rtol=0, atol=1e-4):
        return None
    frames = _resized(batch.data, size).cpu().numpy()
    if len(wanted) == len(indices) and list(indices) == wanted:
        return frames
    places = {index: place for place, index in enumerate(wanted)}
    return frames[[places[index] for index in indices]]


def _resized(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(frames.shape[1:3]) == size:
        return frames
    import torch

    channels_first = frames.permute(0, 3, 1, 2)
    if frames.is_cuda:  # no kernel for bytes there
        channels_first = channels_first.float()
    resized = torch.nn.functional.interpolate(channels_first, size, mode="bilinear", antialias=True)
    if frames.is_cuda:
        resized = resized.round_().clamp_(0, 255).byte()
    return resized.permute(0, 2, 3, 1).contiguous()


def _without_libraries(error: BaseException) -> ConfigError:
    said = next(iter(str(error).strip().splitlines()), type(error).__name__).removesuffix(" Likely causes:").rstrip(".")
    return ConfigError(
        f"data.decoder asks for TorchCodec, which is installed and does not load ({said}). It wants the shared libraries of "
        "FFmpeg (libavcodec and others): install FFmpeg with the system's packages, such as apt install ffmpeg; those in "
        'PyAV are not found. Or set data.decoder = "pyav".'
    )
