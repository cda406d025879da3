"""TorchCodec reads the frames that PyAV reads. Skipped where it, or the FFmpeg it needs, is missing."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from tests.data.video.test_decode import moving_squares
from tests.data.video.test_frame_converter import HLG, PQ, stored, write_frame, write_hdr
from tests.helpers.videos import READERS, overwrite_packets, with_matrix
from vsn.config import ConfigError, DataConfig, Recipe
from vsn.data.video import VideoError, open_video, write_video
from vsn.data.video import torchcodec_reader as torchcodec_files
from vsn.data.video.pyav_reader import PyAVReader
from vsn.doctor import examine


def usable() -> str:
    """Why TorchCodec cannot run here; empty when it can."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        return f"TorchCodec does not import: {str(error).splitlines()[0]}"
    try:
        VideoDecoder(b"no video")
    except Exception as error:
        return "TorchCodec finds no FFmpeg" if "libtorchcodec" in str(error) else ""
    return ""


UNUSABLE = usable()


def needs_torchcodec(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.needs("torchcodec")(pytest.mark.skipif(bool(UNUSABLE), reason=UNUSABLE or "usable")(test))


@pytest.fixture(autouse=True)
def check_again() -> Iterator[None]:
    torchcodec_files._check_installed.cache_clear()
    yield
    torchcodec_files._check_installed.cache_clear()


def centers(num_frames: int) -> list[int]:
    return [int((i + 0.5) * num_frames / 8) for i in range(8)]


@pytest.fixture
def pyav_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that PyAV decoded."""
    reads: list[str] = []
    for way in ("_seek", "_count"):
        read = getattr(PyAVReader, way)

        def noted(self, wanted, read=read):
            reads.append(Path(self.path).name)
            return read(self, wanted)

        monkeypatch.setattr(PyAVReader, way, noted)
    return reads


# --- without it ------------------------------------------------------------------------------------


def test_not_installed(gray_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    for read in READERS.values():
        with pytest.raises(
            ConfigError,
            match=r'pip install "vsn-video\[torchcodec\]"',
        ):
            read(gray_video, decoder="torchcodec")


@pytest.fixture
def without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """TorchCodec as it is where FFmpeg is not: importable, and nothing more."""

    class VideoDecoder:
        def __init__(self, *arguments: object, **settings: object) -> None:
            raise RuntimeError("Could not load libtorchcodec. Likely causes:\n 1. FFmpeg is not installed")

    module = ModuleType("torchcodec.decoders")
    module.VideoDecoder = VideoDecoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)


def test_installed_without_the_libraries_of_ffmpeg(gray_video: Path, without_libraries: None) -> None:
    with pytest.raises(ConfigError, match=r"\(Could not load libtorchcodec\).* apt install ffmpeg"):
        open_video(gray_video, decoder="torchcodec").all_frames()


def test_the_doctor_does_not_take_that_for_broken_videos(gray_video: Path, without_libraries: None) -> None:
    config = DataConfig(root=str(gray_video.parent), source="folder", decoder="torchcodec")
    with pytest.raises(ConfigError, match=r"data.decoder.*libtorchcodec"):
        examine(Recipe(data=config), num_workers=0, progress=False)


def test_folders_need_no_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "1.png")
    assert open_video(tmp_path, decoder="torchcodec").all_frames().shape == (1, 8, 8, 3)


@needs_torchcodec
def test_no_gpu(gray_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match='there is no CUDA device; set it to "torchcodec" or "pyav"'):
        open_video(gray_video, decoder="torchcodec-cuda").all_frames()


# --- the same frames -------------------------------------------------------------------------------


def devices() -> list[object]:
    if UNUSABLE:
        return ["torchcodec"]
    import torch

    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    return ["torchcodec", pytest.param("torchcodec-cuda", marks=skip)]


@needs_torchcodec
@pytest.mark.parametrize("decoder", devices())
@pytest.mark.parametrize("indices", [[0], [29], [29, 0, 7, 7, 12], list(range(30))])
def test_indices(gray_video: Path, frame_numbers, pyav_reads, decoder, indices: list[int]) -> None:
    video = open_video(gray_video, decoder=decoder, short_side=16)
    assert (video.num_frames, video.frames_per_second) == (30, 12.0)
    frames = video.frames_at(indices)
    assert (frames.shape, frames.dtype) == ((len(indices), 16, 24, 3), np.uint8)
    assert frame_numbers(frames) == indices
    assert pyav_reads == []


@needs_torchcodec
@pytest.mark.parametrize("decoder", devices())
@pytest.mark.parametrize("short_side", [None, 48, 100])
def test_pixels(tmp_path: Path, pyav_reads, decoder, short_side: int | None) -> None:
    path = tmp_path / "squares.mp4"
    write_video(path, moving_squares(20), frames_per_second=24, crf=12)
    video = open_video(path, short_side=short_side, decoder=decoder)
    ours, rate = video.all_frames(), video.frames_per_second
    assert pyav_reads == []
    pyav = open_video(path, short_side=short_side).all_frames()
    assert ours.shape == pyav.shape
    assert rate == 24.0
    difference = np.abs(ours.astype(int) - pyav.astype(int))
    assert difference.mean() < 2
    assert np.percentile(difference, 99) <= 24  # at the edges of the squares
    turn = list(open_video(path, short_side=short_side, decoder=decoder))
    assert np.array_equal(np.stack(turn), ours)


@needs_torchcodec
@pytest.mark.parametrize("decoder", devices())
@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_rotation(tmp_path: Path, pyav_reads, decoder, matrix: tuple[int, int, int, int]) -> None:
    write_video(tmp_path / "stored.mp4", moving_squares(6), frames_per_second=10)
    path = with_matrix(tmp_path / "stored.mp4", tmp_path / "turned.mp4", matrix)
    ours = open_video(path, decoder=decoder, short_side=32).sample(centers)
    assert pyav_reads == []
    pyav = open_video(path, short_side=32).sample(centers)
    assert ours.shape == pyav.shape
    assert np.abs(ours.astype(int) - pyav.astype(int)).mean() < 3
    video = open_video(path)
    upright = replace(video.metadata, rotation=0)  # as before TorchCodec 0.11
    assert torchcodec_files.open_decoder(path, video.index, video.metadata, device="cpu") is not None
    assert torchcodec_files.open_decoder(path, video.index, upright, device="cpu") is None


@needs_torchcodec
@pytest.mark.parametrize("decoder", devices())
@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])
def test_mirrored_frames(tmp_path: Path, decoder, matrix: tuple[int, int, int, int]) -> None:
    write_video(tmp_path / "stored.mp4", moving_squares(6), frames_per_second=10)
    path = with_matrix(tmp_path / "stored.mp4", tmp_path / "mirrored.mp4", matrix)
    ours = open_video(path, decoder=decoder).sample(centers)
    assert np.array_equal(ours, open_video(path).sample(centers))  # PyAV reads them


@needs_torchcodec
@pytest.mark.parametrize("decoder", devices())
def test_matrices_that_ffmpeg_does_not_convert(tmp_path: Path, decoder) -> None:
    path = write_frame(tmp_path / "made.mkv", stored("yuv444p"), colorspace=8)  # older FFmpegs take it as BT.601
    with pytest.raises(VideoError, match="matrix 8 of"):
        open_video(path, decoder=decoder).frames_at([0])


@needs_torchcodec
@pytest.mark.parametrize("decoder", devices())
def test_palettes(tmp_path: Path, decoder) -> None:
    path = tmp_path / "palette.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("qtrle", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "gray"
        for image in moving_squares(6, 32, 48):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    ours = open_video(path, decoder=decoder).sample(centers)
    assert np.array_equal(ours, open_video(path).sample(centers))  # PyAV reads them: TorchCodec shows them black


@needs_torchcodec
@pytest.mark.parametrize("decoder", devices())
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr(tmp_path: Path, decoder, transfer: int) -> None:
    write_hdr(tmp_path / "hdr.mkv", transfer)
    ours = open_video(tmp_path / "hdr.mkv", decoder=decoder).frames_at([0])
    assert np.array_equal(ours, open_video(tmp_path / "hdr.mkv").frames_at([0]))  # PyAV reads it


@needs_torchcodec
@pytest.mark.parametrize("name", ["a:b.mp4", "%05d.mp4", "-i.mp4", "视频\n.mp4"])
def test_names(gray_video: Path, tmp_path: Path, frame_numbers, monkeypatch, pyav_reads, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(gray_video.read_bytes())
    assert frame_numbers(open_video(name, decoder="torchcodec").frames_at([9])) == [9]
    assert pyav_reads == []


# --- what is left to PyAV ---------------------------------------------------------------------------


@needs_torchcodec
def test_damaged_packets(tmp_path: Path, frame_numbers, pyav_reads) -> None:
    source, path = tmp_path / "whole.mp4", tmp_path / "damaged.mp4"
    frames = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(30)]
    write_video(source, frames, frames_per_second=10, keyframe_every=1)
    overwrite_packets(source, path, start=18)
    ends = open_video(path, decoder="torchcodec").sample(lambda num_frames: [0, num_frames - 1])
    assert frame_numbers(ends) == [0, 17]
    assert pyav_reads[0] == "damaged.mp4"
    assert frame_numbers(list(open_video(path, decoder="torchcodec"))) == list(range(18))


@needs_torchcodec
def test_avi_is_left_to_pyav(tmp_path: Path, pyav_reads) -> None:
    """Its marks of key frames do not hold."""
    path = tmp_path / "video.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in moving_squares(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    frames = open_video(path, decoder="torchcodec").frames_at(range(6))
    assert pyav_reads == ["video.avi"]
    assert np.array_equal(frames, open_video(path).all_frames())


@needs_torchcodec
@pytest.mark.parametrize("content", [b"", b"no video" * 100])
def test_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"the file is empty|not a video"):
        open_video(path, decoder="torchcodec").all_frames()


@needs_torchcodec
def test_videos_met_in_the_wild(shared_data: Path) -> None:
    folder = shared_data / "data/odd-videos"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for path in sorted(folder.iterdir()):
        if path.stat().st_size > 700_000:
            continue
        ours, pyav = (open_video(path, short_side=64, decoder=name).sample(centers) for name in ("torchcodec", "pyav"))
        assert ours.shape == pyav.shape
        difference = np.abs(ours.astype(int) - pyav.astype(int)).mean(axis=(1, 2, 3))
        assert difference.max() < 6, path.name
