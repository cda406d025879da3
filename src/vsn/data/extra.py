"""Open what the clips of some models carry besides the frames: planes of the frames' size, as channels after the colors.

Frames are cropped, resized and flipped together with their planes, so that these stay those of their pixels.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vsn.config import Recipe
from vsn.data.boxes.planes import stored_boxes
from vsn.data.part import VideoPart
from vsn.data.paths import stored_paths
from vsn.data.records import RecordSet


class ExtraPlanes(Protocol):
    """What makes the planes that clips carry besides the frames (`vsn.config.EXTRA_PLANES`)."""

    def planes(
        self, shown: VideoPart, indices: np.ndarray, *, num_video_frames: int, size: tuple[int, int]
    ) -> np.ndarray:
        """Return the planes of clips: uint8 `(num_clips, T, H, W, num_planes)`.

        Args:
            shown: The video, or its part.
            indices: Of the frames of each clip in the order they are shown, int64 `(num_clips, T)`.
            num_video_frames: Frames of the video.
            size: H and W of the frames.

        Raises:
            VideoError: There is none for this video, or it does not fit its frames.
        """
        ...

    def keep(self, shown: VideoPart) -> int:
        """Keep what belongs to a video in memory; return how many bytes that takes. Raises `VideoError`."""
        ...


def open_extra(recipe: Recipe, records: RecordSet) -> tuple[ExtraPlanes | None, str]:
    """Return what makes the extra input of the model's clips, and a note for the user; None, "" for a model without.

    Raises:
        ConfigError: It is not stored for all of these videos, or not as the model needs it.
    """
    match recipe.model.extra_input:
        case "paths":
            return stored_paths(recipe, records)
        case "boxes":
            return stored_boxes(recipe, records)
    return None, ""
