"""The paths that clips of TrajectoryNet carry: how far each pixel moves to the next frame, and to the one before."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.motions import moving_video
from tests.helpers.stored_flow import write_fields
from vsn.config import ClipSpec, ConfigError, DataConfig, EvalConfig, ModelConfig, Recipe
from vsn.data.dataset import VideoDataset
from vsn.data.embedded.exact import EmbeddedFlow
from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.data.extra import open_extra
from vsn.data.flow.extract import FlowSettings, extract_flow
from vsn.data.flow.stored import open_flow
from vsn.data.flow.values import flow_to_bytes
from vsn.data.frames import flip, resize_short_side
from vsn.data.open import open_split
from vsn.data.part import VideoPart
from vsn.data.paths import PathPlanes
from vsn.data.per_video import videos_of_data_set
from vsn.data.readers import read_records
from vsn.data.video import Part, VideoError
from vsn.inference.inputs import views_of_video

PLANES = ("path-x", "path-y", "path-x", "path-y")
VIDEO = VideoPart(Path("video"))
NAME = "trajectory_resnet18_thin"


def motion_of(planes: np.ndarray | torch.Tensor, bound: float) -> np.ndarray:
    """Pixels that bytes stand for."""
    return (np.asarray(planes, np.float64) - 128) / 127.5 * bound


def stored_pair(folder: Path, forward: list[np.ndarray], backward: list[np.ndarray]):
    """Open fields in pixels, `(H, W, 2)`, that are stored with a bound of 20."""
    places = [
        write_fields(folder / name, "video", [flow_to_bytes(field, 20.0) for field in fields], "xy", suffix=".png")
        for name, fields in (("f", forward), ("b", backward))
    ]
    return lambda shown: tuple(open_flow(place) for place in places)


def constant(x: float, y: float, number: int, size: tuple[int, int] = (12, 16)) -> list[np.ndarray]:
    return [np.full((*size, 2), (x, y))] * number


def test_fields_between_the_frames_of_a_clip_are_chained(tmp_path: Path) -> None:
    paths = PathPlanes(stored_pair(tmp_path, constant(2, -1, 8), constant(-2, 1, 8)), flow_bound=20.0, path_bound=30.0)
    indices = np.array([[0, 3, 4, 8]])
    planes = paths.planes(VIDEO, indices, num_video_frames=9, size=(12, 16))
    assert (planes.shape, planes.dtype) == ((1, 4, 12, 16, 4), np.uint8)
    steps_ahead, steps_back = [3, 1, 4, 0], [0, 3, 1, 4]
    for t in range(4):
        expected = [2 * steps_ahead[t], -steps_ahead[t], -2 * steps_back[t], steps_back[t]]
        # Half a step of the planes, and half a step of every field.
        error = np.abs(motion_of(planes[0, t], 30.0) - expected).max(axis=(0, 1))
        assert (error <= 0.12 + 0.08 * np.array([steps_ahead[t]] * 2 + [steps_back[t]] * 2)).all()
    assert (planes[0, 3, ..., :2] == 128).all()
    assert (planes[0, 0, ..., 2:] == 128).all()


def test_still_points_stay_where_they_are(tmp_path: Path) -> None:
    still = constant(0, 0, 30)
    paths = PathPlanes(stored_pair(tmp_path, still, still), flow_bound=20.0, path_bound=4.0)
    planes = paths.planes(VIDEO, np.array([[0, 30]]), num_video_frames=31, size=(12, 16))
    assert (planes == 128).all()


def test_a_field_is_read_where_the_one_before_ends(tmp_path: Path) -> None:
    # Everything moves away from the middle, a fifth further in each frame: after three frames 1.2^3 times as far.
    rows, columns = np.mgrid[:24, :32] - np.array([11.5, 15.5])[:, None, None]
    outward = np.stack([columns, rows], axis=2)
    paths = PathPlanes(
        stored_pair(tmp_path, [0.2 * outward] * 3, [(1 / 1.2 - 1) * outward] * 3), flow_bound=20.0, path_bound=20.0
    )
    planes = paths.planes(VIDEO, np.array([[0, 3]]), num_video_frames=4, size=(24, 32))
    inner = slice(8, 16), slice(10, 22)  # points that stay in the frame
    there = motion_of(planes[0, 0, ..., :2], 20.0)
    np.testing.assert_allclose(there[inner], ((1.2**3 - 1) * outward)[inner], atol=0.4)
    back = motion_of(planes[0, 1, ..., 2:], 20.0)
    np.testing.assert_allclose(back, (1.2**-3 - 1) * outward, atol=0.4)


def test_motions_are_in_pixels_of_the_frames_not_of_the_flow(tmp_path: Path) -> None:
    paths = PathPlanes(stored_pair(tmp_path, constant(3, 2, 1), constant(-3, -2, 1)), flow_bound=20.0, path_bound=30.0)
    planes = paths.planes(VIDEO, np.array([[0, 1]]), num_video_frames=2, size=(24, 32))
    np.testing.assert_allclose(motion_of(planes[0, 0, ..., :2], 30.0), np.broadcast_to([6, 4], (24, 32, 2)), atol=0.3)


def test_longer_paths_are_clipped_and_other_orders_take_the_other_direction(tmp_path: Path) -> None:
    paths = PathPlanes(stored_pair(tmp_path, constant(5, 0, 4), constant(-5, 0, 4)), flow_bound=20.0, path_bound=10.0)
    planes = paths.planes(VIDEO, np.array([[4, 2, 2, 0]]), num_video_frames=5, size=(12, 16))
    ahead, before = motion_of(planes[0, ..., 0], 10.0), motion_of(planes[0, ..., 2], 10.0)
    np.testing.assert_allclose(ahead[:, 6, 8], [-10, 0, -10, 0], atol=0.2)
    np.testing.assert_allclose(before[:, 6, 8], [0, 10, 0, 10], atol=0.2)
    far = paths.planes(VIDEO, np.array([[0, 4]]), num_video_frames=5, size=(12, 16))
    assert (far[0, 0, ..., 0] == 255).all()


@pytest.mark.parametrize(
    ("num_video_frames", "size", "message"),
    [(12, (12, 16), "8 fields .* 12 frames"), (9, (16, 16), "12x16 .* 16x16"), (6, (12, 16), "8 fields .* 6 frames")],
)
def test_flow_of_another_video_is_refused(tmp_path: Path, num_video_frames, size, message) -> None:
    paths = PathPlanes(stored_pair(tmp_path, constant(1, 0, 8), constant(1, 0, 8)), flow_bound=20.0, path_bound=30.0)
    with pytest.raises(VideoError, match=message):
        paths.planes(VIDEO, np.array([[0, 4]]), num_video_frames=num_video_frames, size=size)


# Crops, sizes and flips


def test_a_flip_mirrors_paths_and_their_direction() -> None:
    frames = torch.randint(0, 256, (2, 7, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames[0, 3:, 0, 0] = 128
    flipped = torch.from_numpy(flip(frames.numpy(), extra=PLANES))
    assert torch.equal(flipped[:, :3], frames[:, :3].flip(-1))
    assert torch.equal(flipped[:, [4, 6]], frames[:, [4, 6]].flip(-1))
    mirrored = 256 - frames[:, [3, 5]].int().flip(-1)
    assert torch.equal(flipped[:, [3, 5]].int(), mirrored.clamp(max=255))
    assert (flipped[0, 3:, 0, -1] == 128).all()


def test_paths_grow_with_the_frame() -> None:
    frames = torch.full((1, 7, 8, 12), 128, dtype=torch.uint8)
    frames[:, 3], frames[:, 4] = 128 + 10, 128 - 6
    larger = resize_short_side(frames.numpy(), 16, extra=PLANES)
    assert larger.shape == (1, 7, 16, 24)
    assert [int(larger[0, channel, 8, 8]) for channel in range(3, 7)] == [148, 116, 128, 128]


# From videos to clips


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Textures that move to the right, with flow stored in both directions at half the size of the clips."""
    root = tmp_path_factory.mktemp("moving")
    for split in ("train", "val"):
        for label, speed in (("fast", 3.0), ("slow", 1.0)):
            (root / split / label).mkdir(parents=True)
            moving_video(root / split / label / "1.mp4", 11, right=speed, size=(48, 64))
    recipe = recipe_of(root)
    for backward in (False, True):
        settings = FlowSettings(short_side=24, backward=backward)
        out = root / ("flow_backward" if backward else "flow")
        extract_flow(videos_of_data_set(recipe.data, out), out, settings, num_workers=1, progress=False)
    return root


def recipe_of(root: Path, **data: object) -> Recipe:
    return Recipe(
        model=ModelConfig(name=NAME, num_frames=5, flow_short_side=24),
        clip=ClipSpec(short_side=48, crop_size=48),
        data=DataConfig(root=str(root), num_workers=0, **data),
    )


@pytest.mark.parametrize("order", ["forward", "reversed"])
def test_paths_of_videos_follow_what_moves(moving: Path, order) -> None:
    dataset = open_split(recipe_of(moving), "val", view=EvalConfig(protocol="center", order=order))
    for index, speed in ((0, 3.0), (1, 1.0)):
        clip = dataset[index].clip
        assert clip.shape == (5, 7, 48, 48)
        # Frames 1, 3, 5, 7, 9: two apart.
        moved = motion_of(clip[:, 3:, 8:-8, 12:-12], 64.0).mean(axis=(2, 3))
        sign = 1 if order == "forward" else -1
        np.testing.assert_allclose(moved[:-1, 0], 2 * speed * sign, atol=0.6)
        np.testing.assert_allclose(moved[1:, 2], -2 * speed * sign, atol=0.6)
        np.testing.assert_allclose(moved[:, [1, 3]], 0, atol=0.6)
        assert not moved[-1, :2].any()
        assert not moved[0, 2:].any()


def test_paths_computed_for_a_video_are_those_that_are_stored(moving: Path) -> None:
    recipe, view = recipe_of(moving), EvalConfig(protocol="3crop")
    stored = open_split(recipe, "val", view=view)[0].clip
    np.testing.assert_array_equal(views_of_video(moving / "val/fast/1.mp4", recipe, view), stored)
    part = views_of_video(moving / "val/fast/1.mp4", recipe, view, part=Part(0.3))
    assert part.shape == stored.shape
    assert not np.array_equal(part, stored)


def test_the_memory_cache_holds_the_flow_too(moving: Path) -> None:
    view = EvalConfig(protocol="center")
    from_disk = open_split(recipe_of(moving), "val", view=view)
    in_memory = open_split(recipe_of(moving, cache="memory"), "val", view=view)
    assert in_memory.preload() == []
    for index in range(2):
        assert torch.equal(in_memory[index].clip, from_disk[index].clip)


def test_a_worker_that_is_not_forked_gets_the_paths(moving: Path) -> None:
    dataset = open_split(recipe_of(moving), "val", view=EvalConfig(protocol="center"))
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1].clip, dataset[1].clip)


def test_training_clips_are_flipped_with_their_paths(moving: Path) -> None:
    recipe = recipe_of(moving, flip="random")
    records = read_records(recipe.data, "train")
    extra, note = open_extra(recipe, records)
    assert "Backward:" in note
    dataset = VideoDataset(records, recipe, train=True, extra=extra)
    signs = set()
    for epoch in range(12):
        moved = motion_of(dataset[(epoch, 0)].clip[:, 3:], 64.0)[:-1, 0].mean()
        assert 4 < abs(moved) < 10
        signs.add(moved > 0)
    assert signs == {True, False}
    with pytest.raises(ValueError, match="paths"):
        VideoDataset(records, recipe, train=True)


def test_the_embedded_set_has_exact_paths(tmp_path: Path) -> None:
    counts = {"num_train_per_class": 0, "num_val_per_class": 0, "num_test_per_class": 1}
    root = write_dataset(
        tmp_path / "videos",
        SynthSpec(**counts, groups=("horizontal",), num_seconds=(1.5, 2)),
        num_workers=1,
        progress=False,
    )
    recipe = recipe_of(root, source="synthetic")
    dataset = open_split(recipe, "test", view=EvalConfig(protocol="center"))
    for index, sign in ((0, 1), (1, -1)):  # left to right, right to left
        clip = dataset[index].clip
        vivid = clip[:-1, :3].amax(1).int() - clip[:-1, :3].amin(1).int() > 150
        assert vivid.sum() > 50
        to_the_right = motion_of(clip[:-1, 3], 64.0)[vivid.numpy()]
        assert np.median(sign * to_the_right) > 5
    path = dataset.records[0].path
    np.testing.assert_array_equal(views_of_video(path, recipe, EvalConfig(protocol="center")), dataset[0].clip)
    with pytest.raises(ConfigError, match="not one of the videos"):
        EmbeddedFlow(root, root / "test" / "other.mp4", bound=20.0, backward=False)


def test_missing_and_wrong_flow_is_refused(moving: Path, tmp_path: Path) -> None:
    recipe = recipe_of(moving)
    records = read_records(recipe.data, "val")
    with pytest.raises(ConfigError, match=r"nowhere.*--backward"):
        open_extra(recipe_of(moving, flow_backward="nowhere"), records)
    with pytest.raises(ConfigError, match="direction is 'forward' there"):
        open_extra(recipe_of(moving, flow_backward="flow"), records)
    with pytest.raises(ConfigError, match="direction is 'backward' there"):
        open_extra(recipe_of(moving, flow="flow_backward"), records)
    with pytest.raises(ConfigError, match="no stored flow was found"):
        open_extra(replace(recipe, data=replace(recipe.data, root=str(tmp_path))), records)
