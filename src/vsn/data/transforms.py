"""Crops, resizing and flips of frames: uint8 `(T, C, H, W)` in, uint8 `(T, C, H, W)` out.

Whatever is drawn is drawn once for the whole clip, from the generator passed in. Fields of flow are
frames of two channels: they are cropped and resized as frames are, and resizing leaves their values
alone (as TSN does: they stay motions in pixels of the picture the flow was computed on).
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms.v2 import functional as tv

from vsn.config import ClipSpec, Modality
from vsn.data.decode import scaled_size

# Offsets in quarters of the room a crop has, (x, y): corners and centre first, then the rest of the
# grid of 13 (TSN's "more fix crop").
_POSITIONS = (
    (0, 0), (4, 0), (0, 4), (4, 4), (2, 2),
    (0, 2), (4, 2), (2, 4), (2, 0),
    (1, 1), (3, 1), (1, 3), (3, 3),
)  # fmt: skip
_SNAP_PIXELS = 3


def resize_short_side(frames: torch.Tensor, short_side: int) -> torch.Tensor:
    """Frames with their shorter side at `short_side` pixels (bilinear, antialiased).

    Frames that have that size already come back as they are.
    """
    height, width = frames.shape[-2:]
    return _resize(frames, *scaled_size(height, width, short_side))


def crop_sides(short_side: int, spec: ClipSpec) -> list[int]:
    """Sides, in pixels, that training crops of frames with this shorter side can have.

    A side less than 3 pixels from `crop_size` becomes `crop_size`, which saves a resize (TSN).

    >>> crop_sides(256, ClipSpec())
    [256, 224, 192, 168]
    """
    sides = [max(1, int(short_side * scale)) for scale in spec.crop_scales]
    near = spec.crop_size if spec.crop_size <= short_side else 0  # never snap to more than the frame has
    return [near if near and abs(side - near) < _SNAP_PIXELS else side for side in sides]


def multiscale_corner_crop(
    frames: torch.Tensor, spec: ClipSpec, generator: np.random.Generator
) -> torch.Tensor:
    """A random crop at a corner, the centre or between, resized to `(T, C, crop_size, crop_size)`.

    Width and height are drawn from `crop_sides`, at most one step of `crop_scales` apart; the
    position from 5 or 13 (`spec.crop_positions`). Source: TSN (Wang et al., 2016), section 3.2.
    """
    height, width = frames.shape[-2:]
    sides = crop_sides(min(height, width), spec)
    pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    crop_height, crop_width = pairs[generator.integers(len(pairs))]
    step_x, step_y = _POSITIONS[generator.integers(spec.crop_positions)]
    left = step_x * ((width - crop_width) // 4)
    top = step_y * ((height - crop_height) // 4)
    crop = frames[..., top : top + crop_height, left : left + crop_width]
    return _resize(crop, spec.crop_size, spec.crop_size)


def center_crop(frames: torch.Tensor, size: int) -> torch.Tensor:
    """The central `size` x `size` pixels, a view. Raises `ValueError` for smaller frames."""
    height, width = frames.shape[-2:]
    if min(height, width) < size:
        raise ValueError(
            f"frames of {height}x{width} pixels have no {size}x{size} crop; resize their shorter side first."
        )
    top, left = round((height - size) / 2), round((width - size) / 2)
    return frames[..., top : top + size, left : left + size]


def flip(frames: torch.Tensor, modality: Modality = "rgb") -> torch.Tensor:
    """Left and right exchanged, a copy: what is seen in a mirror.

    In a mirror motion to the right is motion to the left, so that of flow, whose channels are x1, y1,
    x2, y2, ..., the x channels are negated too: `255 - b` on stored bytes, which is exact for the
    motions they stand for. (The byte of no motion, 128, becomes 127: both are half a step from none.)
    """
    mirrored = frames.flip(-1)
    if modality == "flow":
        mirrored[..., ::2, :, :] = 255 - mirrored[..., ::2, :, :]
    return mirrored


def planar(frames: torch.Tensor) -> torch.Tensor:
    """The same frames, contiguous in memory: one plane after the other."""
    # Decoded pixels lie side by side as R, G, B; NumPy parts them in half the time `contiguous` takes.
    return torch.from_numpy(np.ascontiguousarray(frames.numpy()))


def stack_channels(frames: torch.Tensor, num_segments: int) -> torch.Tensor:
    """The frames or fields of each segment side by side: `(T * L, C, H, W)` to `(T, L * C, H, W)`.

    Fields, `C = 2`, give the channels x1, y1, x2, y2, ...; frames R1, G1, B1, R2, ...
    """
    return frames.unflatten(0, (num_segments, -1)).flatten(1, 2)


def _resize(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if tuple(frames.shape[-2:]) == (height, width):
        return frames
    resized: torch.Tensor = tv.resize(
        frames, [height, width], interpolation=tv.InterpolationMode.BILINEAR, antialias=True
    )
    return resized
