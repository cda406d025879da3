import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vsn.config import ConfigError
from vsn.data.video import VideoError, VideoMetadata, frame_folders, open_video
from vsn.data.video.frame_folders import FrameFiles, describe_frames


def gray(value: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def picture(path: Path, image: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def frames_named(folder: Path, names: Iterable[str]) -> Path:
    """A picture a name; the i-th is gray 8 * i."""
    for i, name in enumerate(names):
        picture(folder / name, gray(8 * i))
    return folder


def numbered(folder: Path, template: str, numbers: Iterable[int]) -> Path:
    return frames_named(folder, (template.format(number) for number in numbers))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """img_00001.jpg to img_00012.jpg; frame i is gray 8 * i."""
    return numbered(tmp_path / "video", "img_{:05d}.jpg", range(1, 13))


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "start"),
    [
        ("img_{:05d}.jpg", 1),
        ("image_{:05d}.jpg", 1),
        ("{:05d}.jpg", 1),
        ("{:05d}.jpg", 0),
        ("frame{:06d}.jpg", 1),
        ("{:06d}.png", 0),
        ("{:06d}.png", 137),
        ("{:02d}.webp", 0),
        ("{:02d}.webp", 9),
        ("{:d}.png", 95),  # 95 to 106
        ("{:d}.jpeg", 1),
        ("Frame {:d}.JPG", 8),
        ("a{{b}}%05d_{:03d}.png", 0),
        ("clip2_f{:04d}.png", 1),
        ("box_{:05d}.jpg", 1),
    ],
)
def test_names_and_start_are_found(tmp_path: Path, frame_numbers, template: str, start: int) -> None:
    folder = numbered(tmp_path, template, range(start, start + 12))
    assert describe_frames(folder) == FrameFiles(template, start, 12)
    assert describe_frames(folder, template) == FrameFiles(template, start, 12)
    assert frame_numbers(open_video(folder).frames_at([0, 11, 5])) == [0, 11, 5]


@pytest.mark.parametrize(
    "flow", ["flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg", "x_{:05d}.jpg", "Y_{:04d}.png", "000123-x_{:05d}.jpg"]
)
def test_flow_is_no_frame(video: Path, frame_numbers, flow: str) -> None:
    numbered(video, flow, range(1, 9))
    assert describe_frames(video) == FrameFiles("img_{:05d}.jpg", 1, 12)
    assert describe_frames(video, flow) == FrameFiles(flow, 1, 8)  # but a template selects it


def test_flow_alone_is_no_video(tmp_path: Path) -> None:
    numbered(tmp_path, "flow_x_{:05d}.jpg", range(1, 4))
    with pytest.raises(VideoError, match="no frames: it holds optical flow only"):
        describe_frames(tmp_path)


def test_other_files_are_passed_over(video: Path) -> None:
    for name in ("thumbs.db", "00001.txt", "labels.txt", ".img_00001.jpg", "._img_00001.jpg", "00001"):
        (video / name).write_text("other")
    picture(video / "cover.jpg", gray(0))
    (video / "00001").unlink()
    (video / "00001").mkdir()
    assert describe_frames(video) == FrameFiles("img_{:05d}.jpg", 1, 12)


def test_several_kinds_of_names_are_a_question(video: Path, frame_numbers) -> None:
    numbered(video, "small_{:03d}.png", range(4))
    with pytest.raises(
        VideoError,
        match=r"12 x img_\{:05d\}\.jpg, 4 x small_\{:03d\}\.png.*data\.frame_template",
    ):
        describe_frames(video)
    frames = open_video(video, frame_template="small_{:03d}.png").all_frames()
    assert frame_numbers(frames) == [0, 1, 2, 3]


@pytest.mark.parametrize("template", ["", "img_{:05d}.jpg"])
@pytest.mark.parametrize(("gone", "missing"), [([4], 4), ([11, 7, 8], 7), (range(2, 12), 2)])
def test_a_gap_names_the_first_missing_frame(video: Path, template: str, gone: Iterable[int], missing: int) -> None:
    for number in gone:
        (video / f"img_{number:05d}.jpg").unlink()
    with pytest.raises(VideoError, match=rf"frame img_{missing:05d}\.jpg is missing: .* numbered 1 to 12"):
        open_video(video, frame_template=template).frames_at([0])


def test_a_file_named_by_a_date_is_far_from_the_others(video: Path) -> None:
    (video / "img_00012.jpg").rename(video / "img_20240101123000.jpg")
    with pytest.raises(VideoError, match=r"frame img_00012\.jpg is missing: .* numbered 1 to 20240101123000"):
        describe_frames(video)


def test_a_video_may_start_anywhere(video: Path) -> None:
    for number in range(1, 8):
        (video / f"img_{number:05d}.jpg").unlink()
    assert describe_frames(video) == FrameFiles("img_{:05d}.jpg", 8, 5)


def test_two_ways_of_numbering(tmp_path: Path) -> None:
    frames_named(tmp_path, ["1.jpg", "02.jpg", "3.jpg"])
    with pytest.raises(VideoError, match=r"numbered in two ways: 1\.jpg does not match \{:02d\}\.jpg"):
        describe_frames(tmp_path)
    with pytest.raises(VideoError, match=r"frame 2\.jpg is missing"):
        describe_frames(tmp_path, "{:d}.jpg")


@pytest.mark.parametrize(
    "template",
    [
        "img_%05d.jpg",
        "img.jpg",
        "{:05d}_{:05d}.jpg",
        "{name}.jpg",
        "{:05.2f}.jpg",
        "{:>5d}.jpg",
        "{!r}.jpg",
        "{",
    ],
)
def test_templates_of_no_use(video: Path, template: str) -> None:
    with pytest.raises(ConfigError, match=r'data\.frame_template is ".*with the number in braces, such as "img_'):
        describe_frames(video, template)


def test_a_template_that_fits_nothing(video: Path) -> None:
    with pytest.raises(VideoError, match=r'no file matches data\.frame_template, "image_\{:05d\}\.jpg"'):
        open_video(video, frame_template="image_{:05d}.jpg").all_frames()


def test_folders_without_frames(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no frames: it holds no numbered JPEG, PNG or WebP files"):
        open_video(tmp_path)
    with pytest.raises(VideoError, match="no such folder"):
        describe_frames(tmp_path / "missing")
    with pytest.raises(VideoError, match=r"cannot be listed \(Not a directory\)"):
        describe_frames(picture(tmp_path / "1.png", gray(0)))


# --- frames ----------------------------------------------------------------------------------------


def test_probe(video: Path) -> None:
    assert open_video(video).metadata == VideoMetadata(
        num_frames=12, frames_per_second=0.0, height=32, width=48, rotation=0
    )


def test_all_frames(video: Path, frame_numbers) -> None:
    reader = open_video(video, short_side=16)
    frames = reader.all_frames()
    assert (frames.shape, frames.dtype, reader.frames_per_second) == ((12, 16, 24, 3), np.uint8, 0.0)
    assert frame_numbers(frames) == list(range(12))
    assert np.array_equal(np.stack(list(reader)), frames)


def test_an_index_outside_the_video(video: Path) -> None:
    with pytest.raises(ValueError, match="0 to 11") as caught:
        open_video(video).frames_at([12])
    assert not isinstance(caught.value, VideoError)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(indices=st.lists(st.integers(0, 11), min_size=1, max_size=9))
def test_any_indices(video: Path, frame_numbers, indices: list[int]) -> None:
    assert frame_numbers(open_video(video).frames_at(indices)) == indices


def test_one_listing_and_only_the_frames_wanted(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, opened = [], []
    listdir, content = os.listdir, frame_folders._content
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    monkeypatch.setattr(frame_folders, "_content", lambda path, name: opened.append(name) or content(path, name))
    open_video(video).frames_at([7, 3, 7])
    assert listed == [video]
    assert opened == ["img_00001.jpg", "img_00008.jpg", "img_00004.jpg"]  # the first for its size


def colors() -> np.ndarray:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:], image[16:, :24] = (250, 10, 10), (10, 240, 10), (20, 20, 230)
    image[16:, 24:] = 128
    return image


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("1.jpg", "RGB", {"quality": 95, "subsampling": 0}),
        ("1.jpg", "RGB", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("1.jpg", "CMYK", {"quality": 95}),
        ("1.png", "RGB", {}),
        ("1.png", "RGBA", {}),
        ("1.png", "P", {}),
        ("1.png", "P", {"transparency": bytes(range(256))}),
        ("1.webp", "RGB", {"lossless": True}),
        ("1.webp", "RGBA", {"lossless": True}),
        ("1.jpg", "PNG inside", {}),
    ],
)
def test_kinds_of_pictures(tmp_path: Path, name: str, mode: str, options: dict[str, object]) -> None:
    image = Image.fromarray(colors())
    if mode == "PNG inside":
        image.save(tmp_path / name, format="PNG")
    else:
        image = image.quantize(8) if mode == "P" else image.convert(mode)
        image.save(tmp_path / name, **options)
    frame = open_video(tmp_path).all_frames()[0].astype(int)
    assert frame.shape == (32, 48, 3)
    middle = np.s_[8::16, 12::24]
    assert np.abs(frame[middle] - colors()[middle]).max() <= 12


@pytest.mark.parametrize(
    ("name", "mode"), [("1.jpg", "L"), ("1.png", "L"), ("1.png", "LA"), ("1.png", "1"), ("1.png", "I;16")]
)
def test_gray_pictures(tmp_path: Path, name: str, mode: str) -> None:
    step = np.zeros((32, 48), np.uint8)
    step[:, 24:] = 255 if mode == "1" else 180
    deep = Image.fromarray(step.astype(np.uint16) * 257)
    (deep if mode == "I;16" else Image.fromarray(step).convert(mode)).save(tmp_path / name)
    frame = open_video(tmp_path).all_frames()[0].astype(int)
    assert frame.shape == (32, 48, 3)
    assert np.abs(frame - step[..., None]).max() <= 6


def test_16_bit_color(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    values = np.zeros((8, 8, 3), ">u2")
    values[..., 0], values[..., 1] = 257 * 200, 257 * 90
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "rgb48be"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(values.astype(np.uint16), format="rgb48le")))
        container.mux(stream.encode(None))
    assert path.read_bytes()[24] == 16  # bits a sample
    assert open_video(tmp_path).all_frames()[0, 4, 4].tolist() == [200, 90, 0]


# --- sizes -----------------------------------------------------------------------------------------


def test_frames_take_the_size_of_the_first(video: Path, frame_numbers) -> None:
    picture(video / "img_00005.jpg", gray(32, 64, 64))
    picture(video / "img_00001.jpg", gray(0, 40, 30))
    frames = open_video(video).frames_at([4, 6])
    assert frames.shape == (2, 40, 30, 3)
    assert frame_numbers(frames) == [4, 6]
    assert open_video(video, short_side=15).frames_at([4, 6]).shape == (2, 20, 15, 3)


@pytest.mark.parametrize(("short_side", "size"), [(24, (24, 35)), (48, (48, 71)), (100, (100, 148))])
def test_resizing_is_that_of_video_files(tmp_path: Path, short_side: int, size: tuple[int, int]) -> None:
    y, x = np.mgrid[:64, :95]
    image = np.stack([x, 2 * y, 60 + 30 * np.sin(x / 7) * np.cos(y / 5)], axis=2)
    image += np.random.default_rng(0).integers(0, 100, (64, 95, 1))  # fine grain, which must be averaged
    image = image.astype(np.uint8)
    picture(tmp_path / "frames/1.png", image)
    with av.open(str(tmp_path / "video.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 95, 64, "yuv444p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    folder, file = (open_video(tmp_path / name, short_side=short_side).all_frames() for name in ("frames", "video.mkv"))
    assert folder.shape == file.shape == (1, *size, 3)
    difference = np.abs(folder.astype(int) - file.astype(int))
    assert difference.mean() < 1.5
    assert difference.max() <= 8


# --- damage ----------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def noisy(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    picture(path, noise)
    cut(path)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, r"img_00003\.jpg is damaged"),
        (noisy, r"img_00003\.jpg is damaged"),
        (lambda path: path.write_bytes(b""), r"img_00003\.jpg is not a JPEG, PNG or WebP picture"),
        (lambda path: path.write_text("a letter"), r"img_00003\.jpg is not a JPEG, PNG or WebP picture"),
        (lambda path: path.write_bytes(bytes(3000)), r"img_00003\.jpg is not a JPEG, PNG or WebP picture"),
        (folder_instead, r"img_00003\.jpg cannot be opened \(Is a directory\)"),
        pytest.param(
            pipe_instead,
            r"img_00003\.jpg is not a regular file",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here"),
        ),
    ],
    ids=["cut", "noise cut", "empty", "text", "zeros", "folder", "pipe"],
)
def test_a_damaged_frame_is_named(video: Path, frame_numbers, damage: Callable[[Path], None], reason: str) -> None:
    damage(video / "img_00003.jpg")
    with pytest.raises(VideoError, match=reason) as caught:
        open_video(video).frames_at([0, 2])
    assert caught.value.path == str(video)
    assert frame_numbers(open_video(video).frames_at([1, 3])) == [1, 3]  # the others are read


def test_a_frame_that_goes_while_reading(video: Path) -> None:
    reader = open_video(video)
    (video / "img_00003.jpg").unlink()
    with pytest.raises(VideoError, match=r"img_00003\.jpg.* \(No such file"):
        reader.frames_at([2])


def large_jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(gray(9)).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", 60000, 60000)
    return bytes(content)


def large_png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(gray(9)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.filterwarnings("ignore:Image size")  # Pillow's own, from half of our limit on
@pytest.mark.parametrize(("name", "content"), [("1.jpg", large_jpeg()), ("1.png", large_png())])
def test_a_gigantic_picture_is_refused_by_its_header(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=rf"frame {name} (announces 60000x60000 pixels; the limit|is damaged)"):
        open_video(tmp_path).all_frames()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_pictures_give_frames_or_a_video_error(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(["jpg", "png", "webp"]))
    for old in tmp_path.iterdir():
        old.unlink()
    path = picture(tmp_path / f"1.{suffix}", colors())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    frames = None
    with contextlib.suppress(VideoError):  # anything else fails the test
        frames = open_video(tmp_path, short_side=16).all_frames()
    assert frames is None or 16 in frames.shape[1:3]
