"""TorchCodec reads the frames that PyAV reads. Skipped where it, or the FFmpeg it needs, is missing."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from tests.data.video.test_decode import moving_squares, with_matrix
from vsn.config import ClipSpec, ConfigError, DataConfig
from vsn.data.video import torchcodec_files, video_files
from vsn.data.video.decode import VideoError, iter_frames, read_all_frames, read_frames, write_video
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
needs_torchcodec = pytest.mark.skipif(bool(UNUSABLE), reason=UNUSABLE or "usable")


@pytest.fixture(autouse=True)
def looked_for_anew() -> Iterator[None]:
    torchcodec_files._load.cache_clear()
    yield
    torchcodec_files._load.cache_clear()


def centers(num_frames: int, rate: float) -> list[int]:
    return [int((i + 0.5) * num_frames / 8) for i in range(8)]


@pytest.fixture
def pyav_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that were left to PyAV."""
    reads: list[str] = []
    for name in ("read_file", "iter_file"):
        original = getattr(video_files, name)

        def noted(path, *args, original=original, **options):
            reads.append(Path(path).name)
            return original(path, *args, **options)

        monkeypatch.setattr(video_files, name, noted)
    return reads


# --- without it ------------------------------------------------------------------------------------


def test_not_installed(gray_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    for read in (read_all_frames, lambda path, **options: list(iter_frames(path, **options))):
        with pytest.raises(
            ConfigError,
            match=r'TorchCodec, which is not installed\. Install it with pip install "vsn\[torchcodec\]"',
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
    said = r"does not load \(Could not load libtorchcodec\)\. It wants the shared libraries .* apt install ffmpeg"
    with pytest.raises(ConfigError, match=said):
        read_all_frames(gray_video, decoder="torchcodec")


def test_the_doctor_does_not_take_that_for_broken_videos(gray_video: Path, without_libraries: None) -> None:
    config = DataConfig(root=str(gray_video.parent), source="folder", decoder="torchcodec")
    with pytest.raises(ConfigError, match="TorchCodec, which is installed and does not load"):
        examine(config, ClipSpec(), 8, num_workers=0, progress=False)


def test_folders_need_no_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "1.png")
    assert read_all_frames(tmp_path, decoder="torchcodec")[0].shape == (1, 8, 8, 3)


@needs_torchcodec
def test_no_gpu(gray_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match='there is no CUDA device; set it to "torchcodec" or "pyav"'):
        read_all_frames(gray_video, decoder="torchcodec-cuda")


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
    asked = []
    frames = read_frames(gray_video, lambda *told: asked.append(told) or indices, decoder=decoder, short_side=16)
    assert (frames.shape, frames.dtype) == ((len(indices), 16, 24, 3), np.uint8)
    assert frame_numbers(frames) == indices
    assert asked == [(30, 12.0)]
    assert pyav_reads == []


@needs_torchcodec
@pytest.mark.parametrize("decoder", devices())
@pytest.mark.parametrize("short_side", [None, 48, 100])
def test_pixels(tmp_path: Path, pyav_reads, decoder, short_side: int | None) -> None:
    path = tmp_path / "squares.mp4"
    write_video(path, moving_squares(20), frames_per_second=24, crf=12)
    ours, rate = read_all_frames(path, short_side=short_side, decoder=decoder)
    assert pyav_reads == []
    pyav, _ = read_all_frames(path, short_side=short_side)
    assert ours.shape == pyav.shape
    assert rate == 24.0
    difference = np.abs(ours.astype(int) - pyav.astype(int))
    assert difference.mean() < 2
    assert np.percentile(difference, 99) <= 24  # at the edges of the squares
    turn = list(iter_frames(path, short_side=short_side, decoder=decoder))
    assert np.array_equal(np.stack(turn), ours)


@needs_torchcodec
@pytest.mark.parametrize("decoder", devices())
@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_rotation(tmp_path: Path, pyav_reads, decoder, matrix: tuple[int, int, int, int]) -> None:
    write_video(tmp_path / "stored.mp4", moving_squares(6), frames_per_second=10)
    path = with_matrix(tmp_path / "stored.mp4", tmp_path / "turned.mp4", matrix)
    ours = read_frames(path, centers, decoder=decoder, short_side=32)
    assert pyav_reads == []
    pyav = read_frames(path, centers, short_side=32)
    assert ours.shape == pyav.shape
    assert np.abs(ours.astype(int) - pyav.astype(int)).mean() < 3
    facts = torchcodec_files._Facts.of(path)
    assert torchcodec_files._open(path, facts, "cpu") is not None
    assert torchcodec_files._open(path, replace(facts, rotation=0), "cpu") is None  # as before TorchCodec 0.11


@needs_torchcodec
@pytest.mark.parametrize("name", ["a:b.mp4", "%05d.mp4", "-i.mp4", "视频\n.mp4"])
def test_names(gray_video: Path, tmp_path: Path, frame_numbers, monkeypatch, pyav_reads, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(gray_video.read_bytes())
    assert frame_numbers(read_frames(name, lambda *told: [9], decoder="torchcodec")) == [9]
    assert pyav_reads == []


# --- what is left to PyAV ---------------------------------------------------------------------------


@needs_torchcodec
def test_damaged_packets(tmp_path: Path, frame_numbers, pyav_reads) -> None:
    source, path = tmp_path / "whole.mp4", tmp_path / "damaged.mp4"
    frames = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(30)]
    write_video(source, frames, frames_per_second=10, keyframe_every=1)
    with av.open(str(source)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(source.read_bytes())
    for position, size in places[18:]:
        content[position : position + size] = b"\xff" * size
    path.write_bytes(content)
    ends = read_frames(path, lambda num_frames, rate: [0, num_frames - 1], decoder="torchcodec")
    assert frame_numbers(ends) == [0, 17]
    assert pyav_reads == ["damaged.mp4"]
    assert frame_numbers(list(iter_frames(path, decoder="torchcodec"))) == list(range(18))


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
    assert np.array_equal(read_all_frames(path, decoder="torchcodec")[0], read_all_frames(path)[0])
    assert pyav_reads[0] == "video.avi"


@needs_torchcodec
@pytest.mark.parametrize("content", [b"", b"no video" * 100])
def test_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"the file is empty|not a video"):
        read_all_frames(path, decoder="torchcodec")


@needs_torchcodec
def test_videos_met_in_the_wild(shared_data: Path) -> None:
    folder = shared_data / "data/odd-videos"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for path in sorted(folder.iterdir()):
        if path.stat().st_size > 700_000:
            continue
        ours, pyav = (read_frames(path, centers, short_side=64, decoder=name) for name in ("torchcodec", "pyav"))
        assert ours.shape == pyav.shape
        difference = np.abs(ours.astype(int) - pyav.astype(int)).mean(axis=(1, 2, 3))
        assert difference.max() < 6, path.name


def test_why_it_does_not_load_is_one_line() -> None:
    said = torchcodec_files._without_libraries
    assert "does not load (no FFmpeg). It" in str(said(RuntimeError("\nno FFmpeg\nmore")))
    assert "does not load (OSError). It" in str(said(OSError()))
