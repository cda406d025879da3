"""The times of frames, and durations, of files whose clocks are unusual. Right is what FFmpeg's tools make of them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers.videos import timed_video
from vsn.data.video import at_constant_rate, open_video

TICKS = Fraction(1, 90_000)
B_FRAMES = {"bf": "2", "x264-params": "b-adapt=0:scenecut=0"}
EVEN = [i / 25 for i in range(50)]


def shifted(source: Path, target: Path, offset: Callable[[int], float], packets: slice = slice(None)) -> Path:
    """Copy packets; that of number i gets `offset(i)` seconds added to its time stamps."""
    with av.open(str(source)) as reading, av.open(str(target), "w", options={"avoid_negative_ts": "0"}) as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for i, packet in list(enumerate(packet for packet in reading.demux(video=0) if packet.size))[packets]:
            ticks = round(offset(i) / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = stream
            writing.mux(packet)
    return target


def joined(target: Path, *sources: Path) -> Path:
    target.write_bytes(b"".join(source.read_bytes() for source in sources))
    return target


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames at 25 a second, with B-frames."""
    return timed_video(
        tmp_path_factory.mktemp("times") / "plain.ts",
        EVEN,
        unit=Fraction(1, 25),
        options=B_FRAMES | {"g": "10"},
    )


@pytest.mark.parametrize("jump", [11.0, 5000.0, -1.0, -30.0, -100.0, 95443.0])
def test_a_restarted_clock_of_a_transport_stream_runs_on(plain: Path, tmp_path: Path, jump: float) -> None:
    before = shifted(plain, tmp_path / "before.ts", lambda i: 120.0, slice(30))
    after = shifted(plain, tmp_path / "after.ts", lambda i: 120.0 + jump, slice(30, None))
    path = joined(tmp_path / "jump.ts", before, after)
    with open_video(path) as video:
        assert video.times == pytest.approx(EVEN, abs=0.09)
        assert video.seconds == pytest.approx(2, abs=0.05)
        assert at_constant_rate(video) is video


def test_streams_that_were_concatenated(plain: Path, tmp_path: Path) -> None:
    with open_video(joined(tmp_path / "joined.ts", plain, plain, plain)) as video:
        assert video.num_frames == 150
        assert video.seconds == pytest.approx(6, abs=0.2)
        assert at_constant_rate(video) is video


def test_a_wrap_of_33_bits_in_the_middle(plain: Path, tmp_path: Path) -> None:
    wrap = 2**33 / 90_000
    path = shifted(plain, tmp_path / "wrap.ts", lambda i: wrap - 1)
    with open_video(path) as video:
        assert video.times == pytest.approx(EVEN, abs=1e-3)


@pytest.mark.parametrize("jump", [3.0, 9.0, 9.99])
def test_a_pause_of_a_transport_stream_is_time(plain: Path, tmp_path: Path, jump: float) -> None:
    with open_video(shifted(plain, tmp_path / "pause.ts", lambda i: jump if i >= 30 else 0)) as video:
        assert video.seconds == pytest.approx(2 + jump, abs=0.05)
        assert at_constant_rate(video).num_frames == pytest.approx(25 * (2 + jump), abs=2)


@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("pause", [8.0, 300.0])
def test_a_pause_of_a_file_is_time(tmp_path: Path, extension: str, pause: float) -> None:
    times = [*EVEN, *(2 + pause + seconds for seconds in EVEN)]
    with open_video(timed_video(tmp_path / f"pause{extension}", times, options=B_FRAMES)) as video:
        assert (np.diff(video.index.pts) < 0).any()  # frames change places
        assert video.seconds == pytest.approx(4 + pause, abs=0.05)
        assert at_constant_rate(video).num_frames == pytest.approx(25 * (4 + pause), abs=2)


@pytest.mark.parametrize("extension", [".mp4", ".mov"])
def test_a_last_frame_that_lasts(tmp_path: Path, extension: str) -> None:
    """A screen recording that ends with a still picture, whose container states its duration."""
    path = tmp_path / f"still{extension}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * i, np.uint8), format="rgb24")
            frame.pts = i
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            if packet.pts == 9:
                packet.duration = 251
            container.mux(packet)
    with open_video(path) as video:
        assert video.seconds == pytest.approx(0.36 + 10.04, abs=0.05)
        assert at_constant_rate(video).num_frames == pytest.approx(260, abs=1)
        assert [int(value) for value in at_constant_rate(video).frames_at([0, 100, 259])[:, 0, 0, 0]] == [0, 180, 180]


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_avi_with_dropped_frames(tmp_path: Path, codec: str, b_frames: str) -> None:
    """Recorders store packets of no bytes for frames that they dropped; with B-frames there are no times of display."""
    times = [*EVEN[:10], *(second for second in EVEN[10:40] if round(25 * second) % 5 == 0), *EVEN[40:]]
    path = tmp_path / "dropped.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": b_frames, "g": "12"})
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for seconds in times:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), int(100 * seconds), np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(25 * seconds), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_video(path) as video:
        assert video.num_frames == len(times)
        assert video.seconds == pytest.approx(2, abs=0.1)
        # With B-frames frames are shown when a later one is decoded, so that each of two gaps of 0.16 s is late.
        assert np.abs(video.times - times).max() <= (1e-6 if b_frames == "0" else 0.33)
        assert at_constant_rate(video).num_frames == pytest.approx(50, abs=2)


@pytest.mark.parametrize("extension", [".webm", ".mkv"])
def test_a_first_time_stamp_above_zero(tmp_path: Path, extension: str) -> None:
    """As browsers record: no duration, irregular time stamps, the first of them late."""
    times = np.cumsum([4.2, *np.random.default_rng(0).choice([0.016, 0.033, 0.05, 0.2], 40)])
    with open_video(timed_video(tmp_path / f"late{extension}", times.tolist())) as video:
        assert video.times == pytest.approx(times - 4.2, abs=2e-3)


@pytest.mark.parametrize("rate", [10, 50])
def test_a_stream_without_container_has_the_rate_of_its_header(tmp_path: Path, rate: int) -> None:
    with av.open(str(tmp_path / "raw.h264"), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for i in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), i, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with open_video(tmp_path / "raw.h264") as video:
        assert (video.num_frames, video.frames_per_second) == (20, rate)
        assert video.seconds == pytest.approx(20 / rate)


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".ts"])
def test_one_frame(tmp_path: Path, extension: str) -> None:
    with open_video(timed_video(tmp_path / f"one{extension}", [0])) as video:
        assert (video.num_frames, at_constant_rate(video).num_frames) == (1, 1)
        assert 0 < video.seconds <= 1
