"""Read video files through TorchCodec, an extra, on the CPU or on an NVIDIA GPU.

TorchCodec seeks to the frames wanted, while PyAV decodes all frames before them: faster for long videos
with frequent key frames. PyAV first indexes the packets, and reads the files whose frames TorchCodec
would number differently: containers other than MP4, MOV, MKV and WebM, a first packet that is no key
frame, missing or repeated time stamps, packets that TorchCodec cannot decode.

Frames have the same index with both and differ by a few gray levels at most. Exception: a damaged packet
that PyAV skips shifts the numbers of later frames, and TorchCodec may seek past it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vsn.config import ConfigError, Decoder
from vsn.config.distribution import install_command
from vsn.data.video.packet_index import PacketIndex
from vsn.data.video.pyav_reader import PyAVReader
from vsn.data.video.reader import VideoMetadata, checked_indices, frame_size

if TYPE_CHECKING:
    import torch

_CHUNK = 32
"""Frames decoded at a time while iterating over a video."""


def device_of(decoder: Decoder) -> str:
    """Return the device that "torchcodec" or "torchcodec-cuda" decodes on. Raises `ConfigError` without it."""
    _check_installed()
    if decoder == "torchcodec":
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            'data.decoder is "torchcodec-cuda" and there is no CUDA device; set it to "torchcodec" or "pyav".'
        )
    return "cuda"


@functools.cache
def _check_installed() -> None:
    """Raise `ConfigError` when TorchCodec cannot decode here."""
    try:
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        raise ConfigError(
            "data.decoder asks for TorchCodec, which is not installed. Install it with "
            f'{install_command("torchcodec")}, or set data.decoder = "pyav".'
        ) from error
    except (ImportError, RuntimeError, OSError) as error:
        raise _load_error(error) from error
    # Some versions load FFmpeg's libraries only with the first decoder.
    try:
        VideoDecoder(b"no video")
    except Exception as error:  # the type depends on the version
        if "libtorchcodec" in str(error):
            raise _load_error(error) from error


class TorchCodecReader(PyAVReader):
    """Read a video file through TorchCodec; what TorchCodec cannot read exactly, PyAV reads."""

    def __init__(self, path: str | Path, *, short_side: int | None, device: str) -> None:
        super().__init__(path, short_side=short_side)
        # Where frames are told by time stamps, TorchCodec numbers them in the same way.
        index = self.index
        self._seconds = [float(stamp * index.time_base) for stamp in index.pts[index.positions].tolist()]
        self._decoder = None if index.obstacle else open_decoder(path, index, self.metadata, device=device)

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader.frames_at`."""
        indices = checked_indices(indices, self.num_frames)
        frames = self._read(indices)
        return super().frames_at(indices) if frames is None else frames

    def __iter__(self) -> Iterator[np.ndarray]:
        start = 0
        while self._decoder is not None and start < self.num_frames:
            chunk = range(start, min(start + _CHUNK, self.num_frames))
            frames = self._read(chunk)
            if frames is not None:  # else the loop ends, and PyAV continues at `start`
                yield from frames
                start = chunk.stop
        if start < self.num_frames:
            yield from itertools.islice(super().__iter__(), start, None)

    def _read(self, indices: Sequence[int]) -> np.ndarray | None:
        """Return these frames, uint8 `(n, H, W, 3)`; None, from then on, when TorchCodec does not find them all."""
        if self._decoder is None:
            return None
        import torch

        # Ascending and without repeats, TorchCodec seeks only forward.
        unique = sorted(set(indices))
        try:
            batch = self._decoder.get_frames_at(unique)
        except torch.OutOfMemoryError:  # a RuntimeError, but no fault of the file
            raise
        except (RuntimeError, ValueError, LookupError):
            self._decoder = None
            return None
        # A damaged packet shifts the numbers of the frames that follow: their time stamps show it.
        expected = torch.tensor([self._seconds[index] for index in unique], dtype=torch.float64)
        if not torch.allclose(batch.pts_seconds.cpu().double(), expected, rtol=0, atol=1e-4):
            self._decoder = None
            return None
        size = frame_size(self.path, self.metadata.height, self.metadata.width, self.short_side)
        frames = _resized(batch.data, size).cpu().numpy()
        if list(indices) == unique:
            return frames
        rows = {index: row for row, index in enumerate(unique)}
        return frames[[rows[index] for index in indices]]


def open_decoder(path: str | Path, index: PacketIndex, metadata: VideoMetadata, *, device: str) -> Any:
    """Open a `VideoDecoder`; None when TorchCodec cannot read the file, or counts or turns its frames differently."""
    from torchcodec.decoders import VideoDecoder

    # Exact seek mode reads all packets, as PyAV did; approximate mode guesses positions from the frame rate.
    try:
        decoder = VideoDecoder(
            f"file:{path}",
            stream_index=index.stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            device=device,
            seek_mode="exact",
        )
    except (RuntimeError, ValueError, LookupError, AssertionError) as error:
        if "libtorchcodec" in str(error):
            raise _load_error(error) from error
        return None
    # TorchCodec turns frames and does not mirror them; before 0.11 it did not turn them.
    has_same_pictures = (
        round(decoder.metadata.rotation or 0) % 360 == metadata.rotation
        and not metadata.mirrored
        and not metadata.tone_mapped  # TorchCodec reads the values of HDR as they are
    )
    return decoder if has_same_pictures and len(decoder) == index.num_frames else None


def _resized(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(frames.shape[1:3]) == size:
        return frames
    import torch

    channels_first = frames.permute(0, 3, 1, 2)
    if frames.is_cuda:  # CUDA has no antialiased kernel for uint8
        channels_first = channels_first.float()
    resized = torch.nn.functional.interpolate(channels_first, size, mode="bilinear", antialias=True)
    if frames.is_cuda:
        resized = resized.round_().clamp_(0, 255).byte()
    return resized.permute(0, 2, 3, 1).contiguous()


def _load_error(error: BaseException) -> ConfigError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    reason = reason.removesuffix(" Likely causes:").rstrip(".")
    return ConfigError(
        f"data.decoder asks for TorchCodec, which is installed but does not load ({reason}). It needs FFmpeg's shared "
        "libraries (libavcodec and others); it does not find those in PyAV. Install FFmpeg with the system's package "
        'manager, such as apt install ffmpeg, or set data.decoder = "pyav".'
    )
