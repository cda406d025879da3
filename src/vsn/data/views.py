"""Define test protocols: which clips of a video are sampled, and which crops of each.

A view is one (clip, crop). The names of the protocols are ours; the crops are those of the TSN, TSM and
Non-local code bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from vsn.config import ClipSpec, ConfigError, Modality, ModelConfig, Plane, Protocol, Recipe
from vsn.data.frames import Frames, center_crop, flip, resize_short_side
from vsn.data.sampling import dense_clip_indices, sample_indices, segment_indices, two_clip_indices
from vsn.data.video.reader import scaled_size

DENSE_CLIPS = 10
_NUM_CLIPS = {"one": 1, "two": 2, "dense": DENSE_CLIPS}
_NUM_CROPS = {"whole": 1, "center": 1, "three": 3, "ten": 10}


class ViewPlan(NamedTuple):
    """The views of a protocol."""

    clips: Literal["one", "two", "dense"]
    """one: as the recipe samples; two: centers and beginnings of the segments; dense: 10 starts."""
    crops: Literal["whole", "center", "three", "ten"]
    num_frames: int = 0
    """Frames of a clip; 0: the model's T."""
    windows: bool = False
    """Windows of the last feature map are scored, not its mean; see `window_share`."""

    @property
    def num_clips(self) -> int:
        """Number of clips of a video."""
        return _NUM_CLIPS[self.clips]

    @property
    def num_views(self) -> int:
        """Number of clips times number of crops."""
        return self.num_clips * _NUM_CROPS[self.crops]


# Published results name these protocols: never change what a name means.
PROTOCOLS: dict[Protocol, ViewPlan] = {
    "fcn": ViewPlan("one", "whole"),
    "fcn-windows": ViewPlan("one", "whole", windows=True),
    "center": ViewPlan("one", "center"),
    "3crop": ViewPlan("one", "three"),
    "3crop-2clip": ViewPlan("two", "three"),
    "10crop": ViewPlan("one", "ten"),
    "25x10": ViewPlan("one", "ten", num_frames=25),
    "dense-10clip-3crop": ViewPlan("dense", "three"),
}


def num_test_frames(model: ModelConfig, protocol: Protocol) -> int:
    """Return T of a test clip: that of the protocol if it fixes one, else that of the model.

    Raises `ConfigError` when the protocol fixes another T than the model was trained with, and the model cannot change T.
    """
    # Shift and shuffle mix channels of exactly T frames: only models that average over frames can take another T.
    fixed = PROTOCOLS[protocol].num_frames
    if fixed and fixed != model.num_frames and not model.any_num_frames:
        raise ConfigError(
            f"Protocol {protocol!r} takes T={fixed} frames, and this model was trained with T={model.num_frames}. "
            "It is for TSN and Attention Clusters; choose 10crop or 3crop-2clip."
        )
    return fixed or model.num_frames


def window_share(protocol: Protocol, clip: ClipSpec) -> float | None:
    """Return the side of the windows that a protocol scores, as a share of a frame's shorter side; None: no windows.

    They have the size of a training crop.

    >>> window_share("fcn-windows", ClipSpec())  # 7 of the 8 places of a frame's feature map
    0.875
    """
    return clip.crop_size / clip.short_side if PROTOCOLS[protocol].windows else None


def clip_indices(
    protocol: Protocol,
    clip: ClipSpec,
    num_video_frames: int,
    num_frames: int,
    *,
    video_rate: float,
    num_consecutive: int = 1,
) -> np.ndarray:
    """Return the indices of every clip of a protocol: int64 `(num_clips, num_frames)`; see `sample_indices`.

    "two" and "dense" fix how they sample; the other protocols sample as in training (`clip.sampling`).
    """
    plan = PROTOCOLS[protocol]
    match plan.clips:
        case "two":
            return two_clip_indices(num_video_frames, num_frames, num_consecutive=num_consecutive)
        case "dense":
            return dense_clip_indices(num_video_frames, num_frames, DENSE_CLIPS)
    # "25x10" of TSN: 25 segments, however the model was trained to sample.
    if plan.num_frames:
        return segment_indices(num_video_frames, num_frames, None, num_consecutive=num_consecutive)[None]
    indices = sample_indices(
        clip, num_video_frames, num_frames, None, video_rate=video_rate, num_consecutive=num_consecutive
    )
    return indices[None]


def num_view_pixels(recipe: Recipe, height: int, width: int) -> int:
    """Return the pixels that a network computes for a video of this size: of a resized frame, times frames and views.

    Crops are counted as whole frames, because whole frames are read.

    >>> num_view_pixels(Recipe(), 240, 320)  # 8 frames of 256x341
    698368
    """
    protocol, model = recipe.eval.protocol, recipe.model
    frame_height, frame_width = scaled_size(height, width, recipe.clip.short_side)
    num_frames = num_test_frames(model, protocol) * model.num_consecutive
    return frame_height * frame_width * num_frames * PROTOCOLS[protocol].num_views


def crop_views(
    frames: Frames,
    spec: ClipSpec,
    protocol: Protocol,
    modality: Modality = "rgb",
    *,
    extra: Sequence[Plane] = (),
) -> list[Frames]:
    """Resize the shorter side to `spec.short_side` and crop: uint8 `(T, C, H, W)` to `(T, C, h, w)` of each crop.

    Crops share memory with the frames where they can.

    - whole: the whole frame (spatially fully convolutional inference: the paper, section 3.4);
    - center: the central `crop_size` x `crop_size`;
    - three: `short_side` x `short_side` at the beginning, the end and the middle of the longer side;
    - ten: `crop_size` x `crop_size` at the corners and the center, and their flips, see `flip`.

    The last channels are the planes `extra`.
    """
    frames = resize_short_side(frames, spec.short_side, extra=extra)
    height, width = frames.shape[-2:]
    match PROTOCOLS[protocol].crops:
        case "whole":
            return [frames]
        case "center":
            return [center_crop(frames, spec.crop_size)]
        case "three":
            side = min(height, width)
            # Offsets in quarters, rounded down before they are multiplied, as TSN does. One of the two is zero.
            step_y, step_x = (height - side) // 4, (width - side) // 4
            return [frames[..., n * step_y : n * step_y + side, n * step_x : n * step_x + side] for n in (0, 4, 2)]
        case "ten":
            size = spec.crop_size
            step_y, step_x = (height - size) // 4, (width - size) // 4
            corners = [(y * step_y, x * step_x) for y, x in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))]
            five = [frames[..., top : top + size, left : left + size] for top, left in corners]
            return [*five, *(flip(crop, modality, extra=extra) for crop in five)]
