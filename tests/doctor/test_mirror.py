"""Classes that are mirror images of each other, by where their videos change."""

import numpy as np
import pytest

from vsn.doctor.mirror import MIN_VIDEOS, mirrored_pairs, motion_of

T, HEIGHT, WIDTH = 6, 36, 48


def clip(kind: str, seed: int) -> np.ndarray:
    """A bright square on noise: it moves right, left, down, up, or stays in place and blinks."""
    generator = np.random.default_rng(seed)
    frames = generator.integers(50, 60, (T, HEIGHT, WIDTH, 3)).astype(np.uint8)
    row, column = generator.integers(0, HEIGHT - 12), generator.integers(0, WIDTH - 12)
    for i in range(T):
        along = (i * (WIDTH - 12)) // (T - 1)
        down = (i * (HEIGHT - 12)) // (T - 1)
        top, left = {
            "right": (row, along), "left": (row, WIDTH - 12 - along), "down": (down, column),
            "up": (HEIGHT - 12 - down, column), "blink": (row, column),
        }[kind]  # fmt: skip
        frames[i, top : top + 12, left : left + 12] = 220 if kind != "blink" or i % 2 else 100
    return frames


def motions(*kinds: str, number: int = 2 * MIN_VIDEOS) -> dict[str, list[bytes]]:
    return {kind: [motion_of(clip(kind, 100 * i + len(kind))) for i in range(number)] for kind in kinds}


@pytest.mark.parametrize(
    ("kinds", "pairs"),
    [
        (("right", "left"), [("right", "left")]),
        (("blink", "right", "up", "left", "down"), [("right", "left")]),
        (("up", "down"), []),
        (("up", "right", "blink"), []),
        (("right",), []),
        ((), []),
    ],
)
def test_pairs(kinds: tuple[str, ...], pairs: list[tuple[str, str]]) -> None:
    assert mirrored_pairs(motions(*kinds)) == pairs


def test_few_videos_say_nothing() -> None:
    assert mirrored_pairs(motions("right", "left", number=MIN_VIDEOS - 1)) == []


def test_two_classes_of_the_same_videos_are_no_pair() -> None:
    same = motions("right")["right"]
    assert mirrored_pairs({"a": same, "b": same[::-1]}) == []


def test_the_mirrored_clip_has_the_mirrored_map() -> None:
    frames = clip("right", 0)
    straight, flipped = (
        np.frombuffer(motion_of(f), np.float16).reshape(-1, 6, 8) for f in (frames, frames[:, :, ::-1])
    )
    assert np.allclose(straight[..., ::-1], flipped, atol=1e-3)
    assert straight.sum() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 36, 48, 3), (0, 36, 48, 3), (6, 5, 48, 3), (6, 36, 7, 3)])
def test_clips_without_a_map(shape: tuple[int, ...]) -> None:
    assert motion_of(np.zeros(shape, np.uint8)) == b""


def test_still_clips_have_no_map() -> None:
    assert motion_of(np.full((6, 36, 48, 3), 7, np.uint8)) == b""
    assert mirrored_pairs({"a": [b""] * 20, "b": [b""] * 20}) == []
