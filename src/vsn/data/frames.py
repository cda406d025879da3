"""Resize, crop, flip and stack frames as arrays: uint8 `(T, C, H, W)` in, uint8 `(T, C, H, W)` out. No torch.

Fields of optical flow are frames of two channels; resizing keeps their values (as TSN does: motions stay in pixels of the
frames that the flow was computed from). The last channels may be planes of an extra input (`vsn.config.EXTRA_PLANES`): the
motions of paths are in pixels of the frame that they are in, and change with its size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vsn.config import ZERO_PATH, Modality, Plane
from vsn.data.video.reader import scaled_size
from vsn.data.video.resize import resize_rgb

Frames = NDArray[np.uint8]


def resize_short_side(frames: Frames, short_side: int, *, extra: Sequence[Plane] = ()) -> Frames:
    """Resize frames so that the shorter side has `short_side` pixels (bilinear, antialiased)."""
    height, width = frames.shape[-2:]
    size = scaled_size(height, width, short_side)
    if (height, width) == size:
        return frames
    # Contiguous pixels, as a decoder writes them, so that each is resized with its channels.
    images = np.ascontiguousarray(frames.transpose(0, 2, 3, 1))
    resized = np.stack([resize_rgb(image, *size) for image in images]).transpose(0, 3, 1, 2)
    scale_paths(resized, (height, width), extra)
    return resized


def center_crop(frames: Frames, size: int) -> Frames:
    """Return the central `size` x `size` pixels, a view. Raises `ValueError` for smaller frames."""
    height, width = frames.shape[-2:]
    if min(height, width) < size:
        raise ValueError(
            f"Cannot crop {size}x{size} from frames of {height}x{width} pixels; resize their shorter side first."
        )
    top, left = round((height - size) / 2), round((width - size) / 2)
    return frames[..., top : top + size, left : left + size]


def flip(frames: Frames, modality: Modality = "rgb", *, extra: Sequence[Plane] = ()) -> Frames:
    """Flip frames horizontally (a copy), and negate the x channels of flow, x1, y1, x2, y2, ..., and of paths."""
    flipped = np.flip(frames, -1).copy(order="K")
    if modality == "flow":
        # Motion to the right becomes motion to the left: 255 - b is exact for the motion a byte stands for.
        # (No motion, 128, becomes 127: both are half a step from zero.)
        flipped[..., ::2, :, :] = 255 - flipped[..., ::2, :, :]
    for channel, plane in enumerate(extra, frames.shape[-3] - len(extra)):
        if plane == "path-x":
            flipped[..., channel, :, :] = _scaled_path(flipped[..., channel, :, :], -1.0)
    return flipped


def scale_paths(frames: Frames, old_size: tuple[int, int], extra: Sequence[Plane]) -> None:
    """Express the motions of paths, which are in pixels of frames of the old (height, width), in those of these frames."""
    (height, width), (old_height, old_width) = frames.shape[-2:], old_size
    factors = {"path-x": width / old_width, "path-y": height / old_height}
    for channel, plane in enumerate(extra, frames.shape[-3] - len(extra)):
        if plane in factors:  # a box has its place in the frame, and no values that change
            frames[..., channel, :, :] = _scaled_path(frames[..., channel, :, :], factors[plane])


def _scaled_path(stored: Frames, factor: float) -> Frames:
    """Multiply motions that are stored as bytes; no motion stays exactly that."""
    moved = (stored.astype(np.float32) - ZERO_PATH) * np.float32(factor) + ZERO_PATH
    return np.clip(np.round(moved), 0, 255).astype(np.uint8)


def stack_channels(frames: Frames, num_segments: int) -> Frames:
    """Stack the L frames of each segment as channels: `(T * L, C, H, W)` to `(T, L * C, H, W)`.

    Fields of flow give the channels x1, y1, x2, y2, ...; frames R1, G1, B1, R2, ...
    """
    return frames.reshape(num_segments, -1, *frames.shape[2:])
