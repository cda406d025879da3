"""Follow points through the frames of a clip: the paths that the clips of TrajectoryNet carry, made from optical flow.

For each frame of a clip, how far every pixel moves to the next frame of the clip, and how far to the one before. Stored flow
has the motion between consecutive frames of the video, in a folder for each direction. Between frames further apart the
fields in between are chained: a point moves by the first field, then by the second at the place where it now is.

    frames of the video    0    1    2    3    4    5    6          clip: frames 0, 3, 6
    forward fields           0>   1>   2>   3>   4>   5>            from 3 to 6: fields 3, 4, 5
    backward fields          <0   <1   <2   <3   <4   <5            from 3 to 0: fields 2, 1, 0

A frame shown before an earlier one, as in a reversed clip, takes the fields of the other direction. Before the first and
after the last frame of a clip there is no motion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vsn.config import ZERO_PATH, ConfigError, Recipe
from vsn.data.embedded.exact import EmbeddedFlow
from vsn.data.flow.compute import ComputedFlowReader
from vsn.data.flow.find import with_flow
from vsn.data.flow.stored import FlowReader, open_flow
from vsn.data.flow.values import ZERO, bytes_to_flow, expected_flow
from vsn.data.part import VideoPart
from vsn.data.records import RecordSet
from vsn.data.video import VideoError, VideoReader
from vsn.data.video.reader import MemoryReader
from vsn.ops import sample_along

OpenPair = Callable[[VideoPart], tuple[VideoReader, VideoReader]]
"""Open the flow of a video or a part of it, forward and backward, at the size it is stored at."""


class PathPlanes:
    """Make the planes of paths: x and y to the next frame of the clip, then x and y to the one before.

    Args:
        open_pair: see `OpenPair`; `stored_paths` and `computed_paths` give one.
        flow_bound: motion in pixels that is stored as byte 255.
        path_bound: motion in pixels of the frames that the planes hold at most; longer paths are clipped.
    """

    def __init__(self, open_pair: OpenPair, *, flow_bound: float, path_bound: float) -> None:
        self._open_pair = open_pair
        self._flow_bound, self._path_bound = flow_bound, path_bound
        self._kept: dict[VideoPart, tuple[VideoReader, VideoReader]] = {}

    def keep(self, shown: VideoPart) -> int:
        """See `ExtraPlanes.keep`."""
        if shown not in self._kept:
            forward, backward = self._open_pair(shown)
            with forward, backward:
                self._kept[shown] = MemoryReader(forward), MemoryReader(backward)
        return sum(reader.num_bytes for reader in self._kept[shown] if isinstance(reader, MemoryReader))

    def planes(
        self, shown: VideoPart, indices: np.ndarray, *, num_video_frames: int, size: tuple[int, int]
    ) -> np.ndarray:
        """See `ExtraPlanes.planes`: uint8 `(num_clips, T, H, W, 4)`."""
        kept = self._kept.get(shown)
        forward, backward = kept or self._open_pair(shown)
        try:
            # Of each frame of all clips: (itself, the next frame), and (itself, the frame before).
            starts = indices.ravel().tolist()
            ahead, back = (list(zip(starts, _neighbors(indices, step), strict=True)) for step in (1, -1))
            pairs = {*ahead, *back}
            paths = self._chain(forward, {(a, b) for a, b in pairs if a < b}, num_video_frames, size)
            paths |= self._chain(backward, {(a, b) for a, b in pairs if a > b}, num_video_frames, size)
        finally:
            if kept is None:
                forward.close()
                backward.close()
        still = np.full((*size, 2), ZERO_PATH, np.uint8)
        rows = [
            np.concatenate([paths.get(one, still), paths.get(other, still)], axis=2)
            for one, other in zip(ahead, back, strict=True)
        ]
        return np.stack(rows).reshape(*indices.shape, *size, 4)

    def _chain(
        self, flow: VideoReader, pairs: set[tuple[int, int]], num_video_frames: int, size: tuple[int, int]
    ) -> dict[tuple[int, int], np.ndarray]:
        """Return the motion from frame `start` to frame `end` of each pair as bytes, uint8 `(H, W, 2)`."""
        if not pairs:
            return {}
        # Field i is between frames i and i + 1: from 3 to 0 by fields 2, 1, 0.
        chains = {(a, b): range(a, b) if a < b else range(a - 1, b - 1, -1) for a, b in pairs}
        needed = sorted({index for chain in chains.values() for index in chain})

        def choose(num_fields: int) -> list[int]:
            # Some programs store a last field, of no motion, for the last frame.
            computed = isinstance(flow, ComputedFlowReader)
            if not computed and num_fields not in (num_video_frames - 1, num_video_frames):
                raise VideoError(
                    flow.path,
                    f"it has {num_fields} fields of flow, but the video has {num_video_frames} frames, between which there "
                    f"are {num_video_frames - 1}. Extract the flow of this video again.",
                )
            return needed

        stored = flow.sample(choose)
        height, width = stored.shape[1:3]
        # The longer side of the flow may be a pixel off: it was rounded at another size.
        if abs(width * size[0] / height - size[1]) > 2 + size[0] / height:
            raise VideoError(
                flow.path,
                f"its flow of {height}x{width} pixels has another shape than the frames of {size[0]}x{size[1]}. Is it the "
                "flow of this video?",
            )
        fields = torch.from_numpy(bytes_to_flow(stored, self._flow_bound))
        # Byte 128 is half a step above no motion; in a chain of fields, still points would drift.
        fields[torch.from_numpy(stored == ZERO)] = 0.0
        fields = fields.permute(0, 3, 1, 2)
        at = {index: fields[row : row + 1] for row, index in enumerate(needed)}
        return {pair: self._to_bytes(_chain_fields([at[i] for i in chain]), size) for pair, chain in chains.items()}

    def _to_bytes(self, motion: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Resize a motion `(1, 2, h, w)` to frames of this size, in their pixels: uint8 `(H, W, 2)`."""
        (height, width), stored = size, motion.shape[-2:]
        if tuple(stored) != size:
            motion = torch.nn.functional.interpolate(motion, size, mode="bilinear", antialias=True)
            motion = motion * torch.tensor([width / stored[1], height / stored[0]]).view(1, 2, 1, 1)
        shares = (motion[0].permute(1, 2, 0) / self._path_bound * 127.5).round()
        return (shares + ZERO_PATH).clamp(0, 255).byte().numpy()


def _neighbors(indices: np.ndarray, step: int) -> list[int]:
    """Return the frame that follows (1) or precedes (-1) each in its clip, itself at the end, for all clips in a row."""
    last = indices.shape[1] - 1
    neighbors: list[int] = indices[:, np.clip(np.arange(last + 1) + step, 0, last)].ravel().tolist()
    return neighbors


def _chain_fields(fields: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the motion along fields `(1, 2, h, w)`, each of which begins where the one before ends."""
    motion = fields[0]
    for field in fields[1:]:
        # A point that left the frame goes on as the border does.
        motion = motion + sample_along(field, motion, outside="border")
    return motion


def stored_paths(recipe: Recipe, records: RecordSet) -> tuple[PathPlanes, str]:
    """Make paths from stored flow; returns a note for the user too.

    Raises:
        ConfigError: There is no flow in one of the directions, or it is not stored as the model needs it.
    """
    data, expected = recipe.data, expected_flow(recipe)
    if has_exact_flow(recipe):
        paths = PathPlanes(partial(exact_pair, recipe), flow_bound=expected.bound, path_bound=recipe.model.path_bound)
        return paths, "Paths: those that the videos were drawn with."
    forward = with_flow(records, data, expected)
    folder = Path(data.root) / data.flow_backward
    if not data.flow_backward:
        folder = forward.folder.with_name(f"{forward.folder.name}_backward")
    if not folder.is_dir():
        raise ConfigError(
            f"{recipe.model.name} follows points to the frame before too, and there is no backward flow: no folder "
            f"{str(folder)!r}. Compute it with `vsn flow extract --backward --out {folder}`, or set data.flow_backward."
        )
    data = replace(data, flow=str(folder.absolute()))
    backward = with_flow(records, data, replace(expected, direction="backward"))
    rows = zip(records.records, forward.records.records, backward.records.records, strict=True)
    pairs = {
        record.shown: (
            partial(open_flow, one.path, layout=forward.layout),
            partial(open_flow, other.path, layout=backward.layout),
        )
        for record, one, other in rows
    }
    paths = PathPlanes(partial(_open_pair, pairs), flow_bound=expected.bound, path_bound=recipe.model.path_bound)
    return paths, f"{forward.summary}\nBackward: {backward.summary}"


def _open_pair(
    pairs: Mapping[VideoPart, tuple[Callable[[], FlowReader], Callable[[], FlowReader]]], shown: VideoPart
) -> tuple[FlowReader, FlowReader]:
    # No closure: a worker that is not forked gets it pickled.
    open_forward, open_backward = pairs[shown]
    return open_forward(), open_backward()


def has_exact_flow(recipe: Recipe) -> bool:
    """Whether the data are the embedded set, whose motion is known, and no flow is stored."""
    data = recipe.data
    is_stored = data.flow or data.flow_backward or (Path(data.root) / "flow").is_dir()
    return data.source == "synthetic" and not is_stored


def exact_pair(recipe: Recipe, shown: VideoPart) -> tuple[EmbeddedFlow, EmbeddedFlow]:
    """Open the flow of a video of the embedded set in both directions. Raises `ConfigError` for another video."""
    root, bound = Path(recipe.data.root), recipe.model.flow_bound
    forward, backward = (EmbeddedFlow(root, shown.path, bound=bound, backward=back) for back in (False, True))
    return forward, backward
