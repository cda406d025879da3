"""Read frames that are in memory: arrays, tensors, lists and iterators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.data.video.reader import VideoMetadata, VideoReader, checked_indices, frame_size
from vsn.data.video.resize import resize_rgb

NAME = "frames in memory"


class ArrayReader(VideoReader):
    """A video of frames in memory, resized as stored pictures are.

    Args:
        frames: uint8 `(N, H, W, 3)`, RGB: an array or a CPU tensor, or a list or iterator of frames `(H, W, 3)`. Those of
            an iterator are kept resized.
        frames_per_second: 0.0 when unknown.
        short_side: as of `open_video`.

    Raises:
        ValueError: no frame, another layout or type, or frames of several sizes.
    """

    def __init__(
        self,
        frames: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
        *,
        frames_per_second: float = 0.0,
        short_side: int | None = None,
    ) -> None:
        if hasattr(frames, "detach"):  # a tensor of PyTorch, which need not be installed
            frames = frames.detach().cpu().numpy()
        self._size: tuple[int, int] | None = None
        if isinstance(frames, np.ndarray):
            if frames.ndim != 4:
                raise ValueError(
                    f"Expected frames (N, H, W, 3), got shape {frames.shape}. {_hint(frames.shape)}".rstrip()
                )
            frames = list(frames)
        if isinstance(frames, str | bytes):
            raise ValueError(
                f"Expected frames (N, H, W, 3), uint8, got {type(frames).__name__}. Pass a path as pathlib.Path."
            )
        is_stored = isinstance(frames, Sequence)
        # Of an iterator, such as a decoder, full frames would be too many to keep.
        self._frames = [
            self._checked(frame) if is_stored else resized_frame(self._checked(frame), short_side) for frame in frames
        ]
        if not self._frames:
            raise ValueError("Expected at least one frame, got none.")
        super().__init__(NAME, num_frames=len(self._frames), frames_per_second=frames_per_second, short_side=short_side)

    def _checked(self, frame: Any) -> NDArray[np.uint8]:
        frame = checked_frame(frame)
        height, width = frame.shape[:2]
        self._size = self._size or (height, width)
        if (height, width) != self._size:
            raise ValueError(f"Expected frames of one size, got {self._size} and {(height, width)}.")
        return frame

    @cached_property
    def metadata(self) -> VideoMetadata:
        """See `VideoReader.metadata`."""
        assert self._size is not None
        return VideoMetadata(self.num_frames, self.frames_per_second, *self._size, rotation=0)

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader.frames_at`."""
        chosen = checked_indices(indices, self.num_frames)
        resized = {index: resized_frame(self._frames[index], self.short_side) for index in set(chosen)}
        return np.stack([resized[index] for index in chosen])


def checked_frame(frame: Any) -> NDArray[np.uint8]:
    """Return a frame as uint8 `(H, W, 3)`; tensors are converted. Raises `ValueError` for anything else."""
    if hasattr(frame, "detach"):
        frame = frame.detach().cpu().numpy()
    array = np.asarray(frame)
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(f"Expected a frame (H, W, 3), RGB, got shape {array.shape}. {_hint(array.shape)}".rstrip())
    if array.dtype != np.uint8:
        raise ValueError(
            f"Expected frames of uint8, 0 to 255, got {array.dtype}. For floats in [0, 1]: "
            "(255 * frames).round().astype('uint8')."
        )
    return array


def resized_frame(frame: NDArray[np.uint8], short_side: int | None) -> NDArray[np.uint8]:
    """Resize a frame, uint8 `(H, W, 3)`, so that its shorter side has `short_side` pixels; see `frame_size`."""
    height, width = frame.shape[:2]
    return resize_rgb(frame, *frame_size(NAME, height, width, short_side))


def _hint(shape: tuple[int, ...]) -> str:
    if len(shape) >= 3 and shape[-3] == 3 and shape[-1] != 3:
        return "The channels are before height and width: move them to the end, frames.transpose(0, 2, 3, 1)."
    if len(shape) == 5:
        return "This looks like a batch: pass one video at a time."
    return ""
