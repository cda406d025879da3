"""Write frames as an H.264 video file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from vsn.system.files import atomic_write


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], *, frames_per_second: float, crf: int = 23, keyframe_every: int = 12
) -> None:
    """Write frames, uint8 `(H, W, 3)` RGB of one even size, as H.264 (yuv420p) in MP4.

    The write is atomic, and the same frames give the same bytes with the same FFmpeg. `crf` is the
    constant rate factor: 0 is best, 51 worst. Raises `ValueError` for frames that cannot be written.
    """
    path = Path(path)
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError(f"{path}: expected at least one frame, got none.")
    if not frames_per_second > 0:
        raise ValueError(f"{path}: frames_per_second is {frames_per_second}; it must be above 0.")
    height, width = _checked_size(path, first)
    with atomic_write(path) as temporary, av.open(f"file:{temporary}", "w", format="mp4") as container:
        # cpu-independent: for frames this small, x264 with AVX-512 gives different bytes at each call.
        options = {"crf": str(crf), "g": str(keyframe_every), "preset": "veryfast"}
        options["x264-params"] = "cpu-independent=1"
        rate = Fraction(frames_per_second).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in itertools.chain([first], remaining):
            if _checked_size(path, image) != (height, width):
                raise ValueError(f"{path}: expected frames of one size, {first.shape}, got {image.shape}.")
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _checked_size(path: Path, image: np.ndarray) -> tuple[int, int]:
    # yuv420p stores color for blocks of 2x2 pixels.
    height, width, channels = image.shape if image.ndim == 3 else (0, 0, 0)
    if image.dtype != np.uint8 or channels != 3 or not height or not width or height % 2 or width % 2:
        raise ValueError(
            f"{path}: expected frames of uint8 (H, W, 3) with even H and W, got {image.dtype} {image.shape}."
        )
    return height, width
