import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsn.config import FrameOrder
from vsn.data.sampling import frame_order, segment_indices


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
def test_centres(num_video_frames: int, num_frames: int, expected: list[int]) -> None:
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


def centres_by_loop(num_video_frames: int, num_frames: int) -> list[int]:
    tick = num_video_frames / num_frames
    return [min(int(tick / 2 + tick * i), num_video_frames - 1) for i in range(num_frames)]


def draws_by_loop(num_video_frames: int, num_frames: int, generator: np.random.Generator) -> list[int]:
    length = num_video_frames // num_frames
    if length == 0:
        return [0] * num_frames
    return [i * length + int(draw) for i, draw in enumerate(generator.integers(0, length, num_frames))]


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(0, 2**32))
def test_segments_stay_in_range_in_order_and_repeatable(
    num_video_frames: int, num_frames: int, seed: int
) -> None:
    for generators in ((None, None), (np.random.default_rng(seed), np.random.default_rng(seed))):
        first, second = (segment_indices(num_video_frames, num_frames, generator) for generator in generators)
        assert first.dtype == np.int64
        assert first.shape == (num_frames,)
        assert first.min() >= 0
        assert first.max() < num_video_frames
        assert (np.diff(first) >= 0).all()
        assert first.tolist() == second.tolist()
    assert segment_indices(num_video_frames, num_frames, None).tolist() == centres_by_loop(
        num_video_frames, num_frames
    )
    assert segment_indices(
        num_video_frames, num_frames, np.random.default_rng(seed)
    ).tolist() == draws_by_loop(num_video_frames, num_frames, np.random.default_rng(seed))


@pytest.mark.parametrize(("num_video_frames", "num_frames"), [(0, 8), (10, 0), (-1, 8)])
def test_nothing_to_sample(num_video_frames: int, num_frames: int) -> None:
    with pytest.raises(ValueError, match=f"{num_frames} frames of a video of {num_video_frames}.*1 or more"):
        segment_indices(num_video_frames, num_frames, None)


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
    with pytest.raises(ValueError, match="'backwards'; it is forward, reversed, shuffled or still"):
        frame_order(8, "backwards", np.random.default_rng(0))  # type: ignore[arg-type]
