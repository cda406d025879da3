"""Test protocols: which clips of a video are looked at, and which crops of each.

A view is one (clip, crop). The names and what they mean are ours; the crops are those of the TSN, TSM and
Non-local code bases.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch

from vsn.config import ClipSpec, ConfigError, Modality, ModelConfig, Protocol, Sampling
from vsn.data.sampling import dense_clip_indices, sample_indices, segment_indices, two_clip_indices
from vsn.data.transforms import center_crop, flip, resize_short_side


class ViewPlan(NamedTuple):
    """What a protocol looks at."""

    clips: Literal["one", "two", "dense"]
    """one: as the recipe samples; two: centers and beginnings of the segments; dense: 10 starts."""
    crops: Literal["whole", "center", "three", "ten"]
    num_frames: int = 0
    """Frames of a clip, whatever the model's T; 0: the model's T."""

    @property
    def num_clips(self) -> int:
        """Clips of a video."""
        return {"one": 1, "two": 2, "dense": DENSE_CLIPS}[self.clips]

    @property
    def num_views(self) -> int:
        """Clips times crops."""
        return self.num_clips * {"whole": 1, "center": 1, "three": 3, "ten": 10}[self.crops]


DENSE_CLIPS = 10
PROTOCOLS: dict[Protocol, ViewPlan] = {
    "fcn": ViewPlan("one", "whole"),
    "center": ViewPlan("one", "center"),
    "3crop": ViewPlan("one", "three"),
    "3crop-2clip": ViewPlan("two", "three"),
    "10crop": ViewPlan("one", "ten"),
    "25x10": ViewPlan("one", "ten", num_frames=25),
    "dense-10clip-3crop": ViewPlan("dense", "three"),
}


def num_test_frames(model: ModelConfig, protocol: Protocol) -> int:
    """Return T of a test clip: that of the protocol if it fixes one, else that of the model.

    Raises:
        ConfigError: the protocol fixes another T than the model was trained with, and the model cannot change T.
    """
    fixed = PROTOCOLS[protocol].num_frames
    if fixed and fixed != model.num_frames and not model.any_num_frames:
        raise ConfigError(
            f"Protocol {protocol!r} takes T={fixed} frames, and this model was trained with T={model.num_frames}. "
            "It is for TSN; choose 10crop or 3crop-2clip."
        )
    return fixed or model.num_frames


def clip_indices(
    protocol: Protocol,
    sampling: Sampling,
    num_video_frames: int,
    num_frames: int,
    *,
    video_rate: float,
    wanted_rate: float,
    num_consecutive: int = 1,
) -> np.ndarray:
    """Indices of every clip of a protocol: int64 `(num_clips, num_frames)`, those of one clip in a row.

    With `num_consecutive` above 1 they are the first of as many frames in a row. "two" and "dense" say
    how they sample; the other protocols sample as the model was trained (`sampling`).
    """
    plan = PROTOCOLS[protocol]
    match plan.clips:
        case "two":
            return two_clip_indices(num_video_frames, num_frames, num_consecutive=num_consecutive)
        case "dense":
            return dense_clip_indices(num_video_frames, num_frames, DENSE_CLIPS)
    if plan.num_frames:
        return segment_indices(num_video_frames, num_frames, None, num_consecutive=num_consecutive)[None]
    return sample_indices(
        sampling,
        num_video_frames,
        num_frames,
        None,
        video_rate=video_rate,
        wanted_rate=wanted_rate,
        num_consecutive=num_consecutive,
    )[None]


def crop_views(frames: torch.Tensor, spec: ClipSpec, protocol: Protocol, modality: Modality = "rgb") -> torch.Tensor:
    """The crops of a protocol: uint8 `(T, C, H, W)` in, `(num_crops, T, C, h, w)` out.

    Frames are first resized so that their shorter side is `spec.short_side`.

    - whole: the frame as it is (spatially fully convolutional inference: the paper, section 3.4);
    - center: the central `crop_size` x `crop_size`;
    - three: `short_side` x `short_side` at the beginning, the end and the middle of the longer side;
    - ten: `crop_size` x `crop_size` at the corners and the center, and their mirror images, in which flow
      to the right is flow to the left.
    """
    frames = resize_short_side(frames, spec.short_side)
    match PROTOCOLS[protocol].crops:
        case "whole":
            return frames[None]
        case "center":
            return center_crop(frames, spec.crop_size)[None]
        case "three":
            return torch.stack(_along_longer_side(frames))
        case "ten":
            five = _corners_and_center(frames, spec.crop_size)
            return torch.stack([*five, *(flip(crop, modality) for crop in five)])


def _along_longer_side(frames: torch.Tensor) -> list[torch.Tensor]:
    height, width = frames.shape[-2:]
    side, step = min(height, width), (max(height, width) - min(height, width)) // 4
    axis = -1 if width >= height else -2
    return [frames.narrow(axis, start, side) for start in (0, 4 * step, 2 * step)]


def _corners_and_center(frames: torch.Tensor, size: int) -> list[torch.Tensor]:
    height, width = frames.shape[-2:]
    step_y, step_x = (height - size) // 4, (width - size) // 4
    places = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
    return [frames[..., y * step_y : y * step_y + size, x * step_x : x * step_x + size] for y, x in places]
