import contextlib
import gc
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from tests.helpers.videos import READERS, overwrite_packets, with_matrix
from vsn.data.sampling import segment_indices
from vsn.data.video import FewerFramesError, VideoError, VideoMetadata, open_video, write_video
from vsn.data.video import container as containers
from vsn.data.video.container import video_stream
from vsn.data.video.pyav_reader import FrameConverter
from vsn.data.video.reader import scaled_size


def moving_squares(num_frames: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    frames = []
    for i in range(num_frames):
        frame = np.full((height, width, 3), 60, np.uint8)
        frame[10:30, 2 * i : 2 * i + 20] = (200, 120, 40)
        frame[34:54, width - 2 * i - 20 : width - 2 * i] = (40, 120, 200)
        frames.append(frame)
    return frames


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


# --- writing and reading back ----------------------------------------------------------------------


def test_round_trip_keeps_the_pictures(tmp_path: Path) -> None:
    frames = moving_squares(24)
    path = tmp_path / "squares.mp4"
    write_video(path, frames, frames_per_second=24, crf=12)
    read = open_video(path).all_frames()
    assert read.dtype == np.uint8
    assert read.shape == (24, 64, 96, 3)
    for i, frame in enumerate(frames):
        assert psnr(read[i], frame) > 28
        if i >= 4:
            assert psnr(read[i], frame) > psnr(read[i - 4], frame) + 3  # this frame, not a neighbor


def test_lower_crf_is_closer(tmp_path: Path) -> None:
    frames = moving_squares(12)
    for crf in (10, 40):
        write_video(tmp_path / f"{crf}.mp4", frames, frames_per_second=24, crf=crf)
    fine, coarse = (psnr(open_video(tmp_path / f"{crf}.mp4").all_frames(), np.stack(frames)) for crf in (10, 40))
    assert fine > coarse + 3


def test_same_frames_give_same_bytes_and_no_other_file(tmp_path: Path) -> None:
    names = [f"{i}.mp4" for i in range(6)]
    kept = []
    for i, name in enumerate(names):
        write_video(tmp_path / "new" / name, moving_squares(8), frames_per_second=10)
        kept.append(np.full(30_000 * (i + 1), 255, np.uint8))  # other memory for the next encoder
    assert len({(tmp_path / "new" / name).read_bytes() for name in names}) == 1
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names


def test_keyframes_come_as_often_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "keys.mp4"
    write_video(path, moving_squares(20), frames_per_second=10, keyframe_every=5)
    with av.open(str(path)) as container:
        assert [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame] == [0, 5, 10, 15]


@pytest.mark.parametrize(
    ("frames", "rate", "message"),
    [
        ([], 10, "at least one frame"),
        ([np.zeros((31, 48, 3), np.uint8)], 10, r"even H and W.* \(31, 48, 3\)"),
        ([np.zeros((32, 48), np.uint8)], 10, r"\(32, 48\)"),
        ([np.zeros((32, 48, 3), np.float32)], 10, "float32"),
        ([np.zeros((32, 48, 3), np.uint8), np.zeros((48, 32, 3), np.uint8)], 10, r"\(32, 48, 3\).*\(48, 32, 3\)"),
        ([np.zeros((32, 48, 3), np.uint8)], 0, "frames_per_second is 0"),
    ],
)
def test_frames_that_cannot_be_written(tmp_path: Path, frames: list[np.ndarray], rate: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "new.mp4", frames, frames_per_second=rate)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, moving_squares(4), frames_per_second=10)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"\(8, 8, 3\)"):
        write_video(path, [*moving_squares(4), np.zeros((8, 8, 3), np.uint8)], frames_per_second=10)
    assert path.read_bytes() == before


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video("a:b.mp4", moving_squares(3), frames_per_second=10)
    assert len(open_video("a:b.mp4").all_frames()) == 3


# --- indices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "indices", [[0], [29], [0, 29], [29, 0], [5, 5, 5], [3, 17, 11, 17], list(range(30)), [28, 29]]
)
def test_indices_are_exact_in_any_order(gray_video: Path, frame_numbers, indices: list[int]) -> None:
    frames = open_video(gray_video).frames_at(indices)
    assert frames.shape == (len(indices), 32, 48, 3)
    assert frame_numbers(frames) == indices


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(indices=st.lists(st.integers(0, 29), min_size=1, max_size=12))
def test_any_indices(gray_video: Path, frame_numbers, indices: list[int]) -> None:
    assert frame_numbers(open_video(gray_video).frames_at(indices)) == indices


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_decoding_and_converting_start_no_threads(gray_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, rgb = [], FrameConverter.rgb

    def counted(self, frame):
        image = rgb(self, frame)
        threads.append(len(list(Path("/proc/self/task").iterdir())))
        return image

    monkeypatch.setattr(FrameConverter, "rgb", counted)
    before = len(list(Path("/proc/self/task").iterdir()))
    open_video(gray_video, short_side=16).all_frames()
    assert set(threads) == {before}


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0)])
@pytest.mark.parametrize("keyframe_every", [1, 10])
def test_decoded_frames_are_freed_at_once(tmp_path: Path, matrix: tuple[int, ...], keyframe_every: int) -> None:
    """Reference cycles would keep the frames of a whole video until garbage is collected."""
    source = tmp_path / "source.mp4"
    write_video(source, moving_squares(60), frames_per_second=10, keyframe_every=keyframe_every)
    path = with_matrix(source, tmp_path / "turned.mp4", matrix)

    def count() -> int:
        return sum(type(found) is av.VideoFrame and found.width == 96 for found in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        most = max(count() for number, _ in enumerate(open_video(path)) if number % 20 == 19)
    finally:
        gc.enable()
    assert most <= 5


@pytest.mark.parametrize("indices", [[], [30], [-1, 3]])
def test_indices_outside_the_video(gray_video: Path, indices: list[int]) -> None:
    with pytest.raises(ValueError, match=r"0 to 29") as caught:
        open_video(gray_video).frames_at(indices)
    assert not isinstance(caught.value, VideoError)  # the caller's mistake, not the file's


def test_one_frame_gives_eight(tmp_path: Path) -> None:
    path = tmp_path / "one.mp4"
    write_video(path, moving_squares(1), frames_per_second=10)
    frames = open_video(path).sample(lambda num_frames: segment_indices(num_frames, 8, None))
    assert frames.shape == (8, 64, 96, 3)
    assert (frames == frames[0]).all()


def test_a_file_cut_short_gives_what_is_there(tmp_path: Path) -> None:
    """MPEG-TS has no index: half a file is half a video, whose last frame may not decode."""
    path = tmp_path / "whole.ts"
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(40):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    cut = tmp_path / "cut.ts"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    num_all, num_cut = len(open_video(path).all_frames()), len(open_video(cut).all_frames())
    assert num_all == 40
    assert 15 <= num_cut <= 21
    frames = open_video(cut).sample(lambda num_frames: segment_indices(num_frames, 8, None))
    assert frames.shape == (8, 64, 64, 3)


def test_fewer_frames_decode_than_are_announced(tmp_path: Path, frame_numbers) -> None:
    """The second half of the packets is overwritten: announced, but not decodable."""
    source, path = tmp_path / "whole.mp4", tmp_path / "damaged.mp4"
    frames = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(30)]
    write_video(source, frames, frames_per_second=10, keyframe_every=1)
    overwrite_packets(source, path, start=18)
    with open_video(path) as video:
        assert video.num_frames == 30
        with pytest.raises(FewerFramesError, match=r"30 frames.* 18 "):
            video.frames_at([0, 15, 29])
        assert video.num_frames == 18
        assert frame_numbers(video.frames_at([0, 9, 17])) == [0, 9, 17]
    assert open_video(path).num_frames == 30  # counted packets
    assert frame_numbers(open_video(path).all_frames()) == list(range(18))


# --- sizes and pixel formats -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "short_side", "expected"),
    [
        (240, 320, 256, (256, 341)),
        (320, 240, 256, (341, 256)),
        (256, 340, 256, (256, 340)),
        (1080, 1920, 224, (224, 398)),
        (8, 8, 256, (256, 256)),
    ],
)
def test_scaled_size(height: int, width: int, short_side: int, expected: tuple[int, int]) -> None:
    assert scaled_size(height, width, short_side) == expected


def test_short_side_resizes(gray_video: Path, frame_numbers) -> None:
    frames = open_video(gray_video, short_side=16).frames_at([4, 20])
    assert frames.shape == (2, 16, 24, 3)
    assert frame_numbers(frames) == [4, 20]
    assert open_video(gray_video, short_side=40).all_frames().shape == (30, 40, 60, 3)


def test_probe(gray_video: Path) -> None:
    assert open_video(gray_video).metadata == VideoMetadata(
        num_frames=30, frames_per_second=12.0, height=32, width=48, rotation=0
    )


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv420p10le", "gray"])
def test_pixel_formats_become_rgb(tmp_path: Path, pixel_format: str) -> None:
    path = tmp_path / "pixels.mkv"
    gray = np.full((32, 48, 3), 120, np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixel_format
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="rgb24")))
        container.mux(stream.encode(None))
    frames = open_video(path).all_frames()
    assert frames.shape == (3, 32, 48, 3)
    assert np.abs(frames.astype(int) - 120).max() <= 3


# --- files of several video streams ----------------------------------------------------------------


def two_streams(path: Path, *, shown: int) -> None:
    """Five frames of brightness 40 and, wider and taller, of 200; one of the two is marked as the one to show."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = 48 + 16 * number, 32, "yuv420p"
            stream.disposition = Disposition.default if number == shown else Disposition(0)
        for number, stream in enumerate(streams):
            image = np.full((32, stream.width, 3), (40, 200)[number], np.uint8)
            for index in range(5):
                frame = av.VideoFrame.from_ndarray(image)
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("shown", [0, 1])
def test_of_several_video_streams_the_marked_one_is_read(tmp_path: Path, suffix: str, shown: int) -> None:
    two_streams(tmp_path / f"two{suffix}", shown=shown)
    video = open_video(tmp_path / f"two{suffix}")
    assert (video.metadata.width, video.num_frames) == (48 + 16 * shown, 5)
    for frames in (video.all_frames(), video.frames_at([3]), next(iter(video))):
        assert abs(frames.mean() - (40, 200)[shown]) < 4


@pytest.mark.skipif(not features.check("avif"), reason="Pillow writes no AVIF here")
def test_an_animated_avif_is_a_video(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(np.full((32, 48, 3), 20 + 20 * index, np.uint8)) for index in range(8))
    first.save(tmp_path / "a.avif", save_all=True, append_images=others, duration=100)
    brightness = open_video(tmp_path / "a.avif").all_frames().mean(axis=(1, 2, 3))
    np.testing.assert_allclose(brightness, 20 + 20 * np.arange(8), atol=3)
    first.save(tmp_path / "b.avif")
    assert open_video(tmp_path / "b.avif").num_frames == 1


@pytest.mark.skipif(not features.check("webp"), reason="Pillow writes no WebP here")
def test_an_animated_webp_is_a_video_or_named(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(np.full((32, 48, 3), 20 + 20 * index, np.uint8)) for index in range(8))
    first.save(tmp_path / "a.webp")
    assert open_video(tmp_path / "a.webp").num_frames == 1
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=100)
    if av.library_versions["libavcodec"][0] < 63:  # FFmpeg 9
        with pytest.raises(VideoError, match=r"before 9 does not decode animated WebP\. Convert it .* PyAV 19"):
            open_video(tmp_path / "a.webp").all_frames()
    else:
        video = open_video(tmp_path / "a.webp")
        np.testing.assert_allclose(video.all_frames().mean(axis=(1, 2, 3)), 20 + 20 * np.arange(8), atol=3)
        np.testing.assert_allclose(video.frames_at([5, 2]).mean(axis=(1, 2, 3)), [120, 60], atol=3)
        assert video.metadata.frames_per_second == 10


def test_tiles_of_a_picture_are_not_taken_for_it() -> None:
    tiles = [SimpleNamespace(disposition=Disposition.dependent, frames=1)] * 4
    container = SimpleNamespace(streams=SimpleNamespace(video=tiles), metadata={"major_brand": "heic"})
    with pytest.raises(VideoError, match=r"a picture of 4 tiles.*Convert it to JPEG"):
        video_stream("a.heic", cast(Any, container))


# --- files that are no videos ----------------------------------------------------------------------


def sound_with_cover(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "no frames: it holds no numbered JPEG, PNG or WebP files"),
        (lambda path: path.touch(), "the file is empty"),
        (lambda path: path.write_text("a letter, not a video\n" * 50), "not a video that FFmpeg can read"),
        (lambda path: path.write_bytes(bytes(5000)), "not a video that FFmpeg can read"),
        (sound_with_cover, "no video stream"),
    ],
    ids=["missing", "folder", "empty", "text", "zeros", "sound"],
)
@pytest.mark.parametrize(
    "read",
    READERS.values(),
    ids=READERS,
)
def test_files_that_are_no_videos(tmp_path: Path, make, reason: str, read) -> None:
    path = tmp_path / "odd: name.mp4"
    make(path)
    with pytest.raises(VideoError, match=reason) as caught:
        read(path)
    assert caught.value.path == str(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert "\n" not in str(caught.value)


def test_a_file_without_permission(gray_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(containers, "open", refuse, raising=False)  # modes do not keep the superuser out
    with pytest.raises(VideoError, match=r"gray.mp4: cannot be opened \(Permission denied\)"):
        open_video(gray_video)


def test_no_frame_decodes(tmp_path: Path) -> None:
    source, path = tmp_path / "whole.mp4", tmp_path / "damaged.mp4"
    write_video(source, moving_squares(6), frames_per_second=10)
    overwrite_packets(source, path)
    for read in READERS.values():
        with pytest.raises(VideoError, match="none of its 6 frames decodes"):
            read(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_frames_or_a_video_error(gray_video: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(gray_video.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    frames = None
    with contextlib.suppress(VideoError):  # anything else fails the test
        frames = open_video(path, short_side=16).sample(lambda num_frames: segment_indices(num_frames, 4, None))
    assert frames is None or frames.shape[0] == 4


def test_video_error_pickles() -> None:
    error = pickle.loads(pickle.dumps(VideoError(Path("a b.mp4"), "two\n  lines")))
    assert isinstance(error, VideoError)
    assert (error.path, error.reason, str(error)) == ("a b.mp4", "two lines", "a b.mp4: two lines")


# --- files met in the wild -------------------------------------------------------------------------

ODD_SIZES = {  # height, width of the frames after rotation
    "VCR2test.avi": (144, 176),
    "again.mkv": (480, 640),
    "av1-1-b8-03-sizeup.mp4": (288, 352),
    "brokensps.mp4": (144, 192),
    "chaplin.mp4": (360, 640),
    "cockatoo.mp4": (720, 1280),
    "crop-to-container-dims-canon.mp4": (1080, 1920),
    "demo.mp4": (256, 340),
    "fire2.mp4": (720, 1280),
    "mp4-init-nonkeyframe.mp4": (720, 1280),
    "pcitva15.avi": (75, 100),
    "realshort.mp4": (240, 320),
    "ref_10.avi": (240, 320),
    "sample-in-issue-505.mp4": (480, 272),
    "skating.avi": (120, 160),
    "vp90-2-02-size-08x08.mp4": (8, 8),
    "vp90-2-05-resize.mp4": (288, 352),
    "vp91-2-04-yuv444.mp4": (288, 352),
    "vp92-2-20-10bit-yuv420.mp4": (90, 160),
    "white_zombie_scrunch-part.mp4": (240, 160),
    "wmv8_x8intra.wmv": (240, 320),
}


@pytest.mark.parametrize("name", ODD_SIZES)
def test_videos_met_in_the_wild(shared_data: Path, name: str) -> None:
    path = shared_data / "data/odd-videos" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    frames = open_video(path).sample(lambda num_frames: segment_indices(num_frames, 8, None))
    assert frames.shape == (8, *ODD_SIZES[name], 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 1


def test_every_odd_file_gives_frames_or_a_video_error(shared_data: Path) -> None:
    folder = shared_data / "data/odd-videos"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for path in sorted(path for path in folder.iterdir() if path.name not in ODD_SIZES):
        with contextlib.suppress(VideoError):  # anything else fails the test
            frames = open_video(path, short_side=64).sample(lambda num_frames: segment_indices(num_frames, 8, None))
            assert frames.shape[0] == 8, path
