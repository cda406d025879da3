"""What all readers of frames share: the error, what is known of a video, its size, which frames to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Choose = Callable[[int, float], Sequence[int] | np.ndarray]
"""`choose(num_frames, frames_per_second)` returns frame indices; the rate is 0.0 when unknown."""

MAX_PIXELS = 36_000_000
"""Pixels a frame may have, stored or resized: 8192x4320 fits. Headers that announce more are taken for
damaged, for a few bytes could ask for all memory."""


class VideoError(ValueError):
    """A video no frames can be read from. `str()` is one line, "path: reason".

    Attributes: `path` (str) and `reason` (str). It pickles, so it crosses process borders.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = str(path)
        self.reason = " ".join(reason.split())
        super().__init__(self.path, self.reason)

    def __str__(self) -> str:
        path = self.path if self.path.isprintable() else ascii(self.path)
        return f"{path}: {self.reason}"


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, counted rather than believed."""

    num_frames: int
    """Packets of the video stream that are shown (in a damaged file fewer may decode), or frame files."""
    frames_per_second: float
    """Average rate; 0.0 when unknown."""
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


def frame_size(path: str | Path, height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """(height, width) to give stored frames of that size: theirs, or `scaled_size` of it.

    Raises `VideoError` when the stored or the resized frame has more than `MAX_PIXELS`.
    """
    limit = f"the limit is {MAX_PIXELS // 10**6} million"
    if height * width > MAX_PIXELS:
        raise VideoError(path, f"its frames have {height}x{width} pixels; {limit}.")
    if short_side is None:
        return height, width
    size = scaled_size(height, width, short_side)
    if size[0] * size[1] > MAX_PIXELS:
        raise VideoError(
            path,
            f"its frames of {height}x{width} pixels would have {size[0]}x{size[1]} with the shorter side "
            f"at {short_side}; {limit}.",
        )
    return size


def chosen(choose: Choose, num_frames: int, frames_per_second: float) -> list[int]:
    """What `choose` returns. Raises `ValueError` when that is nothing or an index outside the video."""
    indices = [int(index) for index in choose(num_frames, frames_per_second)]
    if not indices or min(indices) < 0 or max(indices) >= num_frames:
        raise ValueError(f"frames {indices} were asked of a video whose frames are 0 to {num_frames - 1}.")
    return indices


def resize_rgb(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture, uint8 `(H, W, 3)`, at another size (bilinear, antialiased)."""
    import torch  # a quarter of the time Pillow takes

    stored = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(stored, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
