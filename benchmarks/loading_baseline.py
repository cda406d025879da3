"""Load clips from folders of JPEG frames with PIL, as the 2019 code bases of TSN and TSM do.

PIL opens, converts, crops, resizes and flips every frame; frames are stacked along the channels and become a float tensor
in [0, 1] that is normalized on the CPU. Segments, multi-scale crops at 13 positions and flips are drawn as in those code
bases.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

SCALES = (1.0, 0.875, 0.75, 0.66)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrameFolders(Dataset[tuple[torch.Tensor, int]]):
    """Clips, float `(T * 3, size, size)`, and labels, of folders of `{:05d}.jpg` that start at 1."""

    def __init__(self, videos: Sequence[tuple[Path, int, int]], *, num_frames: int = 8, size: int = 224) -> None:
        self.videos = videos
        """Folder, number of frames, label: as in the list files of those code bases."""
        self.num_frames = num_frames
        self.size = size

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        folder, num_video_frames, label = self.videos[index]
        images = [
            Image.open(folder / f"{number:05d}.jpg").convert("RGB") for number in self._frame_numbers(num_video_frames)
        ]
        images = self._crop(images)
        if random.random() < 0.5:
            images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
        stacked = np.concatenate([np.array(image) for image in images], axis=2)
        clip = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255)
        for channel, mean, std in zip(clip, MEAN * self.num_frames, STD * self.num_frames, strict=True):
            channel.sub_(mean).div_(std)
        return clip, label

    def _frame_numbers(self, num_video_frames: int) -> np.ndarray:
        length = num_video_frames // self.num_frames
        starts = np.arange(self.num_frames) * length
        return starts + np.random.randint(length, size=self.num_frames) + 1

    def _crop(self, images: list[Image.Image]) -> list[Image.Image]:
        width, height = images[0].size
        sides = [int(min(width, height) * scale) for scale in SCALES]
        sides = [self.size if abs(side - self.size) < 3 else side for side in sides]
        pairs = [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
        crop_width, crop_height = random.choice(pairs)
        step_x, step_y = (width - crop_width) // 4, (height - crop_height) // 4
        corners, center = [(0, 0), (4, 0), (0, 4), (4, 4)], [(2, 2)]
        between = [(0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)]
        x, y = random.choice(corners + center + between)
        left, top = x * step_x, y * step_y
        box = (left, top, left + crop_width, top + crop_height)
        return [image.crop(box).resize((self.size, self.size), Image.Resampling.BILINEAR) for image in images]


def baseline_loader(
    videos: Sequence[tuple[Path, int, int]], *, num_frames: int, batch_size: int, num_workers: int
) -> DataLoader:
    """Return batches of float clips `(B, T * 3, 224, 224)` and labels, shuffled."""
    dataset = FrameFolders(videos, num_frames=num_frames)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers, drop_last=True)
