"""Which frames of a video: plain functions of integers and a generator.

N frames, T of them wanted. Every function returns indices in 0..N-1, int64; those with a generator
draw (training), those without are fixed (validation, test). Sources: the TSN, TSM and Non-local code
bases; formulas in each docstring.
"""

from __future__ import annotations

import numpy as np

from vsn.config import FrameOrder, Sampling

DENSE_WINDOW = 64
"""Frames that dense sampling spans (Non-local: 32 frames at stride 2; TSM: 8 at stride 8)."""


def sample_indices(
    sampling: Sampling,
    num_video_frames: int,
    num_frames: int,
    generator: np.random.Generator | None,
    *,
    video_rate: float = 0.0,
    wanted_rate: float = 8.0,
    num_consecutive: int = 1,
) -> np.ndarray:
    """Indices of one clip by the sampling of that name: int64 `(num_frames,)`.

    `video_rate` is the video's frames a second, 0 when unknown; `wanted_rate` those to take. With
    `num_consecutive` above 1 these are the first of as many frames in a row; see `stack_indices`.
    """
    match sampling:
        case "segment":
            return segment_indices(num_video_frames, num_frames, generator, num_consecutive=num_consecutive)
        case "dense":
            return dense_indices(num_video_frames, num_frames, generator)
        case "rate":
            return rate_indices(num_video_frames, num_frames, generator, video_rate, wanted_rate)
    raise ValueError(f"the sampling is {sampling!r}; it is segment, dense or rate.")


def segment_indices(
    num_video_frames: int,
    num_frames: int,
    generator: np.random.Generator | None,
    *,
    num_consecutive: int = 1,
) -> np.ndarray:
    """Indices of `num_frames` frames, one from each of as many equal segments: int64 `(num_frames,)`.

    With `num_consecutive` (L) above 1 an index is the first of L consecutive frames, as a flow stack
    takes them. With a generator (training): with `d = (N - L + 1) // T`, frame i is `i * d` plus a draw
    from 0..d-1; when d is 0, T sorted draws from 0..N-L if N > T, else the first frame, repeated.
    Without one (validation, test): the center of each segment, so that short videos repeat frames in
    order. The result never decreases. Source: the TSN and TSM code bases.

    >>> segment_indices(32, 8, None).tolist()
    [2, 6, 10, 14, 18, 22, 26, 30]
    >>> segment_indices(3, 4, None).tolist()
    [0, 1, 1, 2]
    """
    _check(num_video_frames, num_frames)
    if num_consecutive < 1:
        raise ValueError(f"num_consecutive is {num_consecutive}; it must be 1 or more.")
    starts = num_video_frames - num_consecutive + 1
    steps = np.arange(num_frames)
    if starts < 1:  # shorter than one stack: the reader repeats its last frame
        return np.zeros(num_frames, dtype=np.int64)
    if generator is not None:
        length = starts // num_frames
        if length == 0:
            if num_video_frames <= num_frames:
                return np.zeros(num_frames, dtype=np.int64)
            return np.sort(generator.integers(starts, size=num_frames)).astype(np.int64)
        return (steps * length + generator.integers(length, size=num_frames)).astype(np.int64)
    tick = starts / num_frames
    return np.minimum((tick / 2 + tick * steps).astype(np.int64), starts - 1)


def stack_indices(starts: np.ndarray, num_video_frames: int, num_consecutive: int) -> np.ndarray:
    """Stacks of consecutive frames from these on, the last of the video repeated past its end.

    `(..., num_frames)` in, int64 `(..., num_frames, num_consecutive)` out: what flow and differences are read by.

    >>> stack_indices(np.array([0, 6]), 8, 3).tolist()
    [[0, 1, 2], [6, 7, 7]]
    """
    return np.minimum(starts[..., None] + np.arange(num_consecutive), num_video_frames - 1)


def two_clip_indices(num_video_frames: int, num_frames: int, *, num_consecutive: int = 1) -> np.ndarray:
    """The centers of the segments and their beginnings: int64 `(2, num_frames)`, for testing (TSM).

    With `num_consecutive` above 1 an index is the first of as many frames in a row.

    >>> two_clip_indices(16, 4).tolist()
    [[2, 6, 10, 14], [0, 4, 8, 12]]
    """
    centers = segment_indices(num_video_frames, num_frames, None, num_consecutive=num_consecutive)
    tick = max(1, num_video_frames - num_consecutive + 1) / num_frames
    return np.stack([centers, (tick * np.arange(num_frames)).astype(np.int64)])


def dense_indices(num_video_frames: int, num_frames: int, generator: np.random.Generator | None) -> np.ndarray:
    """Frames at a stride of `64 // num_frames` from one start, round the end: int64 `(num_frames,)`.

    With P = max(1, N - 63) the start is 0 if P is 1, else a draw from 0..P-2; without a generator it
    is the middle of that range. Index i is `(start + i * stride) mod N`, so that a short video repeats.
    Sources: Non-local (Wang et al., 2018), TSM on Kinetics.

    >>> dense_indices(80, 4, None).tolist()
    [7, 23, 39, 55]
    """
    _check(num_video_frames, num_frames)
    num_starts = _num_dense_starts(num_video_frames)
    last = max(0, num_starts - 2)
    start = last // 2 if generator is None else int(generator.integers(last + 1))
    return _dense_from(start, num_video_frames, num_frames)


def dense_clip_indices(num_video_frames: int, num_frames: int, num_clips: int = 10) -> np.ndarray:
    """Dense clips from `num_clips` starts spread evenly over the video: int64 `(num_clips, num_frames)`.

    Starts are int(linspace(0, P - 1, num_clips)), P as in `dense_indices`.
    """
    _check(num_video_frames, num_frames)
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}; it must be 1 or more.")
    starts = np.linspace(0, _num_dense_starts(num_video_frames) - 1, num_clips).astype(np.int64)
    return np.stack([_dense_from(int(start), num_video_frames, num_frames) for start in starts])


def rate_indices(
    num_video_frames: int,
    num_frames: int,
    generator: np.random.Generator | None,
    video_rate: float,
    wanted_rate: float,
) -> np.ndarray:
    """Frames in a row at `wanted_rate` a second of a video of `video_rate`: int64 `(num_frames,)`.

    The clip starts anywhere it fits (drawn; without a generator in the middle). A video shorter than
    the clip repeats its last frame. A video whose rate is unknown (0) is taken at every frame.

    >>> rate_indices(100, 4, None, 25.0, 5.0).tolist()
    [42, 47, 52, 57]
    """
    _check(num_video_frames, num_frames)
    if wanted_rate <= 0 or video_rate < 0:
        raise ValueError(
            f"{wanted_rate} frames a second of a video of {video_rate} were asked for; both must be above 0 "
            "(the video's may be 0: unknown)."
        )
    stride = video_rate / wanted_rate if video_rate else 1.0
    room = max(0.0, num_video_frames - 1 - (num_frames - 1) * stride)
    start = room / 2 if generator is None else float(generator.uniform(0.0, room + 1.0))
    indices = np.floor(start + stride * np.arange(num_frames)).astype(np.int64)
    return np.minimum(indices, num_video_frames - 1)


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


def _num_dense_starts(num_video_frames: int) -> int:
    return max(1, num_video_frames - (DENSE_WINDOW - 1))


def _dense_from(start: int, num_video_frames: int, num_frames: int) -> np.ndarray:
    stride = max(1, DENSE_WINDOW // num_frames)
    return (start + stride * np.arange(num_frames)) % num_video_frames


def _check(num_video_frames: int, num_frames: int) -> None:
    if num_video_frames < 1 or num_frames < 1:
        raise ValueError(
            f"{num_frames} frames of a video of {num_video_frames} were asked for; both must be 1 or more."
        )
