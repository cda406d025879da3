"""Networks in two files: scores as of one, features that windows share computed once, and files that do not fit."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vsn
from vsn.config import ClipSpec, ConfigError, EvalConfig, ExportConfig, ModelConfig, Recipe
from vsn.export.check import generated_clips
from vsn.export.export import export_model
from vsn.inference.exported_metadata import ExportError, frames_file, read_metadata
from vsn.models import VideoClassifier, build_model
from vsn.stream.scorer import WindowScorer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

CLASSES = ("swipe_left", "swipe_right", "wave")
SPLIT = ExportConfig(split=True)


def small(name: str = "vsn_resnet14_tiny") -> tuple[VideoClassifier, Recipe]:
    torch.manual_seed(0)
    config = ModelConfig(name=name, num_classes=3, num_frames=4)
    model = build_model(config).eval()
    nn.init.normal_(model.head.weight)
    return model, Recipe(model=config, clip=ClipSpec(short_side=36, crop_size=32), eval=EvalConfig(protocol="center"))


@pytest.fixture(scope="module")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoClassifier, Path]:
    model, recipe = small()
    folder = tmp_path_factory.mktemp("split")
    path = export_model(model, recipe, folder / "model.onnx", config=SPLIT, classes=CLASSES).path
    assert sorted(file.name for file in folder.iterdir()) == ["model.frames.onnx", "model.onnx"]
    return model, path


def test_scores_and_features_are_those_of_the_network(in_two: tuple[VideoClassifier, Path]) -> None:
    model, path = in_two
    predictor = vsn.Predictor.from_file(path)
    clips = generated_clips((3, 4, 3, 32, 32))
    with torch.inference_mode():
        logits, features = model(torch.from_numpy(clips)), model.frame_features(torch.from_numpy(clips))
    view = predictor.recipe.eval
    np.testing.assert_allclose(predictor.scores(clips, view), logits, rtol=1e-4, atol=1e-5)
    found = predictor.clip_features(clips, view, per_frame=True)
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="fcn-windows"):  # the file has no windows of the last feature map
        predictor.scores(clips, EvalConfig(protocol="fcn-windows"))


def test_frames_that_windows_share_are_computed_once(in_two: tuple[VideoClassifier, Path]) -> None:
    predictor = vsn.Predictor.from_file(in_two[1])
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 36, 48, 3), dtype=np.uint8)
    kept, plain = WindowScorer(predictor), WindowScorer(predictor, reuse=False)
    for start in range(8):
        numbers = range(start, start + 4)
        window = [images[number] for number in numbers]
        fresh = WindowScorer(predictor)
        scores = kept.score(numbers, window)
        np.testing.assert_array_equal(scores, fresh.score(numbers, window))
        np.testing.assert_allclose(scores, plain.score(numbers, window), rtol=1e-4, atol=1e-5)
    assert (kept.num_frames_seen, kept.num_frames_computed) == (32, 11)
    assert kept.first_temporal == "layer1.0.conv2"
    assert "layer1.0.conv2" in kept.note


def test_both_files_must_be_there_and_of_one_export(in_two: tuple[VideoClassifier, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(in_two[1], path)
    with pytest.raises(ExportError, match=r"model\.frames\.onnx"):
        vsn.Predictor.from_file(path)
    other = onnx.load(str(frames_file(in_two[1])))
    metadata = replace(read_metadata(path), weights_hash="another")
    onnx.helper.set_model_props(other, {"vsn": metadata.to_json()})
    onnx.save(other, str(frames_file(path)))
    with pytest.raises(ExportError, match="same export"):
        vsn.Predictor.from_file(path)


def test_a_network_that_mixes_frames_from_the_start_is_refused(tmp_path: Path) -> None:
    model, recipe = small("i3d_resnet26_thin")
    with pytest.raises(ExportError, match=r"first layer.*--split"):
        export_model(model, recipe, tmp_path / "model.onnx", config=SPLIT)
    assert not list(tmp_path.iterdir())
    for settings in ({"to": "openvino"}, {"int8": True}, {"any_size": True}):
        with pytest.raises(ConfigError, match="split"):
            ExportConfig(split=True, **settings)
