"""Files that no one should have, and names that no one should give: frames or a `VideoError`, always."""

import contextlib
import io
import multiprocessing
import os
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.helpers.mutants import write_mutant, write_sources
from tests.helpers.videos import READERS
from vsn.data.video import VideoError, open_video, write_video
from vsn.data.video import container as containers
from vsn.data.video.reader import MAX_PIXELS


def encoded(
    path: Path, codec: str, height: int, width: int, num_frames: int = 3, pixel_format: str = "yuv420p"
) -> Path:
    """Frames of this size; frame i is gray 8 * i."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        for i in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 8 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# --- content ---------------------------------------------------------------------------------------


def no_frames(path: Path) -> None:
    """A video stream that was announced, without a packet."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def sound_only(path: Path) -> None:
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def loop(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(bytes(100_000)), "not a video that FFmpeg can read"),
        (
            lambda path: path.write_bytes(np.random.default_rng(0).bytes(100_000)),
            "not a video|frames decodes",
        ),
        (no_frames, "its video stream is empty"),
        (sound_only, "it has no video stream"),
        (loop, r"cannot be opened \(Too many levels of symbolic links\)"),
        (lambda path: path.symlink_to("nowhere"), "no such file"),
        pytest.param(
            lambda path: os.mkfifo(path),
            "not a regular file",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here"),
        ),
    ],
    ids=["empty", "zeros", "noise", "no frames", "sound", "link loop", "dead link", "pipe"],
)
def test_no_video(tmp_path: Path, make: Callable[[Path], object], reason: str, read) -> None:
    path = tmp_path / "video.mp4"
    make(path)
    with pytest.raises(VideoError, match=reason):
        read(path)


def test_a_path_below_a_file(gray_video: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        open_video(gray_video / "video.mp4")


def test_a_cut_tail(gray_video: Path, tmp_path: Path, frame_numbers) -> None:
    """The tables of an MP4 are at its end; a Matroska file gives what is there."""
    path = tmp_path / "cut.mp4"
    path.write_bytes(gray_video.read_bytes()[:-400])
    with pytest.raises(VideoError, match="not a video that FFmpeg can read"):
        open_video(path).all_frames()
    whole = encoded(tmp_path / "whole.mkv", "ffv1", 32, 48, num_frames=20)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    numbers = frame_numbers(open_video(cut).all_frames())
    assert 5 <= len(numbers) < 20
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (6, 5), (10, 10_000), (10_000, 10)])
@pytest.mark.parametrize("codec", ["ffv1", "mjpeg"])
def test_odd_sizes(tmp_path: Path, frame_numbers, size: tuple[int, int], codec: str) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encoded(tmp_path / "odd.mkv", codec, *size, pixel_format=pixel_format)
    frames = open_video(path).frames_at([2, 1])
    assert frames.shape == (2, *size, 3)
    assert frame_numbers(frames) == [2, 1]
    info = open_video(path).metadata
    assert (info.num_frames, info.height, info.width) == (3, *size)


def test_one_pixel_is_enlarged(tmp_path: Path, frame_numbers) -> None:
    path = encoded(tmp_path / "dot.mkv", "ffv1", 1, 1)
    frames = open_video(path, short_side=32).all_frames()
    assert frames.shape == (3, 32, 32, 3)
    assert frame_numbers(frames) == [0, 1, 2]


@pytest.mark.parametrize("size", [(10, 10_000), (10_000, 10), (10, 180), (180, 10)])
def test_a_thin_frame_is_not_blown_up(tmp_path: Path, size: tuple[int, int]) -> None:
    """Of 10x10000 pixels at a shorter side of 256, eight frames would take 1.5 GB, and a network ten times that."""
    path = encoded(tmp_path / "thin.mkv", "ffv1", *size)
    assert open_video(path).all_frames().shape == (3, *size, 3)
    with pytest.raises(VideoError, match=rf"{size[0]}x{size[1]} pixels .* limit is 16 times the shorter side"):
        open_video(path, short_side=20).all_frames()


@pytest.mark.parametrize("size", [(10, 160), (160, 10)])
def test_a_frame_within_the_limit_of_its_sides_is_read(tmp_path: Path, size: tuple[int, int]) -> None:
    path = encoded(tmp_path / "strip.mkv", "ffv1", *size)
    assert open_video(path, short_side=20).all_frames().shape == (3, *(2 * side for side in size), 3)


def gigantic_jpegs(path: Path, side: int) -> None:
    """The size stands in the headers of an AVI file and of the pictures in it."""
    encoded(path, "mjpeg", 48, 64, num_frames=6, pixel_format="yuvj420p")
    content = bytearray(path.read_bytes())
    start = content.index(b"strf") + 12
    content[start : start + 8] = struct.pack("<II", side, side)
    place = content.find(b"\xff\xc0")
    while place > 0:
        content[place + 5 : place + 9] = struct.pack(">HH", side, side)
        place = content.find(b"\xff\xc0", place + 9)
    path.write_bytes(content)


def gigantic_raw(path: Path, side: int) -> None:
    encoded(path, "rawvideo", 48, 64, num_frames=6, pixel_format="bgr24")
    content = bytearray(path.read_bytes())
    start = content.index(b"strf") + 12
    content[start : start + 8] = struct.pack("<II", side, side)
    path.write_bytes(content)


def gigantic_ffv1(path: Path, side: int) -> None:
    """PixelWidth and PixelHeight of a Matroska track; FFV1 takes its size from there."""
    encoded(path.with_suffix(".mkv"), "ffv1", 0x0134, 0x0136, num_frames=1)
    content = bytearray(path.with_suffix(".mkv").read_bytes())
    for tag, old in ((b"\xb0\x82", 0x0136), (b"\xba\x82", 0x0134)):
        place = content.index(tag + struct.pack(">H", old))
        content[place + 2 : place + 4] = struct.pack(">H", side)
    path.write_bytes(content)


# FFmpeg refuses 60,000 pixels a side by itself; 16,000 it takes.
@pytest.mark.parametrize("side", [60_000, 16_000])
@pytest.mark.parametrize("make", [gigantic_jpegs, gigantic_raw, gigantic_ffv1])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_gigantic_frame_is_refused_by_its_header(tmp_path: Path, make, side: int, read) -> None:
    path = tmp_path / "gigantic.avi"
    make(path, side)
    with (
        little_memory(200),  # megabytes; one such frame takes 400 and more
        pytest.raises(VideoError, match=r"frames decodes; .* announces more than 36 million pixels"),
    ):
        read(path)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_gigantic_frame_in_a_broadcast_stream(tmp_path: Path, read) -> None:
    """The size stands in the sequence headers of MPEG-2."""
    path = encoded(tmp_path / "gigantic.ts", "mpeg2video", 48, 64, num_frames=6)
    content = bytearray(path.read_bytes())
    for place in (i for i in range(len(content)) if content[i : i + 4] == b"\0\0\1\xb3"):
        content[place + 4 : place + 7] = b"\xe8\x0e\x80"  # the low 12 bits of 16000, twice
        extension = content.index(b"\0\0\1\xb5", place)
        content[extension + 5] |= 0x01  # the high 2 bits of the width
        content[extension + 6] |= 0xE0  # and of the height
    path.write_bytes(content)
    with (
        little_memory(200),
        pytest.raises(VideoError, match=r"frames decodes; .* announces more than 36 million pixels"),
    ):
        read(path)


def test_a_frame_that_grows_too_large_is_passed_over(tmp_path: Path, frame_numbers) -> None:
    """The size is announced only by the third picture, not by the container."""
    path = tmp_path / "grows.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i, size in enumerate([(64, 48), (64, 48), (7000, 5200), (80, 60), (64, 48)]):
            picture = io.BytesIO()
            Image.new("RGB", size, (8 * i,) * 3).save(picture, "JPEG")
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 10), i, i
            container.mux(packet)
    with little_memory(100):  # megabytes; the third takes 110 as RGB
        frames = open_video(path).all_frames()
    assert frames.shape == (4, 48, 64, 3)
    assert frame_numbers(frames) == [0, 1, 3, 4]


def test_a_table_of_more_frames_than_bytes(tmp_path: Path, gray_video: Path) -> None:
    """An MP4 whose tables announce 200,000 frames of one byte."""
    path = tmp_path / "table.mp4"
    content = bytearray(gray_video.read_bytes())
    place = content.index(b"stsz") + 8
    content[place : place + 8] = struct.pack(">II", 1, 200_000)
    place = content.index(b"stsc") + 16  # samples of the first chunk
    content[place : place + 4] = struct.pack(">I", 200_000)
    path.write_bytes(content)
    with little_memory(100), pytest.raises(VideoError, match=r"none of its [0-9]+ frames decodes"):
        open_video(path).all_frames()


@contextlib.contextmanager
def little_memory(megabytes: float) -> Iterator[None]:
    """Fails when the process grows by more than that inside. Without /proc nothing is measured."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    except OSError:
        yield
        return
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < megabytes


def memory(key: str) -> float:
    """Megabytes of this process: "VmRSS" now, "VmHWM" at its peak."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1000


def test_the_limit_leaves_room_for_real_videos() -> None:
    assert MAX_PIXELS >= 8192 * 4320


def test_a_playlist_opens_no_other_file(tmp_path: Path, gray_video: Path) -> None:
    """Names of files in a file: of itself (without end), of others."""
    (tmp_path / "real.mp4").write_bytes(gray_video.read_bytes())
    for name in ("self.mp4", "real.mp4"):
        (tmp_path / "self.mp4").write_text(f"ffconcat version 1.0\nfile {name}\n")
        (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n")
        for playlist in ("self.mp4", "list.mp4"):
            with pytest.raises(VideoError, match="not a video that FFmpeg can read"):
                open_video(tmp_path / playlist).all_frames()


def test_reading_that_stalls_is_given_up(gray_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_STALL_SECONDS", 0.0)
    for read in READERS.values():
        with pytest.raises(VideoError, match="stalled for 0 seconds"):
            read(gray_video)


# --- names -----------------------------------------------------------------------------------------

NAMES = [
    "two words.mp4",
    "'single' \"double\".mp4",
    "line\nbreak.mp4",
    "tab\tand\rreturn.mp4",
    "-i.mp4",
    "--help",
    "视频 видео ビデオ é.mp4",
    "e\u0301🎬.mp4",
    "http:__a.b:c.mp4",
    "file:x.mp4",
    "pipe:0",
    "concat:a|b",
    "%05d.mp4",
    "%s%n%d.mp4",
    "a*?[b].mp4",
    "img_%03d.avi",
    "no suffix",
    "a{:05d}.mp4",
    "$(touch x);&.mp4",
    "b\\slash.mp4",
    ".hidden.mp4",
    "x" * 240 + ".mp4",
    os.fsdecode(b"latin-1 \xe9\xff.mp4"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names(tmp_path: Path, gray_video: Path, frame_numbers, monkeypatch, name: str) -> None:
    folder = tmp_path / "1 a/2 %d/3 :b/4 'c'/5 ü"  # five levels, odd ones too
    folder.mkdir(parents=True)
    path = folder / name
    try:
        path.write_bytes(gray_video.read_bytes())
    except OSError:
        pytest.skip("a name this file system does not take")
    assert frame_numbers(open_video(path).frames_at([29, 3])) == [29, 3]
    assert open_video(path).num_frames == 30
    monkeypatch.chdir(folder)
    assert frame_numbers(open_video(name).frames_at([7])) == [7]
    path.write_bytes(b"no video")
    with pytest.raises(VideoError) as caught:
        open_video(path)
    assert caught.value.path == str(path)
    assert len(str(caught.value).splitlines()) == 1
    str(caught.value).encode()  # can be printed


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_of_frame_folders(tmp_path: Path, frame_numbers, name: str) -> None:
    folder = tmp_path / "1/2/3/4/5" / name
    folder.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((16, 16, 3), 8 * i, np.uint8)).save(folder / f"{i:03d}.png")
    assert frame_numbers(open_video(folder).all_frames()) == [0, 1, 2]


def test_a_percent_sign_is_no_pattern(tmp_path: Path) -> None:
    """FFmpeg would read 00000.jpg, 00001.jpg, ... for this name."""
    for name in ("%05d.jpg", "00000.jpg", "00001.jpg"):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / name)
    with pytest.raises(VideoError, match="not a video that FFmpeg can read"):
        open_video(tmp_path / "%05d.jpg").all_frames()
    assert len(open_video(tmp_path / "00000.jpg").all_frames()) == 1  # it is the name that is not read


def test_names_that_cannot_be(tmp_path: Path) -> None:
    for name, why in (("a\0b.mp4", "null (byte|character)"), ("x" * 300, "File name too long")):
        with pytest.raises(VideoError, match=why):
            open_video(tmp_path / name)


def test_written_names(tmp_path: Path, frame_numbers) -> None:
    for i, name in enumerate(("%05d a:b.mp4", "-y.mp4", "line\nbreak.mp4")):
        write_video(tmp_path / name, [np.full((32, 32, 3), 8 * i, np.uint8)] * 2, frames_per_second=5)
        assert frame_numbers(open_video(tmp_path / name).all_frames()) == [i, i]
        assert len(list(tmp_path.iterdir())) == i + 1


# --- fuzzing ---------------------------------------------------------------------------------------

FILE_SECONDS = 60
"""A reader may take this long for a file; the files are tiny, the machine may be busy."""


def _serve(connection: Connection) -> None:
    """Read the files whose paths come, and tell what became of each, in seconds and megabytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while path := connection.recv():
        start = time.monotonic()
        outcomes = []
        for read in (
            READERS["metadata"],
            lambda path: open_video(path, short_side=24).sample(lambda num_frames: np.arange(4) * num_frames // 4),
            READERS["all"],
        ):
            try:
                read(path)
                outcomes.append("frames")
            except VideoError:
                outcomes.append("error")
            except BaseException as error:
                outcomes.append(f"{type(error).__name__}: {error}")
        connection.send((outcomes, time.monotonic() - start, memory("VmRSS"), memory("VmHWM")))


class Worker:
    """A reading process that is started again when it dies or hangs."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def read(self, path: Path) -> tuple[list[str], float, float, float]:
        self.connection.send(path)
        with contextlib.suppress(EOFError, ConnectionResetError):
            if self.connection.poll(FILE_SECONDS):
                return self.connection.recv()
        fate = "hung" if self.process.is_alive() else f"died ({self.process.exitcode})"
        self.stop()
        self.start()
        return [fate], float(FILE_SECONDS), 0.0, 0.0

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory use from /proc")
def test_mutated_files_give_frames_or_a_video_error(tmp_path: Path) -> None:
    """Two thousand files: no reader dies, hangs, raises anything else, or keeps growing."""
    num_files = int(os.environ.get("VSN_MUTANTS", "2000"))
    sources = write_sources(tmp_path / "sources")
    worker, found, bad = Worker(), Counter(), []
    resident, slowest, peak = [], (0.0, ""), 0.0
    for number in range(num_files):
        source = sources[number % len(sources)]
        path = write_mutant(source, tmp_path / f"{number:05d}", f"mutant {number}")
        outcomes, seconds, megabytes, peak = worker.read(path)
        found.update((source.name, outcome) for outcome in outcomes)
        if set(outcomes) - {"frames", "error"}:
            bad.append((number, source.name, outcomes))
        slowest = max(slowest, (seconds, f"{number} {source.name}"))
        resident.append(megabytes)
        if number == 200:
            after_200 = max(resident[100:])
    worker.stop()
    print(f"\n{found}\nslowest {slowest}, resident {after_200:.0f} then {max(resident[-100:]):.0f}, peak {peak:.0f} MB")
    assert bad == []
    assert min(found[source.name, "frames"] for source in sources) > 0  # not all are broken beyond reading
    assert min(found[source.name, "error"] for source in sources) > 0
    assert max(resident[-100:]) < after_200 + 40
