"""Which frames of a video: plain functions of integers and a generator."""

from __future__ import annotations

import numpy as np

from vsn.config import FrameOrder


def segment_indices(
    num_video_frames: int, num_frames: int, generator: np.random.Generator | None
) -> np.ndarray:
    """Indices of `num_frames` frames, one from each of as many equal segments: int64 `(num_frames,)`.

    With a generator (training): with `d = num_video_frames // num_frames`, frame i is `i * d` plus a
    draw from 0..d-1; a video shorter than `num_frames` gives its first frame, repeated. Without one
    (validation, test): the centre of each segment, so that short videos repeat frames in order.
    The result never decreases. Source: the TSN and TSM code bases.

    >>> segment_indices(32, 8, None).tolist()
    [2, 6, 10, 14, 18, 22, 26, 30]
    >>> segment_indices(3, 4, None).tolist()
    [0, 1, 1, 2]
    """
    if num_video_frames < 1 or num_frames < 1:
        raise ValueError(
            f"{num_frames} frames of a video of {num_video_frames} were asked for; both must be 1 or more."
        )
    steps = np.arange(num_frames)
    if generator is not None:
        length = num_video_frames // num_frames
        if length == 0:
            return np.zeros(num_frames, dtype=np.int64)
        return (steps * length + generator.integers(length, size=num_frames)).astype(np.int64)
    tick = num_video_frames / num_frames
    return np.minimum((tick / 2 + tick * steps).astype(np.int64), num_video_frames - 1)


def frame_order(num_frames: int, order: FrameOrder, generator: np.random.Generator) -> np.ndarray:
    """Positions in which sampled frames are shown, int64 `(num_frames,)`: `frames[frame_order(...)]`.

    forward: as they are; reversed: last first; shuffled: a random permutation; still: the middle
    frame (`num_frames // 2`), repeated.
    """
    match order:
        case "forward":
            return np.arange(num_frames)
        case "reversed":
            return np.arange(num_frames)[::-1].copy()
        case "shuffled":
            return generator.permutation(num_frames)
        case "still":
            return np.full(num_frames, num_frames // 2)
    raise ValueError(f"the order is {order!r}; it is forward, reversed, shuffled or still.")
