"""Crop and augment the frames of training clips at random: uint8 `(T, C, H, W)` in, uint8 `(T, C, H, W)` out.

Random parameters are drawn once for the whole clip, from the generator passed in. What test clips need is in
`vsn.data.frames`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from vsn.config import AugmentConfig, ClipSpec, Plane
from vsn.data.frames import scale_paths

# Offsets (x, y) in quarters of the space around a crop: the corners and the center, then the rest of
# the 13 positions (TSN's "more fix crop").
_POSITIONS = (
    (0, 0), (4, 0), (0, 4), (4, 4), (2, 2),
    (0, 2), (4, 2), (2, 4), (2, 0),
    (1, 1), (3, 1), (1, 3), (3, 3),
)  # fmt: skip
_SNAP_PIXELS = 3


def crop_sides(short_side: int, spec: ClipSpec) -> list[int]:
    """Return the sides, in pixels, of training crops of frames with this shorter side.

    A side less than 3 pixels from `crop_size` becomes `crop_size`, which saves a resize (TSN).

    >>> crop_sides(256, ClipSpec())
    [256, 224, 192, 168]
    """
    sides = [max(1, int(short_side * scale)) for scale in spec.crop_scales]
    if spec.crop_size > short_side:  # never snap to more pixels than the frame has
        return sides
    return [spec.crop_size if abs(side - spec.crop_size) < _SNAP_PIXELS else side for side in sides]


def multiscale_corner_crop(
    frames: torch.Tensor, spec: ClipSpec, generator: np.random.Generator, *, extra: Sequence[Plane] = ()
) -> torch.Tensor:
    """Cut a random crop at one of 5 or 13 positions and resize it to `(T, C, crop_size, crop_size)`.

    Source: TSN (Wang et al., 2016), section 3.2.
    """
    height, width = frames.shape[-2:]
    sides = crop_sides(min(height, width), spec)
    # Height and width at most one scale apart: aspect ratios stay near 1.
    pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    crop_height, crop_width = pairs[generator.integers(len(pairs))]
    step_x, step_y = _POSITIONS[generator.integers(spec.crop_positions)]
    # Rounded down before it is multiplied, as TSN does: position 4 may end up to 3 pixels before the border.
    left = step_x * ((width - crop_width) // 4)
    top = step_y * ((height - crop_height) // 4)
    crop = frames[..., top : top + crop_height, left : left + crop_width]
    resized = _resize(crop, spec.crop_size, spec.crop_size)
    if extra:
        scale_paths(resized.numpy(), (crop_height, crop_width), extra)  # in place, in the same memory
    return resized


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

    Every frame gets the same parameters, drawn from `generator` only. Erased pixels take the value `blank`:
    0 is black; 128 is no motion of flow.
    """
    steps: list[v2.Transform] = []
    if config.color_jitter:
        strength = config.color_jitter
        steps.append(v2.ColorJitter(strength, strength, strength, strength / 4))
    if config.rand_augment:
        steps.append(v2.RandAugment(config.rand_augment, config.rand_augment_magnitude))
    if config.random_erasing:
        steps.append(v2.RandomErasing(config.random_erasing, value=float(blank)))
    if not steps:
        return frames
    # torchvision draws from torch's global generator: seed it, and restore it for dropout and the rest.
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
        config: with both alphas above 0, one of the two is chosen with equal probability.

    Returns:
        Float clips in [0, 1] of the same shape, float targets `(B, num_classes)`; the inputs with both off.
    """
    mixers: list[v2.Transform] = []
    if config.mixup:
        mixers.append(v2.MixUp(alpha=float(config.mixup), num_classes=num_classes))
    if config.cutmix:
        mixers.append(v2.CutMix(alpha=float(config.cutmix), num_classes=num_classes))
    if not mixers:
        return clips, targets
    mixer = mixers[int(torch.randint(len(mixers), (1,)))]
    # torchvision mixes pixels of its own tensor types only.
    video = tv_tensors.Video(clips.float() / 255 if clips.dtype == torch.uint8 else clips)
    mixed, mixed_targets = mixer(video, targets)
    return mixed.as_subclass(torch.Tensor), mixed_targets
