"""Unevenly spaced frames are shown at a constant rate, as FFmpeg extracts them; evenly spaced ones as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers.videos import timed_video
from vsn.data.video import Part, PartReader, VideoReader, at_constant_rate, open_video
from vsn.data.video.reader import checked_indices, usual_interval

RATES = [1.0, 10.0, 12.5, 24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 120.0, 240.0, 960.0, 1000.0]
UNITS = {"exact": 0.0, "matroska": 1 / 1000, "quicktime": 1 / 600, "transport stream": 1 / 90_000}


class NumberedReader(VideoReader):
    """Frames of one pixel that hold their number, at these times."""

    def __init__(
        self, times: Sequence[float] | np.ndarray, last_seconds: float | None = None, *, rate: float = 0.0
    ) -> None:
        super().__init__("video", num_frames=len(times), frames_per_second=rate)
        self._times, self._last_seconds = np.asarray(times, np.float64), last_seconds

    @property
    def times(self) -> np.ndarray:
        return self._times

    @property
    def last_seconds(self) -> float:
        return super().last_seconds if self._last_seconds is None else self._last_seconds

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        numbers = np.array(checked_indices(indices, self.num_frames))
        return np.broadcast_to((numbers % 256).astype(np.uint8)[:, None, None, None], (len(numbers), 1, 1, 3))

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.frames_at(range(self.num_frames)))


def shown(reader: VideoReader) -> list[int]:
    """The number of the stored frame that each frame shows."""
    return reader.frames_at(range(reader.num_frames))[:, 0, 0, 0].tolist()


def rounded(times: np.ndarray, unit: float) -> np.ndarray:
    return np.round(times / unit) * unit if unit else times


@pytest.mark.parametrize("num_frames", [1, 2, 3, 10, 299, 5000])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rate", RATES)
def test_a_constant_rate_is_left_as_it_is(rate: float, unit: str, num_frames: int) -> None:
    if unit == "quicktime" and rate > 600:
        pytest.skip("time stamps would repeat")
    times = rounded(np.arange(num_frames) / rate, UNITS[unit])
    for last in (None, 1 / rate, 0.3 / rate, 2 / rate):
        for announced in (0.0, rate, 1.001 * rate):
            video = NumberedReader(times, last, rate=announced)
            assert at_constant_rate(video) is video


def test_jitter_pulldown_and_a_lost_frame_are_even() -> None:
    generator = np.random.default_rng(0)
    frames = np.arange(300) / 30
    jitter = frames + np.concatenate([[0], generator.uniform(-0.4, 0.4, 299)]) / 30
    pulldown = np.cumsum([0, *[2, 3] * 100]) / 60  # 24 frames a second as 60 fields
    lost = np.delete(frames, 150)
    for times in (jitter, pulldown, lost, rounded(lost, 1e-3)):
        video = NumberedReader(times)
        assert at_constant_rate(video) is video


def test_a_rate_that_is_announced_wrongly() -> None:
    """Frames evenly spaced at another rate than the container says: the same frames, at their rate."""
    stored = NumberedReader(np.arange(100) / 15, rate=30.0)
    video = at_constant_rate(stored)
    assert video.frames_per_second == pytest.approx(15)
    assert shown(video) == list(range(100))


def test_the_rate_of_rounded_time_stamps() -> None:
    """GIF has hundredths of a second: 59.94 frames per second are 1 or 2 of them apart."""
    stored = NumberedReader(rounded(np.arange(360) * 1001 / 60000, 1 / 100), rate=100.0)
    video = at_constant_rate(stored)
    assert video.frames_per_second == pytest.approx(59.94, rel=0.001)
    assert shown(video) == [number % 256 for number in range(360)]


@pytest.mark.parametrize("unit", ["exact", "matroska", "transport stream"])
def test_the_usual_rate_does_not_depend_on_rounding(unit: str) -> None:
    """Of frames 1/30 second apart two of three were dropped at random: most are two steps apart, others one or three."""
    steps = np.random.default_rng(1).choice([1, 2, 3], 200, p=[0.3, 0.4, 0.3])
    times = rounded(np.cumsum([0, *steps]) / 30, UNITS[unit])
    assert usual_interval(times) == pytest.approx(2 / 30, abs=1e-4)


# Seconds of the frames, how long the last one is shown, frames per second at a constant rate, stored frames shown there.
CASES: dict[str, tuple[list[float], float, float, list[int]]] = {
    "slow, then fast": ([0, 1, 2, 2.1, 2.2, 2.3], 0.1, 10, [0] * 10 + [1] * 10 + [2, 3, 4, 5]),
    "a pause": ([0, 0.1, 0.2, 1.0, 1.1, 1.2], 0.1, 10, [0, 1, *[2] * 8, 3, 4, 5]),
    "a last frame that lasts": ([0, 0.1, 0.2], 0.5, 10, [0, 1, 2, 2, 2, 2, 2]),
    "a late second frame": ([0, 0.4, 0.5, 0.6, 0.7], 0.1, 10, [0, 0, 0, 0, 1, 2, 3, 4]),
    "frames closer than most": ([0, 0.1, 0.2, 0.3, 0.32, 0.34, 0.6, 0.7, 0.8, 0.9], 0.1, 10, [0, 1, 2, 5, 5, 5, 6, 7, 8, 9]),
    "rounded time stamps": ([0, 0.033, 0.067, 0.1, 0.133, 0.5, 0.533, 0.567], 0.033, 30, [0, 1, 2, 3, *[4] * 11, 5, 6, 7]),
    "a first time stamp that is wrong": ([0, 5000, 5000.1, 5000.2, 5000.3], 0.1, 10, [0, 1, 2, 3, 4]),
    "a last time stamp that is wrong": ([0, 0.1, 0.2, 0.3, 5000], 0.1, 10, [0, 1, 2, 3, 4]),
    "a last duration that is wrong": ([0, 0.1, 0.2, 0.3, 0.4], 5000, 10, [0, 1, 2, 3, 4]),
    "stamps that repeat": ([0, 0.1, 0.1, 0.2, 0.7, 0.8], 0.1, 10, [0, 2, *[3] * 5, 4, 5]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_frame_is_shown_until_the_next(name: str) -> None:
    times, last_seconds, rate, expected = CASES[name]
    video = at_constant_rate(NumberedReader(times, last_seconds))
    assert shown(video) == expected
    assert [int(frame[0, 0, 0]) for frame in video] == expected  # one after the other as by number
    assert video.frames_per_second == pytest.approx(rate, rel=0.01)
    assert video.seconds == pytest.approx(len(expected) / rate, rel=0.01)


def test_a_pause_of_days_takes_no_memory() -> None:
    video = at_constant_rate(NumberedReader([0, 0.001, 0.002, 5e5, 5e5 + 0.001, 1e6]))
    assert video.num_frames > 9e8
    assert video.frames_at([0, 5, video.num_frames - 1])[:, 0, 0, 0].tolist() == [0, 2, 5]


# --- files, against FFmpeg -----------------------------------------------------------------------------


def extracted(path: Path, rate: Fraction) -> list[int]:
    """The first pixel of each frame that FFmpeg's filter `fps` gives."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        graph.link_nodes(
            graph.add_buffer(template=stream),
            graph.add("fps", f"fps={rate.numerator}/{rate.denominator}"),
            graph.add("buffersink"),
        ).configure()
        frames = []
        for frame in [*container.decode(stream), None]:
            graph.push(frame)
            try:
                while True:
                    frames.append(int(graph.pull().to_ndarray(format="rgb24")[0, 0, 0]))
            except (BlockingIOError, EOFError):
                pass
        return frames


STAMPS = {
    "slow, then fast": [*range(0, 1000, 200), *range(1000, 2000, 40)],
    "four of five lost": [*range(0, 1000, 40), *range(1000, 2000, 200)],
    "irregular": np.cumsum([0, *np.random.default_rng(1).choice([17, 33, 41, 130, 500], 50)]).tolist(),
    "dropped at random": np.cumsum(
        [0, *np.random.default_rng(2).choice([40, 80, 120], 60, p=[0.3, 0.4, 0.3])]
    ).tolist(),
    "a still": [*range(0, 400, 40), 4000, 4040, 4080],
}


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".webm", ".mov"])
@pytest.mark.parametrize("name", STAMPS)
def test_equal_to_frames_that_ffmpeg_extracts(tmp_path: Path, name: str, extension: str) -> None:
    stamps = STAMPS[name]
    path = timed_video(tmp_path / f"video{extension}", [stamp / 1000 for stamp in stamps])
    with at_constant_rate(open_video(path)) as video:
        pictures = video.frames_at(range(video.num_frames))[:, 0, 0, 0].astype(int)
        expected = extracted(path, Fraction(video.frames_per_second).limit_denominator(1000))
        assert video.num_frames > len(stamps)
    # FFmpeg takes the last frame to last as long as the container says, which Matroska does not.
    assert abs(len(pictures) - len(expected)) <= 1
    count = min(len(pictures), len(expected))
    assert np.abs(pictures[:count] - expected[:count]).max() <= 1


# Frames at 0, 1, 2, ... 4 seconds, then ten a second: a part, and the frames that its constant rate shows.
PARTS: dict[tuple[float, float | None], list[int]] = {
    (0.0, 2.0): [0] * 10 + [1] * 10,
    (2.2, 2.7): [2],
    (3.5, 5.3): [3] * 5 + [4] * 10 + [5, 6, 7],
    (5.0, 5.5): [5, 6, 7, 8, 9],
    (4.5, None): [4] * 5 + list(range(5, 20)),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_shows_its_own_time(part: tuple[float, float | None]) -> None:
    whole = NumberedReader([0, 1, 2, 3, 4, *(5 + i / 10 for i in range(15))])
    video = at_constant_rate(PartReader(whole, Part(*part)))
    numbers = np.array(shown(video))
    # A part of even frames keeps its own interval.
    got = numbers[(np.arange(len(PARTS[part])) * len(numbers) / len(PARTS[part])).astype(int)].tolist()
    assert got == PARTS[part]


@pytest.mark.parametrize("start", [0.0, 0.99, 1.0, 1.01, 1.039])
@pytest.mark.parametrize("end", [1.05, 2.0, 2.03, None])
def test_a_part_of_a_constant_rate_is_left_as_it_is(start: float, end: float | None) -> None:
    part = PartReader(NumberedReader(np.arange(100) / 25, rate=25.0), Part(start, end))
    assert at_constant_rate(part) is part
