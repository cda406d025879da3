"""Copies under other bytes are found; other videos of one room, and equal frames in another order, are no copies."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vsn.data.video import open_video, write_video
from vsn.doctor.near_copies import COARSE, FINE, Detail, Likeness, Signature, compare, find_near_copies, sign_video

HEIGHT, WIDTH = 48, 64


def room(seed: int) -> np.ndarray:
    """What stays: a picture (H, W, 3)."""
    blocks = np.random.default_rng(seed).integers(40, 200, (4, 4, 3))
    return blocks.repeat(HEIGHT // 4, 0).repeat(WIDTH // 4, 1).astype(np.float32)


def moving(seed: int, *, in_room: int = 0, num_frames: int = 60) -> np.ndarray:
    """A bright spot that wanders about a room, on a way of its own; uint8 (T, H, W, 3)."""
    generator = np.random.default_rng(seed)
    phases, speeds = generator.uniform(0, 2 * np.pi, 4), generator.uniform(0.05, 0.2, 4)
    t = np.arange(num_frames)[:, None, None]
    way = [np.sin(speeds[i] * t + phases[i]) + np.sin(speeds[i + 1] * t + phases[i + 1]) for i in (0, 2)]
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    spot = np.exp(-(((y - HEIGHT * (0.5 + way[0] / 5)) / 6) ** 2 + ((x - WIDTH * (0.5 + way[1] / 5)) / 6) ** 2))
    return np.clip(room(in_room) + 120 * spot[..., None], 0, 255).astype(np.uint8)


class Made:
    """A video file with its signatures."""

    def __init__(self, path: Path, frames: np.ndarray, *, rate: float = 20, crf: int = 23) -> None:
        write_video(path, np.ascontiguousarray(frames), frames_per_second=rate, crf=crf)
        self.coarse, self.fine = (self.read(path, detail) for detail in (COARSE, FINE))

    def read(self, path: Path, detail: Detail) -> Signature:
        with open_video(path, short_side=detail.short_side) as video:
            return sign_video(video, detail)


def near_copies(first: list[Made], second: list[Made]) -> list[tuple[int, int, Likeness]]:
    parts = [first, second]
    return find_near_copies(
        [one.coarse for one in first], [one.coarse for one in second], lambda part, index: parts[part][index].fine
    )


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """Eight videos of one room, and one of another."""
    folder = tmp_path_factory.mktemp("originals")
    rooms = [0] * 8 + [1]
    return [Made(folder / f"{seed}.mp4", moving(seed, in_room=number)) for seed, number in enumerate(rooms)]


@pytest.mark.parametrize(
    ("change", "rate", "crf", "mirrored", "shared"),
    [
        (lambda frames: frames, 20, 36, False, 1.0),
        (lambda frames: frames[:, ::2, ::2], 20, 23, False, 1.0),
        (lambda frames: frames[6:], 20, 23, False, 0.9),
        (lambda frames: frames[3:-6], 20, 23, False, 0.85),
        (lambda frames: frames[::2], 10, 23, False, 1.0),
        (lambda frames: np.clip(frames * 0.7 + 40, 0, 255).astype(np.uint8), 20, 23, False, 1.0),
        (lambda frames: frames[:, :, ::-1], 20, 28, True, 1.0),
        (lambda frames: frames[6:, :, ::-1], 20, 28, True, 0.9),
    ],
)
def test_copies_are_found(
    originals: list[Made], tmp_path: Path, change: Callable, rate: float, crf: int, mirrored: bool, shared: float
) -> None:
    copy = Made(tmp_path / "copy.mp4", change(moving(5)), rate=rate, crf=crf)
    ((first, second, likeness),) = near_copies(originals, [copy])
    assert (first, second, likeness.mirrored) == (5, 0, mirrored)
    assert likeness.shared == pytest.approx(shared, abs=0.06)
    # Either may be the longer one.
    assert [pair[:2] for pair in near_copies([copy], originals)] == [(0, 5)]


def test_the_original_of_a_trimmed_copy_may_be_trimmed_elsewhere(tmp_path: Path) -> None:
    frames = moving(3)
    parts = [Made(tmp_path / f"{i}.mp4", part) for i, part in enumerate((frames[:-8], frames[8:]))]
    ((_, _, likeness),) = near_copies(parts[:1], parts[1:])
    assert likeness.shared == pytest.approx(44 / 52, abs=0.06)


def test_other_videos_of_the_room_are_no_copies(originals: list[Made]) -> None:
    assert near_copies(originals[:4], originals[4:]) == []


def test_equal_frames_in_another_order_are_no_copies(originals: list[Made], tmp_path: Path) -> None:
    frames = moving(5)
    others = (frames[::-1], np.concatenate([frames[30:], frames[:30]]), np.random.default_rng(0).permutation(frames))
    signed = [Made(tmp_path / f"{i}.mp4", other) for i, other in enumerate(others)]
    assert near_copies(originals, signed) == []
    # Each frame of them is in the original, and what stays is the same.
    assert all(compare(originals[5].fine, one.fine).stays > 0.99 for one in signed)


@pytest.mark.parametrize("level", [0, 16, 128])
def test_videos_in_which_nothing_moves_are_no_copies(tmp_path: Path, level: int) -> None:
    """Black ones, and a room that a camera makes brighter: they are alike, and may be two recordings."""
    flat = np.full((40, HEIGHT, WIDTH, 3), level, np.uint8)
    lit = np.clip(room(0) + np.linspace(0, 40, 40)[:, None, None, None], 0, 255).astype(np.uint8)
    dark = np.clip(room(0) * np.linspace(0.5, 1, 40)[:, None, None, None], 0, 255).astype(np.uint8)
    signed = [Made(tmp_path / f"{i}.mp4", frames) for i, frames in enumerate((flat, lit, dark))]
    assert near_copies(signed[:2], [signed[0], signed[2]]) == []


def test_a_short_part_is_no_copy(originals: list[Made], tmp_path: Path) -> None:
    part = Made(tmp_path / "part.mp4", moving(5)[:30])
    assert near_copies(originals, [part]) == []


def test_videos_of_one_frame(tmp_path: Path, originals: list[Made]) -> None:
    one = Made(tmp_path / "one.mp4", moving(5)[:1])
    assert near_copies([*originals, one], [one]) == []


def test_frame_folders_of_unknown_rate(originals: list[Made]) -> None:
    """Their time is counted in frames."""

    def found(first: list[Signature], second: list[Signature]) -> list[tuple[int, int]]:
        parts = [first, second]
        return [pair[:2] for pair in find_near_copies(first, second, lambda part, index: parts[part][index])]

    known = [one.coarse for one in originals]
    unknown = [Signature(one.pictures, 60.0, is_timed=False) for one in known]
    assert found(unknown, unknown[2:4]) == [(2, 0), (3, 1)]
    assert found(known, unknown[2:4]) == [(2, 0), (3, 1)]


def test_the_same_place_with_another_movement_is_only_a_suspect(originals: list[Made]) -> None:
    """Where the coarse signatures are equal, and the fine ones are not; or where one cannot be read again."""
    first = [originals[5].coarse]
    for fine in (originals[4].fine, None):
        assert find_near_copies(first, first, lambda part, index, fine=fine: fine if part else originals[5].fine) == []
