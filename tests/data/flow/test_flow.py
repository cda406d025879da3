"""Stored flow: what the bytes mean, the layouts it is read from, and what is written."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.packs import damage
from tests.helpers.stored_flow import LAYOUTS, Layout, write_fields
from vsn.config import ConfigError, ModelConfig, Recipe
from vsn.data.flow.stored import FlowFolderReader, open_flow, write_flow_file, write_flow_folder
from vsn.data.flow.values import (
    FlowMetadata,
    bytes_to_flow,
    check_flow_metadata,
    expected_flow,
    flow_to_bytes,
    read_flow_metadata,
    write_flow_metadata,
)
from vsn.data.packing.shards import shard_faults
from vsn.data.video import VideoError


def noise(num_fields: int, height: int = 16, width: int = 24) -> list[np.ndarray]:
    """Fields no two of which are alike."""
    values = np.random.default_rng(0).integers(0, 256, (num_fields, height, width, 2), dtype=np.uint8)
    return list(values)


def plain(num_fields: int, height: int = 16, width: int = 24) -> list[np.ndarray]:
    """Field i has x = 100 + i and y = 50 + i everywhere, which survives JPEG to the byte."""
    return [np.full((height, width, 2), (100 + i, 50 + i), np.uint8) for i in range(num_fields)]


# --- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "byte"),
    [(-20, 0), (20, 255), (0, 128), (-35.5, 0), (1e9, 255), (10, 191), (-10, 64), (1 / 12.75, 128), (4, 153)],
)
def test_bytes_are_those_of_the_field(pixels: float, byte: int) -> None:
    """round(255 (v + 20) / 40), so that 0 is 127.5, rounded up."""
    assert flow_to_bytes(np.array([pixels]), 20.0).tolist() == [byte]


@given(st.floats(-20, 20), st.sampled_from([5.0, 20.0, 64.0]))
def test_bytes_keep_a_motion_to_half_a_step(pixels: float, bound: float) -> None:
    motion = np.array([pixels * bound / 20])
    stored = bytes_to_flow(flow_to_bytes(motion, bound), bound)
    assert stored.dtype == np.float32
    assert abs(stored[0] - motion[0]) <= bound / 255 + 1e-5


def test_255_less_a_byte_is_the_motion_negated() -> None:
    stored = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(bytes_to_flow(255 - stored, 20.0), -bytes_to_flow(stored, 20.0), atol=1e-5)


def test_motions_that_are_none() -> None:
    with pytest.raises(ValueError, match="NaN"):
        flow_to_bytes(np.array([0.0, np.nan]), 20.0)
    with pytest.raises(ValueError, match="bound is 0"):
        flow_to_bytes(np.array([0.0]), 0)


# --- what flow.json says ---------------------------------------------------------------------------


def test_facts_are_read_back(tmp_path: Path) -> None:
    assert read_flow_metadata(tmp_path) is None
    write_flow_metadata(tmp_path, FlowMetadata(bound=15.0, method="farneback"))
    assert json.loads((tmp_path / "flow.json").read_text()) == {
        "bound": 15.0,
        "method": "farneback",
        "zero": 128,
    }
    assert read_flow_metadata(tmp_path) == FlowMetadata(15.0, "farneback", 128)


@pytest.mark.parametrize("text", ["", "[]", '{"bound": 20}', '{"bound": "x", "method": "", "zero": 0}'])
def test_facts_that_say_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "flow.json").write_text(text)
    with pytest.raises(ConfigError, match=r"flow\.json"):
        read_flow_metadata(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "JSONDecodeError: Expecting"),
        ("[]", "AttributeError: 'list'"),
        ('{"bound": 20}', "KeyError: 'method'"),
    ],
)
def test_why_facts_say_nothing_is_said(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "flow.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"flow.json is invalid ({why}")):
        read_flow_metadata(tmp_path)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (FlowMetadata(bound=15.0), r"bound is 15\.0.*model\.flow_bound is 20\.0"),
        (FlowMetadata(method="raft"), r"method is 'raft'.*model\.flow_method is 'tv-l1'"),
        (FlowMetadata(short_side=64), r"short_side is 64.*model\.flow_short_side.*clip\.short_side, is 256"),
        (FlowMetadata(by="index"), r"by is 'index'.*clip\.by is 'time'"),
        (FlowMetadata(zero=127), r"zero = 127.*128"),
    ],
)  # fmt: skip
def test_flow_stored_otherwise_is_refused(stored: FlowMetadata, message: str) -> None:
    wanted = expected_flow(Recipe())
    check_flow_metadata("flow", FlowMetadata(short_side=256), wanted)
    check_flow_metadata("flow", FlowMetadata(), wanted)  # whose short side is not known
    with pytest.raises(ConfigError, match=message):
        check_flow_metadata("flow", stored, wanted)


def test_the_size_flow_was_computed_at_is_read_back(tmp_path: Path) -> None:
    write_flow_metadata(tmp_path, FlowMetadata(short_side=64))
    assert read_flow_metadata(tmp_path) == FlowMetadata(short_side=64)
    recipe = Recipe(model=ModelConfig(flow_short_side=340))
    check_flow_metadata(tmp_path, FlowMetadata(short_side=340), expected_flow(recipe))


def test_the_model_says_how_its_flow_is_to_be_stored() -> None:
    recipe = Recipe(model=ModelConfig(flow_bound=15.0, flow_method="farneback"))
    assert expected_flow(recipe) == FlowMetadata(15.0, "farneback", short_side=recipe.clip.short_side, by="time")


# --- layouts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("layout", ["xy", "id-xy", "rg"])
def test_pictures_are_read_to_the_byte(tmp_path: Path, layout: Layout, start: int) -> None:
    fields = noise(5)
    place = write_fields(tmp_path, "7", fields, layout, start=start, suffix=".png")
    assert FlowFolderReader(place).start == start
    flow = open_flow(place)
    assert (flow.num_frames, flow.frames_per_second) == (5, 0.0)
    read = flow.frames_at([4, 0, 0, 2])
    assert read.dtype == np.uint8
    assert np.array_equal(read, np.stack(fields)[[4, 0, 0, 2]])
    assert np.array_equal(flow.all_frames(), np.stack(fields))
    assert all(np.array_equal(*pair) for pair in zip(flow, fields, strict=True))


@pytest.mark.parametrize("indices", [[], [-1], [3]])
def test_indices_outside_the_flow(tmp_path: Path, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="0 to 2"):
        open_flow(write_fields(tmp_path, "7", plain(3), "xy")).frames_at(indices)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_jpegs_are_read(tmp_path: Path, layout: Layout) -> None:
    place = write_fields(tmp_path, "7", plain(5), layout)
    read = open_flow(place).all_frames()
    assert read.shape == (5, 16, 24, 2)
    difference = np.abs(read.astype(int) - np.stack(plain(5)))
    assert difference.max() <= (2 if layout == "rg" else 0)  # colors are converted, which rounds


def test_a_color_jpeg_of_one_axis_counts_as_gray(tmp_path: Path) -> None:
    for axis, value in (("x", 200), ("y", 31)):
        Image.new("RGB", (24, 16), (value,) * 3).save(tmp_path / f"flow_{axis}_00001.jpg", quality=100)
    assert np.array_equal(open_flow(tmp_path).all_frames()[0, 3, 5], [200, 31])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_resizing_leaves_the_values_of_motions(tmp_path: Path, layout: Layout) -> None:
    place = write_fields(tmp_path, "7", plain(2), layout)
    read = open_flow(place, short_side=8).all_frames()
    assert read.shape == (2, 8, 12, 2)
    assert np.abs(read.astype(int) - np.stack(plain(2, 8, 12))).max() <= (2 if layout == "rg" else 0)


def test_flow_beside_frames_is_found(tmp_path: Path) -> None:
    """TSN keeps img_00001.jpg, flow_x_00001.jpg and flow_y_00001.jpg in one folder."""
    write_fields(tmp_path, "v", noise(3), "xy", suffix=".png")
    Image.new("RGB", (24, 16)).save(tmp_path / "v" / "img_00001.jpg")
    assert np.array_equal(open_flow(tmp_path / "v").all_frames(), np.stack(noise(3)))


def test_how_flow_is_stored(tmp_path: Path) -> None:
    assert [open_flow(write_fields(tmp_path / layout, "7", plain(3), layout)).storage for layout in LAYOUTS] == [
        "pictures from flow_x_00001.jpg and flow_y_00001.jpg on",
        "pictures from 000007-x_00001.jpg and 000007-y_00001.jpg on",
        "pictures from 000001.jpg on, red for x and green for y",
        ".vsnflow files, 3 fields in the first",
    ]


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (("flow_x_00002.jpg", "flow_y_00002.jpg"), "the x of flow field 2 is missing: there are 3 pictures of x"),
        (("flow_y_00004.jpg",), "the y of flow field 4 is missing: there are 4 pictures of x and 3 of y"),
        (("flow_x_00001.jpg",), "the x of flow field 1 is missing"),
    ],
)  # fmt: skip
def test_fields_missing(tmp_path: Path, remove: tuple[str, ...], message: str) -> None:
    place = write_fields(tmp_path, "v", plain(4), "xy")
    for name in remove:
        (place / name).unlink()
    with pytest.raises(VideoError, match=message):
        open_flow(place).all_frames()


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    """A video of one frame has no flow: an extraction leaves an empty folder, or none."""
    with pytest.raises(VideoError, match=r"no flow: .*one frame"):
        open_flow(tmp_path).all_frames()
    with pytest.raises(VideoError, match=r"absent: .*No such file"):
        open_flow(tmp_path / "absent").all_frames()


def test_frames_are_no_flow_of_layout_xy(tmp_path: Path) -> None:
    place = write_fields(tmp_path, "v", plain(2), "rg")
    with pytest.raises(VideoError, match=r"flow_x_00001\.jpg"):
        open_flow(place, layout="xy")
    with pytest.raises(VideoError, match=r"\.vsnflow.*data\.flow_layout"):
        open_flow(place, layout="file")


def test_two_kinds_of_flow(tmp_path: Path) -> None:
    write_fields(tmp_path, "000007", plain(2), "xy")
    place = write_fields(tmp_path, "7", plain(2), "id-xy")
    with pytest.raises(VideoError, match=r"000007-x_\.\.\., flow_x_\.\.\."):
        open_flow(place).all_frames()


def test_the_same_field_twice(tmp_path: Path) -> None:
    place = write_fields(tmp_path, "v", plain(2), "xy")
    (place / "flow_x_1.jpg").write_bytes(b"")
    with pytest.raises(VideoError, match=r"flow_x_00001\.jpg and flow_x_1\.jpg"):
        open_flow(place).all_frames()


def test_x_and_y_of_different_sizes(tmp_path: Path) -> None:
    place = write_fields(tmp_path, "v", plain(1), "xy")
    Image.new("L", (24, 18)).save(place / "flow_y_00001.jpg")
    with pytest.raises(VideoError, match=r"flow_x_00001\.jpg has 16x24 .*flow_y_00001\.jpg has 18x24"):
        open_flow(place).all_frames()


def test_a_damaged_picture(tmp_path: Path) -> None:
    place = write_fields(tmp_path, "v", plain(1), "xy")
    (place / "flow_y_00001.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(VideoError, match=r"flow_y_00001\.jpg is (damaged|not a JPEG)"):
        open_flow(place).all_frames()


# --- files of our own ------------------------------------------------------------------------------


def test_a_file_gives_back_what_gray_jpeg_keeps(tmp_path: Path) -> None:
    """x and y do not leak into one another, at a height that is no multiple of a JPEG's blocks too."""
    steps = np.arange(20, dtype=np.uint8)[:, None] * np.ones((1, 24), np.uint8)
    fields = [np.dstack([40 + 2 * steps, np.full_like(steps, 200 - i)]) for i in range(4)]
    path = tmp_path / "a" / "v.vsnflow"
    assert write_flow_file(path, iter(fields), video_id="a/v", frames_per_second=12.5, quality=95) == 4
    flow = open_flow(path)
    assert (flow.num_frames, flow.frames_per_second) == (4, 12.5)
    read = flow.frames_at([3, 1, 3])
    assert np.abs(read.astype(int) - np.stack(fields)[[3, 1, 3]]).max() <= 4
    assert np.array_equal(read[0], read[2])
    assert shard_faults(path) == []


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    def broken():
        yield plain(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_flow_file(tmp_path / "v.vsnflow", broken(), video_id="v")
    with pytest.raises(KeyboardInterrupt):
        write_flow_folder(tmp_path / "v", broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "no field"),
        ([np.zeros((16, 24, 3), np.uint8)], r"uint8 \(H, W, 2\).*uint8 \(16, 24, 3\)"),
        ([np.zeros((16, 24, 2))], r"float64 \(16, 24, 2\)"),
        ([*plain(1), *plain(1, 16, 16)], r"\(16, 24, 2\), as the first, .*\(16, 16, 2\)"),
        ([np.zeros((40000, 1, 2), np.uint8)], "40000x1"),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_written(tmp_path: Path, fields: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_flow_file(tmp_path / "v.vsnflow", fields, video_id="v")
    assert list(tmp_path.iterdir()) == []


def test_another_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"v\.bin: .*\.vsnflow"):
        write_flow_file(tmp_path / "v.bin", plain(1), video_id="v")


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "v.vsnflow"
    write_flow_file(path, noise(3), video_id="v")
    damage(path, 200)
    assert open_flow(path).frames_at([2]).shape == (1, 16, 24, 2)  # the others can be read
    with pytest.raises(VideoError, match=r"v\.vsnflow: field 0 is damaged .*vsn flow extract"):
        open_flow(path).all_frames()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(VideoError, match=r"v\.vsnflow: "):
        open_flow(path).all_frames()


def test_a_packed_set_is_no_flow(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.vsnflow"
    path.write_bytes(next(packed.glob("*.vsnpack")).read_bytes())
    with pytest.raises(VideoError, match="not flow"):
        open_flow(path).all_frames()


def test_a_folder_is_written_as_tsn_stores_it(tmp_path: Path) -> None:
    assert write_flow_folder(tmp_path / "v", plain(3)) == 3
    assert sorted(path.name for path in (tmp_path / "v").iterdir()) == [
        f"flow_{axis}_{number:05d}.jpg" for axis in "xy" for number in (1, 2, 3)
    ]
    with Image.open(tmp_path / "v" / "flow_x_00002.jpg") as picture:
        assert (picture.mode, picture.size) == ("L", (24, 16))
    assert np.array_equal(open_flow(tmp_path / "v").all_frames(), np.stack(plain(3)))
    with pytest.raises(FileExistsError, match="v exists"):
        write_flow_folder(tmp_path / "v", plain(3))
    with pytest.raises(ValueError, match="no field"):
        write_flow_folder(tmp_path / "w", [])
