"""Turned and mirrored pictures: the eight orientations, in video files, pictures, folders, packs and streams."""

import io
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.helpers.packs import pack, packed_paths
from tests.helpers.videos import READERS, remuxed, with_matrix
from vsn.config import LiveConfig
from vsn.data.video import VideoError, VideoMetadata, open_video, write_video
from vsn.data.video.orientation import BY_EXIF, UPRIGHT, Orientation
from vsn.stream.source import Source

GRAYS = (40, 90, 150, 220)
"""Of the stored picture: top left, top right, bottom left, bottom right."""
HEIGHT, WIDTH = 64, 96
# By the EXIF value of the same orientation: the matrix of ISO 14496-12, where (x, y) of the stored picture goes to
# (a*x + c*y, b*x + d*y) with y down; our name of it; and the grays as FFmpeg's tool writes them.
ORIENTATIONS = {
    1: ((1, 0, 0, 1), (0, False), (40, 90, 150, 220)),
    2: ((-1, 0, 0, 1), (0, True), (90, 40, 220, 150)),
    3: ((-1, 0, 0, -1), (180, False), (220, 150, 90, 40)),
    4: ((1, 0, 0, -1), (180, True), (150, 220, 40, 90)),
    5: ((0, 1, 1, 0), (270, True), (40, 150, 90, 220)),
    6: ((0, 1, -1, 0), (270, False), (150, 40, 220, 90)),
    7: ((0, -1, -1, 0), (90, True), (220, 90, 150, 40)),
    8: ((0, -1, 1, 0), (90, False), (90, 220, 40, 150)),
}


def stored_picture() -> np.ndarray:
    corners = np.array(GRAYS, np.uint8).reshape(2, 2).repeat(HEIGHT // 2, 0).repeat(WIDTH // 2, 1)
    return np.repeat(corners[..., None], 3, axis=2)


def corners(frame: np.ndarray) -> list[int]:
    height, width = frame.shape[:2]
    middles = [frame[y, x, 0] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [min(GRAYS, key=lambda gray: abs(gray - int(middle))) for middle in middles]


def displayed_size(exif: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[int, int]:
    return (width, height) if exif >= 5 else (height, width)


def jpeg_bytes(exif: int | None, form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    tags = Image.Exif()
    if exif is not None:
        tags[0x0112] = exif
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "JPEG" else {}
    Image.fromarray(stored_picture()).save(stream, form, **options, **({} if exif is None else {"exif": tags}))
    return stream.getvalue()


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upright") / "stored.mp4"
    write_video(path, [stored_picture()] * 4, frames_per_second=10, crf=5)
    return path


def assert_displayed(path: Path, exif: int, num_frames: int) -> None:
    """Every way to read this path gives the orientation, full size and resized."""
    _, (rotation, mirrored), grays = ORIENTATIONS[exif]
    size = displayed_size(exif)
    rate = open_video(path).frames_per_second
    assert open_video(path).metadata == VideoMetadata(num_frames, rate, *size, rotation, mirrored)
    for short_side in (None, 32):
        video = open_video(path, short_side=short_side)
        shape = displayed_size(exif, 32, 48) if short_side else size
        for frames in (video.frames_at([0, num_frames - 1]), video.all_frames(), np.stack(list(video))):
            assert frames.shape[1:] == (*shape, 3)
            assert [corners(frame) for frame in frames] == [list(grays)] * len(frames)


# --- the orientations themselves ---------------------------------------------------------------------


def test_orientations_are_the_eight_of_exif() -> None:
    assert [BY_EXIF[exif] for exif in ORIENTATIONS] == [Orientation(*name) for _, name, _ in ORIENTATIONS.values()]
    assert len(set(BY_EXIF.values())) == len(BY_EXIF) == 8
    for exif, orientation in BY_EXIF.items():
        applied = orientation.apply(stored_picture())
        assert applied.shape[:2] == orientation.exchanged(HEIGHT, WIDTH) == displayed_size(exif)
        assert corners(applied) == list(ORIENTATIONS[exif][2])


# --- display matrices of video files -----------------------------------------------------------------


@pytest.mark.parametrize("exif", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_display_matrices(tmp_path: Path, upright: Path, suffix: str, exif: int) -> None:
    path = with_matrix(upright, tmp_path / "turned.mp4", ORIENTATIONS[exif][0])
    if suffix != ".mp4":
        path = remuxed(path, path.with_suffix(suffix))
    assert_displayed(path, exif, 4)


@pytest.mark.parametrize(
    ("matrix", "orientation"),
    [
        ((0.75, 0, 0, 1), UPRIGHT),  # pixels are read as square
        ((-2, 0, 0, 0.5), Orientation(0, mirrored=True)),
        ((0, 3, -1, 0), Orientation(270)),
        ((1, 0.01, -0.01, 1), UPRIGHT),  # rounding errors of an editor: 0.6 degrees
        ((0, 0, 0, 0), UPRIGHT),
        ((1, 0, 0, 0), UPRIGHT),
    ],
)
def test_scales_and_zeros_in_a_matrix_have_no_effect(
    tmp_path: Path, upright: Path, matrix: tuple[float, ...], orientation: Orientation
) -> None:
    info = open_video(with_matrix(upright, tmp_path / "scaled.mp4", matrix)).metadata
    assert Orientation(info.rotation, info.mirrored) == orientation
    assert (info.height, info.width) == orientation.exchanged(HEIGHT, WIDTH)


@pytest.mark.parametrize("angle", [2, 45, -30, 135, 88])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_other_angles_are_refused(tmp_path: Path, upright: Path, angle: int, read) -> None:
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    path = with_matrix(upright, tmp_path / "tilted.mp4", (cosine, sine, -sine, cosine))
    with pytest.raises(VideoError, match=rf"{angle} degrees.*ffmpeg"):
        read(path)


def test_mirrored_files_made_elsewhere(shared_data: Path) -> None:
    folder = shared_data / "data/faults/mirrored"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    names = {"upright": 1, "hflip": 2, "rotate180": 3, "vflip": 4, "transpose": 5, "rotate90": 6, "antitranspose": 7}
    for name, exif in names.items():
        assert_displayed(folder / f"{name}.mp4", exif, 12)


# --- EXIF of pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize("exif", ORIENTATIONS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_and_a_folder_of_pictures(tmp_path: Path, form: str, exif: int) -> None:
    picture = tmp_path / f"picture.{form.lower()}"
    picture.write_bytes(jpeg_bytes(exif, form))
    assert_displayed(picture, exif, 1)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.{form.lower()}").write_bytes(picture.read_bytes())
    assert_displayed(folder, exif, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", [0, 9, 65535])
def test_values_that_are_no_orientation(tmp_path: Path, form: str, value: int) -> None:
    (tmp_path / f"0.{form.lower()}").write_bytes(jpeg_bytes(value, form))
    assert_displayed(tmp_path, 1, 1)


def test_every_picture_of_a_folder_has_its_own_orientation(tmp_path: Path) -> None:
    # A tool that turns some of the pictures removes their tag. All have the size of the first.
    for number, exif in enumerate([6, None, 3, 7]):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg_bytes(exif))
    frames = open_video(tmp_path).all_frames()
    assert frames.shape == (4, WIDTH, HEIGHT, 3)
    assert [corners(frame) for frame in frames] == [list(ORIENTATIONS[exif][2]) for exif in (6, 1, 3, 7)]
    assert open_video(tmp_path).metadata == VideoMetadata(4, 0.0, WIDTH, HEIGHT, 270)


def test_an_orientation_that_changes_within_a_video(tmp_path: Path) -> None:
    path = tmp_path / "pictures.mkv"
    exifs = [6, 1, 2, 5, 4]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        for number, exif in enumerate(exifs):
            packet = av.Packet(jpeg_bytes(exif))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            container.mux(packet)
    for frames in (open_video(path).all_frames(), open_video(path, short_side=32).frames_at(range(len(exifs)))):
        assert frames.shape[1] > frames.shape[2]  # as the first
        assert [corners(frame) for frame in frames] == [list(ORIENTATIONS[exif][2]) for exif in exifs]


# --- where videos are read ---------------------------------------------------------------------------


@pytest.mark.parametrize("exif", ORIENTATIONS)
def test_streams_and_packed_videos(tmp_path: Path, upright: Path, exif: int) -> None:
    matrix, _, grays = ORIENTATIONS[exif]
    path = tmp_path / "data/train/a/turned.mp4"
    path.parent.mkdir(parents=True)
    with_matrix(upright, path, matrix)
    source = Source(path, LiveConfig())
    try:
        frames = [source.picture(frame, 32) for frame in source.frames(threading.Event())]
    finally:
        source.close()
    assert [corners(frame) for frame in frames] == [list(grays)] * 4
    assert frames[0].shape == (*displayed_size(exif, 32, 48), 3)
    folder = tmp_path / "data/train/b/frames"
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(jpeg_bytes(exif))
    pack(tmp_path / "data", tmp_path / "packed", short_side=32)
    for packed in packed_paths(tmp_path / "packed"):
        info = open_video(packed).metadata
        assert (info.height, info.width, info.rotation, info.mirrored) == (*displayed_size(exif, 32, 48), 0, False)
        assert corners(open_video(packed).frames_at([1])[0]) == list(grays)
