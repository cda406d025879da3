import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from vsn.config import ClipSpec
from vsn.data.frames import center_crop, flip, resize_short_side, stack_channels
from vsn.data.transforms import crop_sides, multiscale_corner_crop


def coordinates(height: int, width: int, num_frames: int = 2) -> torch.Tensor:
    """Frames whose channels are the row, the column (both below 256) and the frame's number."""
    rows = torch.arange(height).view(-1, 1).expand(height, width)
    columns = torch.arange(width).view(1, -1).expand(height, width)
    frames = [torch.stack([rows, columns, torch.full((height, width), t)]) for t in range(num_frames)]
    return torch.stack(frames).to(torch.uint8)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((24, 32), 24, (24, 32)),
        ((24, 32), 12, (12, 16)),
        ((32, 24), 12, (16, 12)),
        ((24, 33), 16, (16, 22)),
        ((8, 8), 32, (32, 32)),
    ],
)
def test_resize_short_side(size: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    frames = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    resized = resize_short_side(frames.numpy(), short_side)
    assert resized.dtype == np.uint8
    assert resized.shape == (2, 3, *expected)
    np.testing.assert_array_equal(resized, tv.resize(frames, [short_side], antialias=True))


def test_resize_to_the_same_size_changes_nothing() -> None:
    frames = coordinates(24, 32).numpy()
    assert resize_short_side(frames, 24) is frames


@pytest.mark.parametrize(
    ("short_side", "crop_size", "scales", "expected"),
    [
        (256, 224, (1.0, 0.875, 0.75, 0.66), [256, 224, 192, 168]),
        (128, 112, (1.0, 0.875, 0.75, 0.66), [128, 112, 96, 84]),
        (226, 224, (1.0, 0.875), [224, 197]),  # 2 pixels away: snapped
        (227, 224, (1.0,), [227]),  # 3 pixels away: not
        (100, 64, (0.66, 0.62), [64, 64]),  # from above and from below
        (100, 64, (0.67, 0.61), [67, 61]),
        (223, 224, (1.0,), [223]),  # never more than the frame has
        (3, 8, (1.0, 0.67), [3, 2]),
        (1, 8, (1.0, 0.66), [1, 1]),  # and never less than a pixel
    ],
)
def test_crop_sides(short_side: int, crop_size: int, scales: tuple[float, ...], expected: list[int]) -> None:
    spec = ClipSpec(short_side=256, crop_size=crop_size, crop_scales=scales)
    assert crop_sides(short_side, spec) == expected


def crops_of(spec: ClipSpec, height: int, width: int, draws: int = 600) -> set[tuple[int, int, int, int]]:
    """(top, left, height, width) of the crops that come before the resize."""
    found = set()
    frames = coordinates(height, width)
    generator = np.random.default_rng(0)
    seen: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vsn.data.transforms._resize", lambda crop, h, w: seen.append(crop) or crop)
        for _ in range(draws):
            multiscale_corner_crop(frames, spec, generator)
    for crop in seen:
        found.add((int(crop[0, 0, 0, 0]), int(crop[0, 1, 0, 0]), crop.shape[-2], crop.shape[-1]))
    return found


def test_pairs_are_at_most_one_step_apart() -> None:
    spec = ClipSpec(short_side=128, crop_size=112)
    sizes = {(height, width) for _, _, height, width in crops_of(spec, 128, 160)}
    assert sizes == {
        (128, 128), (128, 112),
        (112, 128), (112, 112), (112, 96),
        (96, 112), (96, 96), (96, 84),
        (84, 96), (84, 84),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (5, {(0, 0), (0, 80), (40, 0), (40, 80), (20, 40)}),
        (
            13,
            {(0, 0), (0, 80), (40, 0), (40, 80), (20, 40)}
            | {(20, 0), (20, 80), (40, 40), (0, 40)}
            | {(10, 20), (10, 60), (30, 20), (30, 60)},
        ),
    ],
)
def test_positions(positions: int, expected: set[tuple[int, int]]) -> None:
    """A crop of 80x80 in 120x160: steps of 10 down and 20 across."""
    spec = ClipSpec(short_side=160, crop_size=80, crop_scales=(0.67,), crop_positions=positions)
    assert {(top, left) for top, left, _, _ in crops_of(spec, 120, 160)} == expected


def test_one_crop_for_the_whole_clip() -> None:
    frames = coordinates(128, 160, num_frames=4)
    spec = ClipSpec(short_side=128, crop_size=112)
    for seed in range(10):
        crop = multiscale_corner_crop(frames, spec, np.random.default_rng(seed))
        assert crop.shape == (4, 3, 112, 112)
        for t in range(4):
            assert torch.equal(crop[t, :2], crop[0, :2])
            assert (crop[t, 2] == t).all()


def test_a_crop_is_resized_to_crop_size() -> None:
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    spec = ClipSpec(short_side=64, crop_size=32, crop_scales=(1.0,))
    crop = multiscale_corner_crop(frames, spec, np.random.default_rng(0))
    assert torch.equal(crop, tv.resize(frames, [32, 32], antialias=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 80), st.integers(8, 80), st.integers(0, 2**32), st.sampled_from([5, 13]))
def test_any_frame_gives_a_crop(height: int, width: int, seed: int, positions: int) -> None:
    spec = ClipSpec(short_side=64, crop_size=24, crop_positions=positions)
    frames = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, 3, height, width), dtype=np.uint8))
    first, second = (multiscale_corner_crop(frames, spec, np.random.default_rng(seed)) for _ in range(2))
    assert first.dtype == torch.uint8
    assert first.shape == (2, 3, 24, 24)
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("height", "width", "size", "top", "left"),
    [(8, 8, 8, 0, 0), (10, 14, 8, 1, 3), (14, 10, 8, 3, 1), (11, 9, 8, 2, 0), (9, 15, 8, 0, 4)],
)
def test_center_crop(height: int, width: int, size: int, top: int, left: int) -> None:
    frames = coordinates(height, width)
    crop = center_crop(frames.numpy(), size)
    assert crop.shape == (2, 3, size, size)
    assert (int(crop[0, 0, 0, 0]), int(crop[0, 1, 0, 0])) == (top, left)
    np.testing.assert_array_equal(crop, tv.center_crop(frames, [size, size]))


def test_center_crop_of_smaller_frames() -> None:
    with pytest.raises(ValueError, match=r"12x12 .* 10x20"):
        center_crop(coordinates(10, 20).numpy(), 12)


def test_flip_exchanges_left_and_right() -> None:
    frames = coordinates(4, 6).numpy()
    assert flip(frames)[0, 1, 0].tolist() == [5, 4, 3, 2, 1, 0]
    np.testing.assert_array_equal(flip(frames)[:, 0], frames[:, 0])
    np.testing.assert_array_equal(flip(flip(frames)), frames)


def test_flow_is_mirrored_in_every_field_of_a_stack() -> None:
    fields = np.arange(12, dtype=np.uint8).reshape(1, 6, 1, 2)  # x1, y1, x2, y2, x3, y3 of two pixels
    assert flip(fields, "flow")[0, :, 0].tolist() == [
        [254, 255],
        [3, 2],
        [250, 251],
        [7, 6],
        [246, 247],
        [11, 10],
    ]
    assert flip(fields)[0, :, 0].tolist() == [[1, 0], [3, 2], [5, 4], [7, 6], [9, 8], [11, 10]]


def test_fields_of_a_segment_lie_side_by_side() -> None:
    fields = np.broadcast_to(np.arange(12).reshape(6, 2, 1, 1), (6, 2, 3, 4))  # 2 segments of 3 fields of x and y
    stacked = stack_channels(fields, 2)
    assert stacked.shape == (2, 6, 3, 4)
    assert stacked[..., 0, 0].tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
