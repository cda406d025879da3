"""Clips of flow and of frames to subtract: which fields, in which order, cropped and flipped how."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.clips import clip_dataset
from tests.helpers.stored_flow import write_fields
from vsn.config import AugmentConfig, ClipSpec, Modality
from vsn.data.dataset import VideoDataset
from vsn.data.flow.values import bytes_to_flow, flow_to_bytes
from vsn.data.frames import flip, stack_channels
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.sampling import sample_indices, segment_indices, stack_indices
from vsn.data.transforms import augment_clip
from vsn.data.video import VideoError

SPEC = ClipSpec(short_side=16, crop_size=16, crop_scales=(1.0,))


def numbered(num_fields: int) -> list[np.ndarray]:
    """Field i has x = i and y = 100 + i everywhere."""
    return [np.full((16, 16, 2), (i, 100 + i), np.uint8) for i in range(num_fields)]


def one(path: Path, *, reverse: bool = False) -> RecordSet:
    return RecordSet((VideoRecord(path, (0,), path.name, reverse=reverse),), ("a", "b"))


def flow_set(path: Path, num_frames: int, length: int, **settings) -> VideoDataset:
    settings = {"clip": SPEC, "train": False} | settings
    return clip_dataset(one(path), num_frames=num_frames, modality="flow", flow_length=length, **settings)


def x_of(clip: torch.Tensor) -> list[list[int]]:
    """The number of each field of each segment, read from its x; that y is the same field's is checked."""
    values = clip[:, :, 0, 0].long()
    assert torch.equal(values[:, 1::2], values[:, ::2] + 100)
    return values[:, ::2].tolist()


# --- which fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_fields", [1, 3, 4, 5, 8, 9, 12, 29, 30, 100])
@pytest.mark.parametrize("length", [1, 5])
def test_stacks_are_those_of_a_loop(num_fields: int, length: int) -> None:
    """field-facts of TSN, segment by segment, field by field: T = 8."""
    starts = segment_indices(num_fields, 8, None, num_consecutive=length)
    expected = []
    for i in range(8):
        tick = (num_fields - length + 1) / 8
        start = min(max(int(tick / 2 + tick * i), 0), max(0, num_fields - length)) if tick > 0 else 0
        row, field = [], start
        for _ in range(length):
            row.append(field)
            if field < num_fields - 1:  # the last is repeated past the end
                field += 1
        expected.append(row)
    assert stack_indices(starts, num_fields, length).tolist() == expected


@pytest.mark.parametrize(
    ("num_fields", "num_frames", "length", "expected"),
    [
        (8, 8, 1, [[0], [1], [2], [3], [4], [5], [6], [7]]),
        (16, 4, 1, [[2], [6], [10], [14]]),
        (16, 4, 5, [[1, 2, 3, 4, 5], [4, 5, 6, 7, 8], [7, 8, 9, 10, 11], [10, 11, 12, 13, 14]]),
        (3, 2, 5, [[0, 1, 2, 2, 2]] * 2),  # shorter than a stack
        (1, 8, 1, [[0]] * 8),  # a video of two frames
        (1, 2, 5, [[0] * 5] * 2),
    ],
)
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_test_clip_is_the_stacks_at_the_centers(
    tmp_path: Path, num_fields: int, num_frames: int, length: int, expected: list[list[int]], cache
) -> None:
    place = write_fields(tmp_path, "v", numbered(num_fields), "xy", suffix=".png")
    clip = flow_set(place, num_frames, length, cache=cache)[0].clip
    assert clip.dtype == torch.uint8
    assert clip.shape == (num_frames, 2 * length, 16, 16)
    assert clip.is_contiguous()
    assert x_of(clip) == expected


@pytest.mark.parametrize(("num_fields", "length"), [(16, 1), (20, 5), (8, 5), (6, 5), (3, 5)])
def test_a_training_clip_draws_a_stack_of_each_segment(tmp_path: Path, num_fields: int, length: int) -> None:
    place = write_fields(tmp_path, "v", numbered(num_fields), "xy", suffix=".png")
    dataset = flow_set(place, 4, length, train=True)
    drawn = [x_of(dataset[(epoch, 0)].clip) for epoch in range(40)]
    room = max(0, num_fields - length + 1) // 4
    for stacks in drawn:
        starts = [stack[0] for stack in stacks]
        assert stacks == [[min(s + i, num_fields - 1) for i in range(length)] for s in starts]
        if room > 0:
            assert [start // room for start in starts] == [0, 1, 2, 3]
    seen = {stack[0] for stacks in drawn for stack in stacks}
    assert seen == set(range(4 * room or max(1, num_fields - length + 1)))


@pytest.mark.parametrize("sampling", ["dense", "rate"])
def test_other_samplings_take_stacks_too(tmp_path: Path, sampling) -> None:
    place = write_fields(tmp_path, "v", numbered(30), "xy", suffix=".png")
    clip = flow_set(place, 4, 3, clip=ClipSpec(sampling=sampling, short_side=16, crop_size=16))[0].clip
    starts = sample_indices(ClipSpec(sampling=sampling), 30, 4, None)
    assert x_of(clip) == [[min(s + i, 29) for i in range(3)] for s in starts.tolist()]


def test_orders_move_segments_and_leave_motion_as_it_is(tmp_path: Path) -> None:
    place = write_fields(tmp_path, "v", numbered(15), "xy", suffix=".png")
    forward, backward, still, shuffled = (
        x_of(flow_set(place, 4, 3, order=order)[0].clip) for order in ("forward", "reversed", "still", "shuffled")
    )
    assert forward == [[1, 2, 3], [4, 5, 6], [8, 9, 10], [11, 12, 13]]
    assert backward == forward[::-1]
    assert still == [[8, 9, 10]] * 4
    assert sorted(shuffled) == forward
    assert shuffled != forward


def test_a_video_of_one_frame_has_no_flow(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    with pytest.raises(VideoError, match="one frame"):
        flow_set(tmp_path / "v", 4, 1)[0]


def test_no_fields_asked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="flow_length is 0"):
        flow_set(tmp_path, 4, 0)


# --- frames to subtract ----------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_differences_are_handed_over_as_frames(gray_video: Path, frame_numbers, cache) -> None:
    dataset = clip_dataset(
        one(gray_video), clip=SPEC, num_frames=3, train=False, modality="rgbdiff", flow_length=2, cache=cache
    )
    clip = dataset[0].clip
    assert clip.shape == (3, 9, 16, 24)
    # 30 frames, 28 stacks of 3, tick 9.33: starts 4, 14, 23.
    assert frame_numbers(clip.unflatten(1, (3, 3)).flatten(0, 1)) == [4, 5, 6, 14, 15, 16, 23, 24, 25]


def test_the_last_frame_is_repeated(gray_video: Path, frame_numbers) -> None:
    dataset = clip_dataset(one(gray_video), clip=SPEC, num_frames=1, train=False, modality="rgbdiff", flow_length=31)
    assert frame_numbers(dataset[0].clip.unflatten(1, (32, 3))[0]) == [*range(30), 29, 29]


@pytest.mark.parametrize("modality", ["rgb", "rgbdiff"])
def test_a_reversed_record_is_the_reversed_video(gray_video: Path, modality: Modality) -> None:
    """Within the segments too, so that its differences are those of the video played backwards."""
    forward, backward = (
        clip_dataset(one(gray_video, reverse=reverse), clip=SPEC, num_frames=3, train=False,
                     modality=modality, flow_length=2)[0].clip
        for reverse in (False, True)
    )  # fmt: skip
    per_segment = forward.shape[1] // 3
    frames = forward.unflatten(1, (per_segment, 3)).flatten(0, 1)
    assert torch.equal(backward.unflatten(1, (per_segment, 3)).flatten(0, 1), frames.flip(0))


# --- flips and augmentation ------------------------------------------------------------------------


def waves(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """An analytic field, pixels right and down."""
    return np.stack([3 * np.sin(columns / 5) + rows / 8, 2 * np.cos(rows / 3) - columns / 9], axis=-1)


def test_the_flip_of_a_videos_flow_is_the_flow_of_the_flipped_video() -> None:
    """In a mirror what was at column c is at W - 1 - c, and its motion to the right is one to the left."""
    rows, columns = np.mgrid[0:16, 0:24].astype(float)
    field = waves(columns, rows)
    mirrored = waves(23 - columns, rows) * (-1, 1)
    stored, expected = (flow_to_bytes(values, 20.0).transpose(2, 0, 1) for values in (field, mirrored))
    flipped = flip(stored, "flow")
    assert flipped[0].std() > 5
    # Bytes are rounded with halves up, in the mirror too: x may be one byte off where it is on a half.
    assert np.abs(flipped[0].astype(int) - expected[0]).max() <= 1
    np.testing.assert_array_equal(flipped[1], expected[1])
    back = bytes_to_flow(flipped.transpose(1, 2, 0), 20.0)
    assert np.abs(back - mirrored).max() <= 20 / 255 + 1e-5


def test_flips_negate_every_x_and_no_y() -> None:
    clip = torch.randint(0, 256, (2, 10, 3, 5), dtype=torch.uint8)
    expected = torch.empty_like(clip)
    for t in range(2):
        for channel in range(10):
            for row in range(3):
                for column in range(5):
                    value = int(clip[t, channel, row, 4 - column])
                    expected[t, channel, row, column] = 255 - value if channel % 2 == 0 else value
    kept = clip.clone()
    frames = clip.numpy()
    np.testing.assert_array_equal(flip(frames, "flow"), expected)
    np.testing.assert_array_equal(flip(flip(frames, "flow"), "flow"), clip)
    assert torch.equal(clip, kept)
    np.testing.assert_array_equal(flip(frames, "rgbdiff"), clip.flip(-1))


def test_fields_flipped_and_then_stacked_are_the_same_as_the_other_way_round() -> None:
    fields = np.random.default_rng(0).integers(0, 256, (6, 2, 3, 5), dtype=np.uint8)
    stacked = stack_channels(fields, 2)
    assert stacked.shape == (2, 6, 3, 5)
    np.testing.assert_array_equal(stacked[1, 4], fields[5, 0])
    np.testing.assert_array_equal(flip(stacked, "flow"), stack_channels(flip(fields, "flow"), 2))


def test_training_flips_flow_and_swaps_the_sides(tmp_path: Path) -> None:
    """x = 200 (to the right) becomes 55 (to the left), and "right" becomes "left"."""
    place = write_fields(tmp_path, "v", [np.full((16, 16, 2), (200, 90), np.uint8)] * 4, "xy")
    records = RecordSet((VideoRecord(place, (1,), "v"),), ("go left", "go right"))
    dataset = clip_dataset(records, clip=SPEC, num_frames=2, train=True, flip="swap", modality="flow", flow_length=2)
    seen = set()
    for epoch in range(20):
        sample = dataset[(epoch, 0)]
        assert sample.clip.shape == (2, 4, 16, 16)
        values = sample.clip.flatten(2)
        assert torch.equal(values.amin(2), values.amax(2))
        seen.add((tuple(values[0, :, 0].tolist()), int(sample.target)))
    assert seen == {((200, 90, 200, 90), 1), ((55, 90, 55, 90), 0)}


def test_what_is_erased_of_flow_does_not_move(tmp_path: Path) -> None:
    place = write_fields(tmp_path, "v", [np.full((16, 16, 2), 200, np.uint8)] * 4, "xy")
    dataset = flow_set(place, 2, 2, train=True, augment=AugmentConfig(random_erasing=1.0))
    assert set(dataset[0].clip.unique().tolist()) == {128, 200}
    frames = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8)
    erased = augment_clip(frames, AugmentConfig(random_erasing=1.0), np.random.default_rng(0))
    assert set(erased.unique().tolist()) == {0, 200}


def test_colors_of_frames_to_subtract_change_alike(gray_video: Path) -> None:
    """One draw for all frames: what was equal stays equal, so that jitter makes no motion."""
    dataset = clip_dataset(
        one(gray_video), clip=SPEC, num_frames=1, train=True, modality="rgbdiff", flow_length=40,
        augment=AugmentConfig(color_jitter=0.4),
    )  # fmt: skip
    plain = clip_dataset(one(gray_video), clip=SPEC, num_frames=1, train=True, modality="rgbdiff", flow_length=40)
    clip = dataset[0].clip.unflatten(1, (41, 3))[0]
    assert torch.equal(clip[30], clip[40])  # the last frame, repeated
    assert not torch.equal(clip, plain[0].clip.unflatten(1, (41, 3))[0])
