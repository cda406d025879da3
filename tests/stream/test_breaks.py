"""Files with long pauses and clocks that restart: no window spans a break, and nothing is predicted of no pictures."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.videos import timed_video
from tests.stream.test_stream import CLASSES, make_predictor
from vsn.cli import main
from vsn.config import LiveConfig, WindowConfig
from vsn.data.video import open_video
from vsn.inference.forward import view_scores
from vsn.stream.file_windows import read_windows
from vsn.stream.labels import WindowPrediction
from vsn.stream.source import Source
from vsn.stream.stream import Stream
from vsn.stream.timeline import make_timeline, scored_timeline
from vsn.system.interrupt import StopRequest

B_FRAMES = {"bf": "2", "x264-params": "b-adapt=0:scenecut=0"}
EVEN = [i / 25 for i in range(50)]


def ts_of_parts(path: Path, offsets: Sequence[float]) -> Path:
    """Two seconds of pictures from each of these times on, as one transport stream."""
    parts = {
        offset: timed_video(
            path.with_name("part.ts"), [offset + t for t in EVEN], unit=Fraction(1, 90_000)
        ).read_bytes()
        for offset in set(offsets)
    }
    path.write_bytes(b"".join(parts[offset] for offset in offsets))
    return path


BROKEN = {
    "pause.mp4": lambda path: timed_video(path, [*EVEN, *(10 + t for t in EVEN)], options=B_FRAMES),
    "pause.mkv": lambda path: timed_video(path, [*EVEN, *(10 + t for t in EVEN)], options=B_FRAMES),
    "days.mkv": lambda path: timed_video(path, [*EVEN, *(1e6 + t for t in EVEN)]),
    "ahead.ts": lambda path: ts_of_parts(path, [100, 5100]),
    "back.ts": lambda path: ts_of_parts(path, [100, 10]),
    "back a little.ts": lambda path: ts_of_parts(path, [100, 99]),
    "many.ts": lambda path: ts_of_parts(path, [100, 10, 5000, 7, 7, 7]),
}
PARTS = {
    "pause.mp4": [(0, 2.8), (10, 12)],
    "pause.mkv": [(0, 2.8), (10, 12)],
    "days.mkv": [(0, 2.8), (1e6, 1e6 + 2)],
    "ahead.ts": [(0, 2), (2, 4)],
    "back.ts": [(0, 2), (2, 4)],
    "back a little.ts": [(0, 2), (2, 4)],
    "many.ts": [(2 * i, 2 * i + 2) for i in range(6)],
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("broken")
    return {name: make(folder / name) for name, make in BROKEN.items()}


@pytest.mark.parametrize("name", BROKEN)
def test_frames_and_times_are_those_of_evaluation(broken: dict[str, Path], name: str) -> None:
    frames = list(Source(broken[name], LiveConfig(fast=True)).frames(threading.Event()))
    with open_video(broken[name]) as video:
        assert len(frames) == video.num_frames
        assert [frame.seconds for frame in frames] == pytest.approx(video.times, abs=0.06)
        assert frames[-1].end == pytest.approx(video.seconds, abs=0.06)
    # Each is on display until the next.
    assert all(frame.end == after.seconds for frame, after in itertools.pairwise(frames))


@pytest.mark.parametrize("name", BROKEN)
def test_no_window_spans_a_break(broken: dict[str, Path], name: str) -> None:
    with open_video(broken[name]) as video:
        seconds = video.seconds
    found = read_windows(broken[name], make_predictor().recipe, seconds=0.8, max_windows=10**9, video_seconds=4.0)
    assert found.seconds == pytest.approx(seconds, abs=0.06)
    assert np.array(found.parts) == pytest.approx(np.array(PARTS[name], float), abs=0.06)
    for number in found.numbers:
        start, end = found.grid.interval(number)
        assert any(begin - 0.11 <= start and end <= finish + 0.11 for begin, finish in found.parts)
    # As many as fit: windows start 0.2 seconds apart, and a part may begin between two.
    expected = sum((end - start - 0.8) / 0.2 + 1 for start, end in PARTS[name])
    assert expected - 2 * len(PARTS[name]) <= len(found.numbers) <= expected + len(PARTS[name])
    # After a break windows differ: none repeats one picture.
    assert all(np.ptp(clip.reshape(4, -1)[:, 0].astype(int)) > 0 for clip in found.clips[-3:])


@pytest.mark.parametrize("name", BROKEN)
def test_timelines_of_the_command_and_of_the_service_agree(broken: dict[str, Path], name: str) -> None:
    predictor = make_predictor()
    scored = read_windows(broken[name], predictor.recipe, seconds=0.8, max_windows=1000, video_seconds=4.0)
    logits = [predictor_logits(predictor, clip) for clip in scored.clips]
    config = WindowConfig(seconds=0.8, enter=0.0, leave=0.0)
    made = make_timeline(predictor, broken[name], windows=config)
    there = scored_timeline(broken[name], scored, logits, classes=CLASSES, config=config)
    assert (made.parts, made.seconds) == (there.parts, there.seconds)
    assert [one.start for one in made.predictions] == [one.start for one in there.predictions]
    for one, other in zip(made.predictions, there.predictions, strict=True):
        assert one.smoothed == pytest.approx(other.smoothed, abs=1e-4)
    # With no unknown time, segments are the parts.
    labeled = sum(segment.end - segment.start for segment in made.segments)
    assert labeled == pytest.approx(sum(end - start for start, end in made.parts))


def predictor_logits(predictor, clip: np.ndarray) -> np.ndarray:
    view = predictor.recipe.eval
    clips = torch.from_numpy(clip)[None]
    return view_scores(predictor.model, clips, predictor.precision, batch_size=view.batch_size, average=view.average)[0]


def test_a_last_still_counts_for_one_window(tmp_path: Path) -> None:
    """A pause, then one last picture: it is labeled for as long as a window, and a duration of hours takes no time."""
    path = timed_video(tmp_path / "still.mkv", [*EVEN, 50_000.0])
    found = read_windows(path, make_predictor().recipe, seconds=0.8, max_windows=1000, video_seconds=4.0)
    assert found.seconds == pytest.approx(50_000, abs=0.1)
    assert len(found.numbers) <= 16


def test_frames_that_are_slow_as_announced_are_no_pauses(tmp_path: Path) -> None:
    path = tmp_path / "slow.mp4"
    timed_video(path, list(range(12)), unit=Fraction(1, 1))
    found = read_windows(path, make_predictor().recipe, seconds=0.8, max_windows=1000, video_seconds=12.0)
    assert len(found.parts) == 1
    assert len(found.numbers) > 50


def test_breaks_are_reported(finished_run: Path, broken: dict[str, Path], tmp_path: Path, capsys) -> None:
    settings = ["--seconds", "0.8", "--out", str(tmp_path / "out.json")]
    main(["predict", str(finished_run), str(broken["pause.mp4"]), "--windows", *settings])
    assert "no window spans the breaks at 2.8 to 10.0 s" in capsys.readouterr().out
    values = json.loads((tmp_path / "out.json").read_text())
    assert values["seconds"] == pytest.approx(12, abs=0.05)
    assert np.array(values["parts"]) == pytest.approx(np.array([[0, 2.8], [10, 12]]), abs=0.05)
    main(["stream", str(finished_run), str(broken["many.ts"]), "--fast", *settings])
    assert "no window spans the breaks at 2.0 s, 4.0 s, 6.0 s, 8.0 s, 10.0 s" in capsys.readouterr().err


def test_a_stop_request_ends_a_stream_after_a_break(broken: dict[str, Path]) -> None:
    """A frame after a break is not the picture of all that was left out, so that the loop over frames soon looks."""
    stop = StopRequest()
    later: list[float] = []

    def on_prediction(prediction: WindowPrediction) -> None:
        if prediction.start > 2:
            stop.requested = True
            later.append(prediction.start)
            assert len(later) < 5

    stream = Stream(make_predictor(), broken["back.ts"], windows=WindowConfig(seconds=0.8), live=LiveConfig(fast=True))
    stream.run(on_prediction, stop=stop)
    assert len(later) == 1
