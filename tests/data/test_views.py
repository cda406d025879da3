from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from tests.helpers.clips import clip_dataset
from vsn.config import ClipSpec, ConfigError, EvalConfig, ModelConfig, Protocol
from vsn.data.dataset import VideoDataset
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.sampling import stack_indices
from vsn.data.video import open_video
from vsn.data.views import PROTOCOLS, clip_indices, crop_views, num_test_frames

SPEC = ClipSpec(short_side=32, crop_size=24)


def numbered(height: int, width: int) -> np.ndarray:
    """Two frames whose pixels are all different: channel 0 the row, channel 1 the column."""
    rows, columns = np.indices((height, width))
    return np.broadcast_to(np.stack([rows, columns, rows]).astype(np.uint8), (2, 3, height, width))


def corners(view: np.ndarray) -> tuple[int, int, int, int]:
    """First row, first column, last row, last column of the pixels a view shows."""
    first, last = view[0, :2, 0, 0].tolist(), view[0, :2, -1, -1].tolist()
    return (*first, *last)


def test_every_protocol_has_a_plan_and_its_number_of_views() -> None:
    assert set(PROTOCOLS) == set(get_args(Protocol))
    assert {name: plan.num_views for name, plan in PROTOCOLS.items()} == {
        "fcn": 1, "fcn-windows": 1, "center": 1, "3crop": 3, "3crop-2clip": 6, "10crop": 10, "25x10": 10,
        "dense-10clip-3crop": 30,
    }  # fmt: skip


def test_whole_and_center() -> None:
    frames = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    (whole,) = crop_views(frames.numpy(), SPEC, "fcn")
    np.testing.assert_array_equal(whole, tv.resize(frames, [32, 42], antialias=True))
    np.testing.assert_array_equal(crop_views(frames.numpy(), SPEC, "center")[0], whole[..., 4:28, 9:33])


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((32, 48), [(0, 0, 31, 31), (0, 16, 31, 47), (0, 8, 31, 39)]),
        ((48, 32), [(0, 0, 31, 31), (16, 0, 47, 31), (8, 0, 39, 31)]),  # a phone held upright
        ((32, 32), [(0, 0, 31, 31)] * 3),
    ],
)
def test_three_squares_along_the_longer_side(size: tuple[int, int], wanted: list) -> None:
    assert [corners(view) for view in crop_views(numbered(*size), SPEC, "3crop")] == wanted


def test_ten_crops_are_corners_and_center_and_their_mirror_images() -> None:
    views = crop_views(numbered(32, 48), SPEC, "10crop")
    assert [corners(view) for view in views[:5]] == [
        (0, 0, 23, 23), (0, 24, 23, 47), (8, 0, 31, 23), (8, 24, 31, 47), (4, 12, 27, 35),
    ]  # fmt: skip
    np.testing.assert_array_equal(views[5:], np.flip(views[:5], -1))


def test_mirrored_flow_goes_the_other_way() -> None:
    field = np.full((1, 2, 32, 40), 128, np.uint8)
    field[:, 0] = 200  # to the right
    views = np.stack(crop_views(field, SPEC, "10crop", "flow"))
    assert np.unique(views[:5, 0, 0]).tolist() == [200]
    assert np.unique(views[5:, 0, 0]).tolist() == [55]
    assert np.unique(views[:, 0, 1]).tolist() == [128]


@given(
    protocol=st.sampled_from(get_args(Protocol)), num=st.integers(1, 300), num_frames=st.integers(1, 64),
    consecutive=st.integers(1, 6),
)  # fmt: skip
def test_clips_are_inside_the_video(protocol: Protocol, num: int, num_frames: int, consecutive: int) -> None:
    frames = num_test_frames(ModelConfig(name="tsn_resnet50", num_frames=num_frames), protocol)
    starts = clip_indices(protocol, ClipSpec(), num, frames, video_rate=25.0, num_consecutive=consecutive)
    plan = PROTOCOLS[protocol]
    assert starts.shape == ({"one": 1, "two": 2, "dense": 10}[plan.clips], plan.num_frames or num_frames)
    stacked = stack_indices(starts, num, consecutive)
    assert stacked.min() >= 0
    assert stacked.max() < num
    if plan.clips != "dense":  # dense clips go round the end
        assert (np.diff(starts, axis=1) >= 0).all()


def test_the_clips_of_each_protocol() -> None:
    def of(protocol: Protocol, num: int, num_frames: int, **options: int) -> list:
        return clip_indices(protocol, ClipSpec(), num, num_frames, video_rate=25.0, **options).tolist()

    assert of("3crop", 32, 4) == of("fcn", 32, 4) == [[4, 12, 20, 28]]
    assert of("3crop-2clip", 32, 4) == [[4, 12, 20, 28], [0, 8, 16, 24]]
    assert of("3crop-2clip", 32, 4, num_consecutive=5) == [[3, 10, 17, 24], [0, 7, 14, 21]]
    assert of("25x10", 100, 25) == [list(range(2, 100, 4))]
    assert of("25x10", 104, 25, num_consecutive=5) == [list(range(2, 100, 4))]
    assert of("fcn", 20, 4, num_consecutive=5) == of("center", 20, 4, num_consecutive=5) == [[2, 6, 10, 14]]
    at_rate = ClipSpec(sampling="rate", frames_per_second=5)
    assert clip_indices("fcn", at_rate, 100, 4, video_rate=25.0).tolist() == [[42, 47, 52, 57]]
    assert of("dense-10clip-3crop", 73, 4) == [[i, i + 16, i + 32, i + 48] for i in range(10)]


def test_a_model_that_keeps_its_frames_cannot_take_25() -> None:
    tsn, vsn = (ModelConfig(name=name, num_frames=8) for name in ("tsn_resnet50", "vsn_resnet50"))
    assert num_test_frames(tsn, "25x10") == 25
    assert num_test_frames(vsn, "10crop") == 8
    with pytest.raises(ConfigError, match=r"'25x10'.*T=25.*T=8"):
        num_test_frames(vsn, "25x10")


def test_samples_of_several_views(tiny_data: Path) -> None:
    path = tiny_data / "wave" / "0.mp4"
    records = RecordSet((VideoRecord(path, (0,), "a"),), ("wave",))
    frames = open_video(path, short_side=32).all_frames()
    video = frames.transpose(0, 3, 1, 2)
    dataset = clip_dataset(records, clip=SPEC, num_frames=4, train=False, protocol="3crop-2clip")
    clip = dataset[0].clip
    assert clip.shape == (6, 4, 3, 32, 32)
    for number, starts in enumerate(clip_indices("3crop-2clip", SPEC, len(video), 4, video_rate=0)):
        wanted = crop_views(video[starts], SPEC, "3crop")
        np.testing.assert_array_equal(clip[3 * number : 3 * number + 3], np.stack(wanted))
    view = EvalConfig(protocol="3crop-2clip", order="reversed")
    reversed_order = VideoDataset(records, dataset.recipe, train=False, view=view)
    assert torch.equal(reversed_order[0].clip, clip.flip(1))  # each clip by itself
    tsn = clip_dataset(records, clip=SPEC, num_frames=4, train=False, protocol="25x10", name="tsn_resnet50")
    assert tsn[0].clip.shape == (10, 25, 3, 24, 24)
