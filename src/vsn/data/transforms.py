"""Crops, resizing and flips of frames: uint8 `(T, C, H, W)` in, uint8 `(T, C, H, W)` out.

Whatever is drawn is drawn once for the whole clip, from the generator passed in. Fields of flow are
frames of two channels: they are cropped and resized as frames are, and resizing leaves their values
alone (as TSN does: they stay motions in pixels of the picture the flow was computed on).
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from vsn.config import AugmentConfig, ClipSpec, Modality
from vsn.data.video.reader import scaled_size

# Offsets in quarters of the room a crop has, (x, y): corners and center first, then the rest of the
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


def multiscale_corner_crop(frames: torch.Tensor, spec: ClipSpec, generator: np.random.Generator) -> torch.Tensor:
    """A random crop at a corner, the center or between, resized to `(T, C, crop_size, crop_size)`.

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


def contiguous_planes(frames: torch.Tensor) -> torch.Tensor:
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


def augment_clip(
    frames: torch.Tensor, config: AugmentConfig, generator: np.random.Generator, *, blank: int = 0
) -> torch.Tensor:
    """Jitter colors, apply RandAugment, erase a rectangle: uint8 `(T, C, H, W)` in and out.

    What is erased takes the value `blank`: 0 is black; flow takes 128, no motion. What is drawn depends on
    the generator alone and is the same for every frame; torch's own generator is left as it was. With
    everything off the frames come back as they are.
    """
    steps: list[v2.Transform] = []
    if config.color_jitter:
        share = config.color_jitter
        steps.append(v2.ColorJitter(share, share, share, share / 4))
    if config.rand_augment:
        steps.append(v2.RandAugment(config.rand_augment, config.rand_augment_magnitude))
    if config.random_erasing:
        steps.append(v2.RandomErasing(config.random_erasing, value=float(blank)))
    if not steps:
        return frames
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**63)))
        for step in steps:
            frames = step(frames)
    return frames


def mix_clips(
    clips: torch.Tensor, targets: torch.Tensor, num_classes: int, config: AugmentConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each clip of a batch with its neighbor by mixup or CutMix; draws from torch's generator.

    Args:
        clips: `(B, T, C, H, W)`, uint8 or float in [0, 1].
        targets: int64 `(B,)`, or float `(B, num_classes)`.
        num_classes: columns of the mixed targets.
        config: with both alphas above 0, one of the two is chosen, each as often.

    Returns:
        Float clips in [0, 1] of the same shape, float targets `(B, num_classes)`; with both off, what came.
    """
    mixers: list[v2.Transform] = []
    if config.mixup:
        mixers.append(v2.MixUp(alpha=float(config.mixup), num_classes=num_classes))
    if config.cutmix:
        mixers.append(v2.CutMix(alpha=float(config.cutmix), num_classes=num_classes))
    if not mixers:
        return clips, targets
    mixer = mixers[int(torch.randint(len(mixers), (1,)))]
    video = tv_tensors.Video(clips.float() / 255 if clips.dtype == torch.uint8 else clips)
    mixed, mixed_targets = mixer(video, targets)
    return mixed.as_subclass(torch.Tensor), mixed_targets
