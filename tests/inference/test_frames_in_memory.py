"""Frames in memory: predictions and streams equal those of the file, with a run and with an exported file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vsn
from vsn.config import ClipSpec, ConfigError, EvalConfig, LiveConfig, ModelConfig, Recipe, WindowConfig
from vsn.data.video import Part, open_video, write_video
from vsn.export.export import ExportReport
from vsn.inference.exported import ExportedModel, ExportedPredictor
from vsn.inference.predictor import Predictor
from vsn.stream.stream import Stream

SIDE = 36
"""Of the clips of the finished run."""


@pytest.fixture(scope="module", params=["run", "onnx"])
def predictor(request: pytest.FixtureRequest, exported_run: ExportReport) -> Predictor:
    if request.param == "onnx":
        return vsn.Predictor.from_file(exported_run.path)
    return vsn.Predictor.from_run(exported_run.path.parents[1], device="cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of coarse noise, 20 a second, 72x96 pixels: larger than clips."""
    images = np.random.default_rng(0).integers(0, 256, (60, 9, 12, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    write_video(path, list(images), frames_per_second=20)
    return path


@pytest.fixture(scope="module")
def frames(video: Path) -> np.ndarray:
    """Those of the video at the size of clips."""
    return open_video(video, short_side=SIDE).all_frames()


@pytest.mark.parametrize(
    "as_given",
    [np.asarray, torch.from_numpy, list, iter, lambda frames: (torch.from_numpy(frame) for frame in frames)],
    ids=["array", "tensor", "list", "iterator", "tensors"],
)
@pytest.mark.parametrize("protocol", ["center", "3crop-2clip"])
def test_the_prediction_is_that_of_the_file(
    predictor: Predictor, video: Path, frames: np.ndarray, as_given: Callable, protocol: str
) -> None:
    if protocol != "center" and isinstance(predictor, ExportedPredictor):
        pytest.skip("the file takes clips of one size")
    view = EvalConfig(protocol=protocol)
    of_file = predictor.predict(video, protocol=view, top_k=3)
    in_memory = predictor.predict(as_given(frames), fps=20, protocol=view, top_k=3)
    assert (in_memory.labels, in_memory.probabilities) == (of_file.labels, of_file.probabilities)
    np.testing.assert_array_equal(predictor.features(as_given(frames)), predictor.features(video))


def test_a_part_is_that_of_the_file(predictor: Predictor, video: Path, frames: np.ndarray) -> None:
    part = Part(0.5, 1.5)
    assert (
        predictor.predict(frames, fps=20, part=part).probabilities == predictor.predict(video, part=part).probabilities
    )
    with pytest.raises(ConfigError, match="fps"):
        predictor.predict(frames, part=part)


def test_larger_frames_are_resized_as_pictures_are(predictor: Predictor, video: Path, tmp_path: Path) -> None:
    large = open_video(video).all_frames()
    for number, image in enumerate(large):
        Image.fromarray(image).save(tmp_path / f"{number:05d}.png")
    pictures = predictor.predict(tmp_path).probabilities
    assert predictor.predict(large).probabilities == predictor.predict(iter(large)).probabilities == pictures


def test_a_clip_at_a_rate_needs_the_rate() -> None:
    recipe = Recipe(
        model=ModelConfig(name="vsn_resnet14_tiny", num_frames=4),
        clip=ClipSpec(short_side=36, crop_size=32, sampling="rate", frames_per_second=5),
        eval=EvalConfig(protocol="center"),
    )
    processor = vsn.Processor(recipe)
    frames = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(36, 1).repeat(48, 2).repeat(3, 3)
    assert processor(frames, fps=20)[:, 0, 0, 0].tolist() == [23, 27, 31, 35]
    assert processor(frames, fps=10)[:, 0, 0, 0].tolist() == [26, 28, 30, 32]
    with pytest.raises(ConfigError, match="fps"):
        processor(frames)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((4, 3, 40, 48), np.uint8), r"\(3, 40, 48\).*transpose"),
        (np.zeros((40, 48, 3), np.uint8), r"\(40, 48, 3\)"),
        (np.zeros((1, 4, 40, 48, 3), np.uint8), "one video"),
        (np.zeros((4, 40, 48, 3), np.float32), "uint8.*float32"),
        ([np.zeros((40, 48, 3), np.uint8), np.zeros((48, 40, 3), np.uint8)], "one size"),
        ([], "at least one"),
        (np.zeros((0, 40, 48, 3), np.uint8), "at least one"),
        (np.zeros((4, 4, 4000, 3), np.uint8), "16 times"),
    ],
)
def test_other_frames_are_refused(predictor: Predictor, frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(frames)


def test_a_file_has_its_own_rate(predictor: Predictor, video: Path) -> None:
    with pytest.raises(ValueError, match="fps"):
        predictor.predict(video, fps=25)
    with pytest.raises(ValueError, match="fps is 0"):
        predictor.predict(np.zeros((4, 40, 48, 3), np.uint8), fps=0)


def test_a_processor_is_saved_with_runs_and_exports(exported_run: ExportReport, frames: np.ndarray) -> None:
    run = exported_run.path.parents[1]
    saved, exported = vsn.Processor.load(run), vsn.Predictor.from_file(exported_run.path).processor
    again = vsn.Processor.from_dict(saved.to_dict())
    assert saved.to_dict() == again.to_dict()
    assert saved.to_dict()["clip"] == exported.to_dict()["clip"]
    np.testing.assert_array_equal(saved(frames), again(frames))
    assert saved.indices(60).shape == (1, 4, 1)
    with pytest.raises(ConfigError, match=r"recipe\.toml"):
        vsn.Processor.load(run / "recipe.toml")


# Frames handed over one by one


def test_pushed_frames_give_the_labels_of_the_stream(predictor: Predictor, video: Path, frames: np.ndarray) -> None:
    windows = WindowConfig(seconds=0.8, smooth=0.5)
    expected = []
    Stream(predictor, video, windows=windows, live=LiveConfig(fast=True)).run(expected.append)
    stream = predictor.stream(windows=windows, fps=20)
    for first in (0.0, 1234.5):  # any clock; and again after a reset
        answers = [stream.push(frame, first + number / 20) for number, frame in enumerate(frames)]
        found = [answer for answer in answers if answer is not None]
        assert [(answer.start, answer.label) for answer in found] == [(one.start, one.label) for one in expected]
        for answer, one in zip(found, expected, strict=True):
            np.testing.assert_array_equal(answer.smoothed, one.smoothed)
        stream.reset()
    counted = [stream.push(torch.from_numpy(frame)) for frame in frames]
    assert [answer.start for answer in counted if answer] == [one.start for one in expected]


def test_no_window_spans_a_gap(predictor: Predictor, frames: np.ndarray) -> None:
    stream = predictor.stream(seconds=0.8, fps=20)
    times = [*(i / 20 for i in range(12)), *(10 + i / 20 for i in range(30))]
    starts = [one.start for seconds, frame in zip(times, frames, strict=False) if (one := stream.push(frame, seconds))]
    assert starts
    assert min(starts) >= 9.9


@pytest.mark.parametrize(
    ("frame", "seconds", "message"),
    [
        (np.zeros((36, 48, 3), np.uint8), 0.0, "rise"),
        (np.zeros((36, 48, 3), np.uint8), float("nan"), "nan"),
        (np.zeros((48, 36, 3), np.uint8), 2.0, "one size"),
        (np.zeros((36, 48), np.uint8), 2.0, r"\(36, 48\)"),
    ],
)
def test_other_pushes_are_refused(predictor: Predictor, frame: np.ndarray, seconds: float, message: str) -> None:
    stream = predictor.stream(seconds=0.8)
    stream.push(np.zeros((36, 48, 3), np.uint8), 1.0)
    with pytest.raises(ValueError, match=message):
        stream.push(frame, seconds)


def test_windows_are_as_long_as_the_export_recorded(
    exported_run: ExportReport, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not as the videos that happen to be in the working directory."""
    monkeypatch.chdir(tiny_data)
    model = ExportedModel.from_file(exported_run.path)
    recorded = model.metadata.training_seconds
    assert recorded == vsn.Predictor.from_run(exported_run.path.parents[1], device="cpu").stream().grid.seconds
    model.metadata = replace(model.metadata, training_seconds=None)
    assert ExportedPredictor(model).stream().grid.seconds == 4.0
    model.metadata = replace(model.metadata, training_seconds=1.5)
    assert ExportedPredictor(model).stream().grid.seconds == 1.5
    assert ExportedPredictor(model).stream(seconds=2).grid.seconds == 2.0
