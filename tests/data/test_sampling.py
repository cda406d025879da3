import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsn.config import ClipSpec, FrameOrder
from vsn.data.sampling import (
    dense_clip_indices,
    dense_indices,
    frame_order,
    rate_indices,
    sample_indices,
    segment_indices,
    stack_indices,
    two_clip_indices,
)

LENGTHS, COUNTS, SEEDS = st.integers(1, 5000), st.integers(1, 64), st.integers(0, 2**32)


@pytest.mark.parametrize(
    ("num_video_frames", "num_frames", "expected"),
    [
        (1, 1, [0]),
        (1, 4, [0, 0, 0, 0]),
        (2, 4, [0, 0, 1, 1]),
        (3, 8, [0, 0, 0, 1, 1, 2, 2, 2]),
        (7, 1, [3]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (9, 8, [0, 1, 2, 3, 5, 6, 7, 8]),
        (30, 8, [1, 5, 9, 13, 16, 20, 24, 28]),
        (64, 8, [4, 12, 20, 28, 36, 44, 52, 60]),
        (100, 3, [16, 50, 83]),
    ],
)
def test_centers(num_video_frames: int, num_frames: int, expected: list[int]) -> None:
    assert segment_indices(num_video_frames, num_frames, None).tolist() == expected


@pytest.mark.parametrize(
    ("num_video_frames", "num_frames", "segments"),
    [
        (8, 8, [(i, i) for i in range(8)]),
        (15, 8, [(i, i) for i in range(8)]),  # d = 1: the tail is never drawn
        (16, 8, [(2 * i, 2 * i + 1) for i in range(8)]),
        (35, 4, [(8 * i, 8 * i + 7) for i in range(4)]),
        (5, 8, [(0, 0)] * 8),
        (1, 3, [(0, 0)] * 3),
    ],
)
def test_training_draws_reach_exactly_their_segments(
    num_video_frames: int, num_frames: int, segments: list[tuple[int, int]]
) -> None:
    generator = np.random.default_rng(0)
    draws = np.stack([segment_indices(num_video_frames, num_frames, generator) for _ in range(400)])
    assert [(int(low), int(high)) for low, high in zip(draws.min(0), draws.max(0), strict=True)] == segments


def centers_by_loop(num_video_frames: int, num_frames: int) -> list[int]:
    tick = num_video_frames / num_frames
    return [min(int(tick / 2 + tick * i), num_video_frames - 1) for i in range(num_frames)]


def draws_by_loop(num_video_frames: int, num_frames: int, generator: np.random.Generator) -> list[int]:
    length = num_video_frames // num_frames
    if length == 0:
        return [0] * num_frames
    return [i * length + int(draw) for i, draw in enumerate(generator.integers(0, length, num_frames))]


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(0, 2**32))
def test_segments_stay_in_range_in_order_and_repeatable(num_video_frames: int, num_frames: int, seed: int) -> None:
    for generators in ((None, None), (np.random.default_rng(seed), np.random.default_rng(seed))):
        first, second = (segment_indices(num_video_frames, num_frames, generator) for generator in generators)
        assert first.dtype == np.int64
        assert first.shape == (num_frames,)
        assert first.min() >= 0
        assert first.max() < num_video_frames
        assert (np.diff(first) >= 0).all()
        assert first.tolist() == second.tolist()
    assert segment_indices(num_video_frames, num_frames, None).tolist() == centers_by_loop(num_video_frames, num_frames)
    assert segment_indices(num_video_frames, num_frames, np.random.default_rng(seed)).tolist() == draws_by_loop(
        num_video_frames, num_frames, np.random.default_rng(seed)
    )


@pytest.mark.parametrize(("num_video_frames", "num_frames"), [(0, 8), (10, 0), (-1, 8)])
def test_nothing_to_sample(num_video_frames: int, num_frames: int) -> None:
    with pytest.raises(ValueError, match=f"a video of {num_video_frames} and a clip of {num_frames}"):
        segment_indices(num_video_frames, num_frames, None)


@given(st.integers(1, 400), COUNTS, st.integers(1, 10), SEEDS)
def test_flow_stacks_fit_in_the_video(length: int, num_frames: int, consecutive: int, seed: int) -> None:
    starts = length - consecutive + 1
    for generator in (None, np.random.default_rng(seed)):
        indices = segment_indices(length, num_frames, generator, num_consecutive=consecutive)
        assert indices.shape == (num_frames,)
        assert (np.diff(indices) >= 0).all()
        assert indices.min() >= 0
        assert indices.max() <= max(0, starts - 1)
    if 0 < starts < num_frames < length:  # too few starts for the segments, enough frames to draw from
        drawn = [
            segment_indices(length, num_frames, np.random.default_rng(i), num_consecutive=consecutive)
            for i in range(30)
        ]
        assert starts == 1 or len({tuple(indices) for indices in drawn}) > 1


def test_flow_stacks_by_hand() -> None:
    # N = 20, L = 5, T = 4: 16 starts, segments of 4.
    assert segment_indices(20, 4, None, num_consecutive=5).tolist() == [2, 6, 10, 14]
    with pytest.raises(ValueError, match="num_consecutive is 0"):
        segment_indices(20, 4, None, num_consecutive=0)


@pytest.mark.parametrize("seed", [None, 0])
def test_a_video_shorter_than_a_stack_begins_at_its_beginning(seed: int | None) -> None:
    generator = None if seed is None else np.random.default_rng(seed)
    indices = segment_indices(3, 4, generator, num_consecutive=5)
    assert (indices.tolist(), indices.dtype) == ([0, 0, 0, 0], np.int64)


def test_too_few_starts_for_the_segments_are_drawn_from_and_sorted() -> None:
    # N = 10, L = 5, T = 8: 6 starts, fewer than segments, and more frames than segments.
    generator = np.random.default_rng(0)
    draws = np.stack([segment_indices(10, 8, generator, num_consecutive=5) for _ in range(60)])
    assert (draws.shape, draws.dtype) == ((60, 8), np.int64)
    assert (np.diff(draws) >= 0).all()
    assert set(draws.flat) == set(range(6))
    assert segment_indices(8, 8, generator, num_consecutive=5).tolist() == [0] * 8


def test_a_stack_repeats_the_last_frame_past_the_end() -> None:
    assert stack_indices(np.array([0, 6]), 8, 3).tolist() == [[0, 1, 2], [6, 7, 7]]
    assert stack_indices(np.array([[0, 6], [5, 7]]), 8, 2).tolist() == [[[0, 1], [6, 7]], [[5, 6], [7, 7]]]


@given(LENGTHS, COUNTS)
def test_two_clips(length: int, num_frames: int) -> None:
    centers, beginnings = two_clip_indices(length, num_frames)
    assert centers.tolist() == segment_indices(length, num_frames, None).tolist()
    assert beginnings.tolist() == [int(length / num_frames * i) for i in range(num_frames)]
    assert (beginnings <= centers).all()


def dense_by_loop(start: int, length: int, num_frames: int) -> list[int]:
    return [(start + i * (64 // num_frames)) % length for i in range(num_frames)]


@given(LENGTHS, COUNTS, SEEDS)
def test_dense(length: int, num_frames: int, seed: int) -> None:
    drawn = dense_indices(length, num_frames, np.random.default_rng(seed))
    assert drawn.tolist() == dense_indices(length, num_frames, np.random.default_rng(seed)).tolist()
    assert drawn.tolist() == dense_by_loop(int(drawn[0]), length, num_frames)
    positions = max(1, length - 63)
    assert 0 <= drawn[0] <= max(0, positions - 2)
    assert dense_indices(length, num_frames, None)[0] == max(0, positions - 2) // 2
    clips = dense_clip_indices(length, num_frames)
    assert clips.shape == (10, num_frames)
    assert clips[:, 0].tolist() == [int(start) for start in np.linspace(0, positions - 1, 10)]
    for clip in clips:
        assert clip.tolist() == dense_by_loop(int(clip[0]), length, num_frames)
        assert 0 <= clip.min() <= clip.max() < length


def test_dense_draws_reach_every_start() -> None:
    generator = np.random.default_rng(0)
    starts = {int(dense_indices(70, 8, generator)[0]) for _ in range(300)}
    assert starts == set(range(6))  # P = 7: 0..P-2
    with pytest.raises(ValueError, match="num_clips is 0"):
        dense_clip_indices(70, 8, 0)
    assert dense_clip_indices(70, 8, 1).tolist() == [list(range(0, 64, 8))]


@given(LENGTHS, COUNTS, SEEDS, st.floats(1, 120), st.floats(0.5, 60))
def test_rate(length: int, num_frames: int, seed: int, video_rate: float, wanted: float) -> None:
    for generators in ((None, None), (np.random.default_rng(seed), np.random.default_rng(seed))):
        first, second = (
            rate_indices(length, num_frames, g, video_rate=video_rate, clip_rate=wanted) for g in generators
        )
        assert first.tolist() == second.tolist()
        assert (np.diff(first) >= 0).all()
        assert 0 <= first.min() <= first.max() < length
        inside = first[first < length - 1]
        if len(inside) > 1:  # what is not held at the end is evenly spaced, within rounding
            assert abs((inside[-1] - inside[0]) - (len(inside) - 1) * video_rate / wanted) <= 1 + 1e-6


def test_rate_by_hand() -> None:
    # 25 a second, 5 wanted: every fifth frame, in the middle of 100.
    middle = rate_indices(100, 4, None, video_rate=25.0, clip_rate=5.0)
    assert (middle.tolist(), middle.dtype) == ([42, 47, 52, 57], np.int64)
    assert rate_indices(100, 4, None, video_rate=0.0, clip_rate=5.0).tolist() == [
        48,
        49,
        50,
        51,
    ]  # unknown rate
    assert rate_indices(8, 4, None, video_rate=25.0, clip_rate=5.0).tolist() == [
        0,
        5,
        7,
        7,
    ]  # too short
    generator = np.random.default_rng(0)
    starts = {int(rate_indices(30, 4, generator, video_rate=10.0, clip_rate=5.0)[0]) for _ in range(400)}
    assert starts == set(range(24))
    with pytest.raises(ValueError, match=r"got 0 and 10\.0"):
        rate_indices(30, 4, None, video_rate=10.0, clip_rate=0)


@pytest.mark.parametrize("seed", [None, 5])
def test_samplings_by_name(seed: int | None) -> None:
    def generator() -> np.random.Generator | None:
        return None if seed is None else np.random.default_rng(seed)

    for sampling, expected in (
        ("segment", segment_indices(200, 8, generator())),
        ("dense", dense_indices(200, 8, generator())),
        ("rate", rate_indices(200, 8, generator(), video_rate=30.0, clip_rate=4.0)),
    ):
        found = sample_indices(ClipSpec(sampling=sampling, frames_per_second=4), 200, 8, generator(), video_rate=30.0)
        assert found.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="'sparse'"):
        sample_indices(ClipSpec(sampling="sparse"), 200, 8, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("num_frames", "order", "expected"),
    [
        (4, "forward", [0, 1, 2, 3]),
        (4, "reversed", [3, 2, 1, 0]),
        (4, "still", [2, 2, 2, 2]),
        (5, "still", [2, 2, 2, 2, 2]),
        (1, "still", [0]),
        (1, "shuffled", [0]),
    ],
)
def test_frame_order(num_frames: int, order: FrameOrder, expected: list[int]) -> None:
    assert frame_order(num_frames, order, np.random.default_rng(0)).tolist() == expected


@given(st.integers(1, 64), st.integers(0, 2**32))
def test_shuffled_is_a_permutation_of_its_generator(num_frames: int, seed: int) -> None:
    first, second = (frame_order(num_frames, "shuffled", np.random.default_rng(seed)) for _ in range(2))
    assert sorted(first.tolist()) == list(range(num_frames))
    assert first.tolist() == second.tolist()


def test_shuffles_differ() -> None:
    generator = np.random.default_rng(0)
    assert len({tuple(frame_order(8, "shuffled", generator)) for _ in range(20)}) == 20


def test_unknown_order() -> None:
    with pytest.raises(ValueError, match="'backwards'"):
        frame_order(8, "backwards", np.random.default_rng(0))  # type: ignore[arg-type]
