"""Choose frames of a video: pure functions of frame counts and an optional random generator.

A video has N frames, a clip T. Every function returns indices in 0..N-1, int64. With a generator frames
are drawn (training); without one they are fixed (validation, test); `vsn.data.views.PROTOCOLS` names which
function a test protocol uses. `vsn.stream.grid` follows the rule of `segment_indices`, in seconds. Sources: the
TSN, TSM and Non-local code bases.
"""

from __future__ import annotations

import numpy as np

from vsn.config import ClipSpec, FrameOrder

DENSE_WINDOW = 64
"""Frames that dense sampling spans (Non-local: 32 frames at stride 2; TSM: 8 at stride 8)."""


def sample_indices(
    clip: ClipSpec,
    num_video_frames: int,
    num_frames: int,
    generator: np.random.Generator | None,
    *,
    video_rate: float = 0.0,
    num_consecutive: int = 1,
) -> np.ndarray:
    """Return the indices of one clip by `clip.sampling`: int64 `(num_frames,)`.

    `video_rate` is in frames per second, 0 when unknown. With `num_consecutive` above 1 the indices are the
    first of as many consecutive frames; see `stack_indices`.
    """
    match clip.sampling:
        case "segment":
            return segment_indices(num_video_frames, num_frames, generator, num_consecutive=num_consecutive)
        case "dense":
            return dense_indices(num_video_frames, num_frames, generator)
        case "rate":
            clip_rate = clip.frames_per_second
            return rate_indices(num_video_frames, num_frames, generator, video_rate=video_rate, clip_rate=clip_rate)
    raise ValueError(f"clip.sampling is {clip.sampling!r}; it must be segment, dense or rate.")


def segment_indices(
    num_video_frames: int, num_frames: int, generator: np.random.Generator | None, *, num_consecutive: int = 1
) -> np.ndarray:
    """Return one frame from each of `num_frames` equal segments: int64 `(num_frames,)`, never decreasing.

    With `num_consecutive` (L) above 1 an index is the first of L consecutive frames, as flow is stacked.
    Source: the TSN and TSM code bases, short videos included.

    >>> segment_indices(32, 8, None).tolist()
    [2, 6, 10, 14, 18, 22, 26, 30]
    >>> segment_indices(3, 4, None).tolist()
    [0, 1, 1, 2]
    """
    _check_counts(num_video_frames, num_frames)
    if num_consecutive < 1:
        raise ValueError(f"num_consecutive is {num_consecutive}; it must be 1 or more.")
    num_starts = num_video_frames - num_consecutive + 1
    steps = np.arange(num_frames)
    if num_starts < 1:  # shorter than one stack: `stack_indices` repeats the last frame
        return np.zeros(num_frames, dtype=np.int64)
    if generator is None:
        # The center of each segment. N=10, T=4: segments of 2.5 frames, centers 1.25, 3.75, 6.25, 8.75.
        length = num_starts / num_frames
        return np.minimum((length / 2 + length * steps).astype(np.int64), num_starts - 1)
    # Training segments have whole lengths: N=10, T=4 draws from 0..1, 2..3, 4..5, 6..7, never 8 or 9 (as TSN).
    whole_length = num_starts // num_frames
    if whole_length > 0:
        return (steps * whole_length + generator.integers(whole_length, size=num_frames)).astype(np.int64)
    if num_video_frames > num_frames:  # enough frames, but not enough stacks
        return np.sort(generator.integers(num_starts, size=num_frames)).astype(np.int64)
    return np.zeros(num_frames, dtype=np.int64)  # fewer frames than segments: the first frame, repeated


def stack_indices(starts: np.ndarray, num_video_frames: int, num_consecutive: int) -> np.ndarray:
    """Return stacks of consecutive frames, `(..., num_frames)` to int64 `(..., num_frames, num_consecutive)`.

    Past the end of the video its last frame repeats. Flow and differences are read by these.

    >>> stack_indices(np.array([0, 6]), 8, 3).tolist()
    [[0, 1, 2], [6, 7, 7]]
    """
    return np.minimum(starts[..., None] + np.arange(num_consecutive), num_video_frames - 1)


def two_clip_indices(num_video_frames: int, num_frames: int, *, num_consecutive: int = 1) -> np.ndarray:
    """Return the centers and the beginnings of the segments: int64 `(2, num_frames)`, for testing (TSM).

    >>> two_clip_indices(16, 4).tolist()
    [[2, 6, 10, 14], [0, 4, 8, 12]]
    """
    # N=16, T=4: segments of 4 frames, centers 2, 6, 10, 14, beginnings 0, 4, 8, 12.
    centers = segment_indices(num_video_frames, num_frames, None, num_consecutive=num_consecutive)
    length = max(1, num_video_frames - num_consecutive + 1) / num_frames
    return np.stack([centers, (length * np.arange(num_frames)).astype(np.int64)])


def dense_indices(num_video_frames: int, num_frames: int, generator: np.random.Generator | None) -> np.ndarray:
    """Return frames at a stride of `64 // num_frames` from one start, modulo N: int64 `(num_frames,)`.

    A short video repeats. Sources: Non-local (Wang et al., 2018), TSM on Kinetics.

    >>> dense_indices(80, 4, None).tolist()
    [7, 23, 39, 55]
    """
    _check_counts(num_video_frames, num_frames)
    # With P = max(1, N - 63) windows, TSM draws from 0..P-2: the last start is never used.
    last = max(0, _num_windows(num_video_frames) - 2)
    start = last // 2 if generator is None else int(generator.integers(last + 1))
    return _dense_from(np.array(start), num_video_frames, num_frames)


def dense_clip_indices(num_video_frames: int, num_frames: int, num_clips: int = 10) -> np.ndarray:
    """Return dense clips from `num_clips` starts spread evenly over the video: int64 `(num_clips, num_frames)`."""
    _check_counts(num_video_frames, num_frames)
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}; it must be 1 or more.")
    # As Non-local, up to the last window P - 1, which `dense_indices` leaves out.
    starts = np.linspace(0, _num_windows(num_video_frames) - 1, num_clips).astype(np.int64)
    return _dense_from(starts[:, None], num_video_frames, num_frames)


def rate_indices(
    num_video_frames: int,
    num_frames: int,
    generator: np.random.Generator | None,
    *,
    video_rate: float,
    clip_rate: float,
) -> np.ndarray:
    """Return consecutive frames at `clip_rate` per second of a video of `video_rate`: int64 `(num_frames,)`.

    The clip starts anywhere it fits; without a generator it is centered. A video shorter than the clip
    repeats its last frame. Unknown rate (0): every frame.

    >>> rate_indices(100, 4, None, video_rate=25.0, clip_rate=5.0).tolist()
    [42, 47, 52, 57]
    """
    _check_counts(num_video_frames, num_frames)
    if clip_rate <= 0 or video_rate < 0:
        raise ValueError(f"Expected clip_rate > 0 and video_rate >= 0 (0: unknown), got {clip_rate} and {video_rate}.")
    stride = video_rate / clip_rate if video_rate else 1.0
    # 25 fps at 5 per second: stride 5; 4 frames of 100 span 16, which leaves starts 0 to 84.
    max_start = max(0.0, num_video_frames - 1 - (num_frames - 1) * stride)
    # max_start + 1, so that the last start is as likely as the others after rounding down.
    start = max_start / 2 if generator is None else float(generator.uniform(0.0, max_start + 1.0))
    indices = np.floor(start + stride * np.arange(num_frames)).astype(np.int64)
    return np.minimum(indices, num_video_frames - 1)


def frame_order(num_frames: int, order: FrameOrder, generator: np.random.Generator) -> np.ndarray:
    """Return the positions in which sampled frames are shown, int64 `(num_frames,)`: `frames[frame_order(...)]`.

    shuffled: a random permutation; still: the middle frame (`num_frames // 2`), repeated.
    """
    match order:
        case "forward":
            return np.arange(num_frames)
        case "reversed":
            return np.arange(num_frames)[::-1].copy()  # torch takes no negative strides
        case "shuffled":
            return generator.permutation(num_frames)
        case "still":
            return np.full(num_frames, num_frames // 2)
    raise ValueError(f"order is {order!r}; it must be forward, reversed, shuffled or still.")


def _num_windows(num_video_frames: int) -> int:
    return max(1, num_video_frames - (DENSE_WINDOW - 1))


def _dense_from(starts: np.ndarray, num_video_frames: int, num_frames: int) -> np.ndarray:
    # Modulo N: a video shorter than the window wraps around rather than freezing at its last frame.
    stride = max(1, DENSE_WINDOW // num_frames)
    return (starts + stride * np.arange(num_frames)) % num_video_frames


def _check_counts(num_video_frames: int, num_frames: int) -> None:
    if num_video_frames < 1 or num_frames < 1:
        raise ValueError(
            f"A video and a clip need at least 1 frame each; got a video of {num_video_frames} and a clip of {num_frames}."
        )
