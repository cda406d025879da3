"""Windows of files for those who score them elsewhere: which there are, and that they are those of the stream."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.tiny_runs import tiny_recipe
from tests.helpers.videos import timed_video
from tests.stream.test_stream import make_predictor
from vsn.config import ConfigError, LiveConfig, WindowConfig
from vsn.data.video import VideoError, open_video, write_video
from vsn.inference.inputs import views_of_video
from vsn.stream.collect import window_views
from vsn.stream.file_windows import read_windows
from vsn.stream.grid import WindowGrid
from vsn.stream.plan import spread, trained_seconds, window_processor
from vsn.stream.stream import Stream


@pytest.fixture(scope="module")
def noise_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of coarse noise, 10 a second, 36x48 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (40, 9, 12, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    write_video(path, list(coarse.repeat(4, axis=1).repeat(4, axis=2)), frames_per_second=10)
    return path


@settings(deadline=None)
@given(
    seconds=st.floats(0.1, 60), video_seconds=st.floats(0.1, 4000), most=st.integers(1, 40), frames=st.integers(1, 32)
)  # fmt: skip
def test_windows_are_as_close_as_max_windows_allows(
    seconds: float, video_seconds: float, most: int, frames: int
) -> None:
    grid = spread(WindowGrid.of(seconds, frames, None), max_windows=most, video_seconds=video_seconds)

    def windows(stride: int) -> int:
        """How many are complete: the last instant of each lies before the end."""
        closer, count = replace(grid, stride=stride), 0
        while count <= most and closer.instant(closer.steps_of(count)[-1]) < video_seconds - 1e-6:
            count += 1
        return count

    assert windows(grid.stride) <= most
    assert grid.stride == 1 or windows(grid.stride - 1) >= most


@pytest.mark.parametrize("protocol", ["fcn", "3crop"])
@pytest.mark.parametrize(
    ("length", "most", "every"), [(0, 100, 0.2), (0, 4, 1.0), (2, 100, 0.15), (2, 4, 0.9), (7, 200, 0.025)]
)
def test_windows_are_those_of_the_stream(
    noise_video: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, length: int, most: int, every: float
) -> None:
    model = {"modality": "rgbdiff", "flow_length": length} if length else {}
    predictor = make_predictor(protocol=protocol, **model)
    found = read_windows(noise_video, predictor.recipe, seconds=0.8, max_windows=most, video_seconds=4.0)
    assert (found.grid.every, found.seconds) == (pytest.approx(every), pytest.approx(4.0))
    seen: list[np.ndarray] = []
    processor = window_processor(predictor.recipe)

    def noted(windows: Any) -> list[np.ndarray]:
        seen.extend(window_views(images, processor) for _, _, images in windows)
        return [np.zeros(3, np.float32) for _ in windows]

    monkeypatch.setattr("vsn.stream.stream.score_windows", noted)
    starts: list[float] = []
    config = WindowConfig(seconds=0.8, every=every)
    stream = Stream(predictor, str(noise_video), windows=config, live=LiveConfig(fast=True))
    stream.run(lambda answer: starts.append(answer.start))
    assert [found.grid.interval(number)[0] for number in found.numbers] == starts
    assert len(seen) == len(found.clips) <= most
    assert all(np.array_equal(clip, views) for clip, views in zip(found.clips, seen, strict=True))


@pytest.mark.parametrize(("usual", "others"), [(1, [1, 1, 1, 2, 5, 9]), (3, [1, 1, 1, 3, 3, 9])])
@pytest.mark.parametrize("length", [0, 2, 7])
@pytest.mark.parametrize("extension", [".mp4", ".mkv"])
def test_a_window_of_unevenly_spaced_frames_has_those_of_evaluation(
    tmp_path: Path, extension: str, length: int, usual: int, others: list[int]
) -> None:
    """A window as long as the video: the same pictures, and the same differences."""
    # A frame stays for up to 0.36 seconds, others for 0.04; the first and the last second are even.
    steps = np.concatenate([[usual] * 25, np.random.default_rng(0).choice(others, 40), [usual] * 25])
    times = (np.cumsum([0, *steps]) / 25).tolist()
    values = [round(20 + 200 * seconds / times[-1]) for seconds in times]
    path = timed_video(tmp_path / f"video{extension}", times, values=values, options={"bf": "2"})
    model = {"modality": "rgbdiff", "flow_length": length} if length else {}
    recipe = make_predictor(**model).recipe
    with open_video(path) as video:
        seconds = video.seconds
    found = read_windows(path, recipe, seconds=seconds, max_windows=1, video_seconds=seconds)
    expected = views_of_video(path, recipe, recipe.eval).astype(int)
    got = found.clips[0][0].astype(int)
    assert got.shape == expected.shape
    # Instants may fall on either side of the same frame: at most one step of brightness, of a frame that stays.
    assert np.abs(got - expected).max() <= 200 * 0.36 / times[-1] + 2
    if length:
        motion, wanted = (np.diff(clip.reshape(4, length + 1, -1).mean(-1), axis=1) for clip in (got, expected))
        assert np.abs(motion.sum(1) - wanted.sum(1)).max() <= 200 * 0.36 / times[-1] + 2


def test_a_video_longer_than_announced_has_max_windows(noise_video: Path) -> None:
    found = read_windows(noise_video, tiny_recipe(Path()), seconds=0.4, max_windows=3, video_seconds=0.5)
    assert found.numbers == (0, 1, 2)  # of 4 seconds


def test_windows_of_a_video_that_decodes_in_part(noise_video: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mkv"
    with av.open(str(noise_video)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and number < 20:
                packet.stream = stream
                target.mux(packet)
    found = read_windows(cut, tiny_recipe(Path()), seconds=0.8, max_windows=4, video_seconds=4.0)
    assert found.numbers == (0, 1)
    assert found.seconds < 2.2


def test_a_file_shorter_than_a_window_has_none_and_text_is_refused(noise_video: Path, tmp_path: Path) -> None:
    found = read_windows(noise_video, tiny_recipe(Path()), seconds=9.0, max_windows=4, video_seconds=4.0)
    assert found.numbers == found.clips == ()
    (tmp_path / "text.mp4").write_text("text")
    with pytest.raises(VideoError):
        read_windows(tmp_path / "text.mp4", tiny_recipe(Path()), seconds=1.0, max_windows=4, video_seconds=4.0)


def test_a_run_without_windows_is_refused_first() -> None:
    recipe = tiny_recipe(Path())
    flow = replace(recipe, model=replace(recipe.model, modality="flow"))
    for run, protocol in ((flow, None), (recipe, "3crop-2clip"), (recipe, "25x10"), (recipe, "fcn-windows")):
        with pytest.raises(ConfigError):
            window_processor(run, protocol)
    with pytest.raises(ConfigError, match="flow"):
        read_windows(Path("gone"), flow, seconds=1.0, max_windows=4, video_seconds=4.0)


def test_the_length_of_a_window_without_a_source() -> None:
    recipe = tiny_recipe(Path("nowhere"))
    assert trained_seconds(recipe) == 4.0
    assert trained_seconds(replace(recipe, clip=replace(recipe.clip, sampling="rate"))) == 0.5
    assert trained_seconds(replace(recipe, clip=replace(recipe.clip, sampling="dense"))) is None
    differences = replace(recipe, model=replace(recipe.model, modality="rgbdiff"))
    assert trained_seconds(differences) == 4.0
    assert trained_seconds(replace(differences, clip=replace(recipe.clip, sampling="rate"))) is None
