"""Augmentation beyond the paper's crops and flips, by torchvision: one draw for the whole clip."""

from __future__ import annotations

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from vsn.config import AugmentConfig


def augment_clip(
    frames: torch.Tensor, config: AugmentConfig, generator: np.random.Generator, *, blank: int = 0
) -> torch.Tensor:
    """Jitter colours, apply RandAugment, erase a rectangle: uint8 `(T, C, H, W)` in and out.

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
    """Mix each clip of a batch with its neighbour by mixup or CutMix; draws from torch's generator.

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
