"""Long videos, window by window: where the windows lie, and the clip of each. One pass over the file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vsn.config import Recipe
from vsn.data.decode import read_frames
from vsn.data.sampling import stack_indices
from vsn.data.transforms import planar, stack_channels
from vsn.data.views import clip_indices, crop_views, frames_of


@dataclass(frozen=True)
class Window:
    """A stretch of a video, in frames from 0 and in seconds; the end is the first frame after it."""

    start: int
    end: int
    start_seconds: float
    end_seconds: float


def plan_windows(
    num_frames: int, frames_per_second: float, *, window_seconds: float, max_windows: int
) -> tuple[Window, ...]:
    """Windows of equal length, within a frame, that cover a video without overlap.

    As many as are closest to `window_seconds`, 1 to `max_windows`, and no more than there are frames.

    >>> [(w.start, w.end) for w in plan_windows(100, 10.0, window_seconds=4.0, max_windows=8)]
    [(0, 50), (50, 100)]
    """
    count = round(num_frames / frames_per_second / window_seconds)
    count = max(1, min(count, max_windows, num_frames))
    edges = [round(i * num_frames / count) for i in range(count + 1)]
    return tuple(
        Window(start, end, start / frames_per_second, end / frames_per_second)
        for start, end in itertools.pairwise(edges)
    )


def window_clips(path: Path, recipe: Recipe, windows: Sequence[Window]) -> list[torch.Tensor]:
    """What the model looks at of each window: uint8 `(T, C, H, W)`, or `(views, T, C, H, W)`.

    A window is sampled and cropped as if it were a video of its own. For models on frames or on
    differences of frames. Raises `VideoError`.
    """
    model, view = recipe.model, recipe.eval
    num_frames = frames_of(view.protocol, model.num_frames, any_num_frames=model.any_num_frames)
    per_segment = model.flow_length + 1 if model.modality == "rgbdiff" else 1
    counts: list[int] = []

    def choose(num_video_frames: int, video_rate: float) -> np.ndarray:
        counts.clear()
        chosen = []
        for window in windows:
            # Fewer frames may decode than the file announces: the last ones then stand for the missing.
            start = min(window.start, num_video_frames - 1)
            length = max(1, min(window.end, num_video_frames) - start)
            starts = clip_indices(
                view.protocol,
                recipe.clip.sampling,
                length,
                num_frames,
                video_rate=video_rate,
                wanted_rate=recipe.clip.frames_per_second,
                num_consecutive=per_segment,
            )
            flat = start + stack_indices(starts, length, per_segment).ravel()
            counts.append(len(flat))
            chosen.append(flat)
        return np.concatenate(chosen)

    images = read_frames(path, choose, short_side=recipe.clip.short_side, decoder=recipe.data.decoder)
    frames = torch.from_numpy(images).permute(0, 3, 1, 2)
    return [_views(part, recipe, num_frames, per_segment) for part in frames.split(counts)]


def _views(frames: torch.Tensor, recipe: Recipe, num_frames: int, per_segment: int) -> torch.Tensor:
    """The views of one window's frames `(clips * T * per_segment, 3, H, W)`."""
    clips = frames.unflatten(0, (-1, num_frames * per_segment))
    crops = [crop for clip in clips for crop in crop_views(clip, recipe.clip, recipe.eval.protocol)]
    views = [stack_channels(crop, num_frames) for crop in crops]
    return planar(torch.stack(views) if len(views) > 1 else views[0])
