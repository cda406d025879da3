import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vsn
from vsn.config import ConfigError, EvalConfig
from vsn.data.open import open_split
from vsn.data.video import VideoError, open_video
from vsn.data.views import PROTOCOLS
from vsn.inference.evaluate import score_videos
from vsn.inference.inputs import describe_unread
from vsn.inference.prediction import Prediction
from vsn.inference.predictor import Predictor
from vsn.models.weights_file import read_weights, write_weights
from vsn.runs.checkpoint import load_model
from vsn.runs.run import RunError, open_run
from vsn.scores.calibrate import Calibration, calibrated_probabilities
from vsn.scores.metrics import softmax


@pytest.fixture(scope="module")
def predictor(finished_run: Path) -> Predictor:
    return vsn.Predictor.from_run(finished_run, device="cpu")


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "25x10"])
def test_prediction_is_what_evaluation_says_to_the_last_bit(finished_run: Path, predictor: Predictor, protocol):
    run, view = open_run(finished_run), EvalConfig(protocol=protocol)
    dataset = open_split(run.recipe, "test", view=view, classes=run.classes)
    scores = score_videos(load_model(run), dataset, batch_size=2, progress=False)
    for record, expected in zip(dataset.records, softmax(scores.logits), strict=True):
        prediction = predictor.predict(record.path, top_k=3, protocol=view)
        prediction = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        assert [prediction[name] for name in run.classes] == expected.tolist()


def test_a_folder_of_frames_is_a_video(predictor: Predictor, gray_video: Path, tmp_path: Path):
    """And so is each below a folder; with video files next to them, pictures are not taken for frames."""
    images = open_video(gray_video).all_frames()
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        for number, image in enumerate(images, 1):
            Image.fromarray(image).save(tmp_path / name / f"{number:05d}.png")
    assert predictor.list_inputs(tmp_path / "1") == [tmp_path / "1"]
    assert predictor.list_inputs(tmp_path) == [tmp_path / "1", tmp_path / "2"]
    of_file = predictor.predict(gray_video)
    assert predictor.predict(tmp_path / "1").labels == of_file.labels
    shutil.copy(gray_video, tmp_path / "clip.mp4")
    assert predictor.list_inputs(tmp_path) == [tmp_path / "clip.mp4"]
    for name in ("a.GIF", "b.gif", "c.h264", "notes", ".hidden"):
        (tmp_path / "2" / name).touch()
    unread = describe_unread(predictor.recipe, tmp_path)
    assert "not .gif (2), .h264 (1), no extension (1), 2 folders of frames ('" in unread
    assert describe_unread(predictor.recipe, tmp_path / "clip.mp4") == ""
    assert describe_unread(predictor.recipe, tmp_path / "1") == ""
    for number in (1, 2):
        for axis in "xy":
            Image.fromarray(images[0][..., 0]).save(tmp_path / "1" / f"flow_{axis}_{number:05d}.jpg")
    of_flow = replace(predictor.recipe, model=replace(predictor.recipe.model, modality="flow"))
    assert describe_unread(of_flow, tmp_path) == ""  # stored flow is read, and not the video
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "cover.jpg").write_bytes((tmp_path / "1" / "00001.png").read_bytes())
    with pytest.raises(ConfigError, match="no videos were found"):
        predictor.list_inputs(tmp_path / "empty")


def test_an_exported_file_is_no_run_and_it_is_prediction_who_takes_it(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(RunError, match=r"model\.onnx is a file.*`vsn predict`"):
        vsn.Predictor.from_run(tmp_path / "model.onnx")


def test_labels_come_most_probable_first(predictor: Predictor, gray_video: Path):
    prediction = predictor.predict(gray_video)
    assert prediction.path == gray_video
    assert len(prediction.labels) == 3
    assert list(prediction.probabilities) == sorted(prediction.probabilities, reverse=True)
    assert sum(prediction.probabilities) == pytest.approx(1.0)
    assert predictor.predict(str(gray_video), top_k=1).labels == prediction.labels[:1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"the file is empty\."),
        (b"plain text", "not a video that FFmpeg can read"),
        (None, r"no such file\."),
    ],
)
def test_bad_file_is_named(predictor: Predictor, tmp_path: Path, content: bytes | None, reason: str):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=reason) as caught:
        predictor.predict(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("num_frames", [1, 3])
def test_video_shorter_than_a_clip(predictor: Predictor, tmp_path: Path, num_frames: int):
    from vsn.data.video import write_video

    write_video(tmp_path / "short.mp4", [np.zeros((40, 40, 3), np.uint8)] * num_frames, frames_per_second=5)
    assert len(predictor.predict(tmp_path / "short.mp4").labels) == 3


def test_top_k_below_one(predictor: Predictor, gray_video: Path):
    with pytest.raises(ValueError, match="top_k is 0; it must be 1 or more"):
        predictor.predict(gray_video, top_k=0)


def test_best_weights_predict(finished_run: Path, tmp_path: Path, gray_video: Path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    last = vsn.Predictor.from_run(run, device="cpu").predict(gray_video)
    weights = read_weights(run / "model.safetensors")
    weights["head.bias"] += torch.tensor([0.0, 50.0, 0.0])
    write_weights(run / "best.safetensors", weights, open_run(run).recipe.model)
    best = vsn.Predictor.from_run(run, device="cpu", weights="best").predict(gray_video)
    assert best.labels[0] == "swipe_right"
    assert best.probabilities[0] > 0.99 > last.probabilities[0]


@pytest.fixture
def prediction() -> Prediction:
    return Prediction(Path("a.mp4"), ("b", "a", "c"), (0.7, 0.2, 0.1))


def calibration(**values: Any) -> Calibration:
    zeros = {"nll_before": 0.0, "nll_after": 0.0, "ece_before": 0.0, "ece_after": 0.0}
    return Calibration(classes=("a", "b", "c"), **(zeros | values))


def test_a_calibrated_prediction_is_that_of_the_logits_divided(prediction: Prediction):
    logits = np.log([0.2, 0.7, 0.1]) + 5  # of a, b, c, and a constant that softmax does not see
    expected = calibrated_probabilities(logits, 2.0)
    found = prediction.calibrated(calibration(temperature=2.0))
    assert found.labels == prediction.labels
    np.testing.assert_allclose(found.probabilities, expected[[1, 0, 2]], rtol=1e-12)
    assert found.accepted
    assert prediction.calibrated(calibration(temperature=2.0), top_k=1).labels == ("b",)


def test_below_the_threshold_it_is_unknown(prediction: Prediction):
    assert prediction.calibrated(calibration(temperature=1.0, threshold=0.69)).accepted
    assert not prediction.calibrated(calibration(temperature=1.0, threshold=0.71)).accepted
    # The threshold is for the calibrated probability: 0.7 sharpened by a temperature below 1 is above 0.71.
    assert prediction.calibrated(calibration(temperature=0.5, threshold=0.71)).accepted


def test_a_calibration_of_other_classes_is_refused(prediction: Prediction):
    some = Prediction(prediction.path, prediction.labels[:2], prediction.probabilities[:2])
    with pytest.raises(ConfigError, match=r"other classes: 1 .*'c'"):
        some.calibrated(calibration(temperature=1.0))


def test_a_calibrated_prediction_has_a_class(prediction: Prediction):
    with pytest.raises(ValueError, match="top_k is 0; it must be 1 or more"):
        prediction.calibrated(calibration(temperature=1.0), top_k=0)


def test_a_class_of_probability_0_stays_there():
    sure = Prediction(Path("a.mp4"), ("b", "a", "c"), (1.0, 0.0, 0.0))
    assert sure.calibrated(calibration(temperature=3.0)).probabilities == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("top_k", ["3", 2.5, None, True])
def test_top_k_of_another_type(predictor: Predictor, gray_video: Path, top_k: Any):
    with pytest.raises(
        TypeError, match=rf"top_k is {top_k!r}, of type {type(top_k).__name__}; it must be a whole number"
    ):
        predictor.predict(gray_video, top_k=top_k)
