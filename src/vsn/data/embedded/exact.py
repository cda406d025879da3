"""Give what is known of the videos of the embedded data set without looking: boxes and motion of its objects.

They are drawn again from the description of the set, so that nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsn.data.embedded.scenes import scene_boxes, scene_motion
from vsn.data.embedded.write import described_scene
from vsn.data.flow.stored import FlowReader
from vsn.data.flow.values import flow_to_bytes


def embedded_boxes(root: Path, video: Path) -> list[NDArray[np.float64]]:
    """Return the boxes of the objects in each frame of a video, the target first.

    Left, top, right and bottom as shares of the frame, `(n, 4)`; some frames have none.

    Raises `ConfigError` for a video that is not of the set.
    """
    class_name, rng, spec, num_frames = described_scene(root, video)
    boxes = scene_boxes(class_name, rng, size=spec.size, num_frames=num_frames, difficulty=spec.difficulty)
    return [of_frame[np.isfinite(of_frame[:, 0])] / spec.size for of_frame in boxes.transpose(1, 0, 2)]


class EmbeddedFlow(FlowReader):
    """The motion between consecutive frames of a video, as bytes like those of stored flow.

    Args:
        root: Of the set.
        video: One of its videos.
        bound: Motion, pixels, that byte 255 stands for.
        backward: From each frame to the one before, not to the next.

    Raises:
        ConfigError: `root` is no set of this version, or has no such video.
    """

    def __init__(self, root: Path, video: Path, *, bound: float, backward: bool) -> None:
        class_name, rng, spec, num_frames = described_scene(root, video)
        motion = scene_motion(
            class_name, rng, size=spec.size, num_frames=num_frames, difficulty=spec.difficulty, backward=backward
        )
        self._fields = flow_to_bytes(motion, bound)
        super().__init__(video, num_frames=num_frames - 1, frames_per_second=0.0, short_side=None)

    def _read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        yield from self._fields[list(indices)]
