"""Exported files in a process that cannot import PyTorch: the same frames, scores and features; and what to install."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vsn
from vsn.cli import main
from vsn.config import Protocol
from vsn.data.dataset import VideoDataset
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video import open_video, write_video
from vsn.data.video.resize import resize_rgb, resize_with_numpy
from vsn.export.export import ExportReport

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

CLASSES = ("swipe_left", "swipe_right", "wave")
# Run in a fresh process: an import hook refuses what only the extra "train" installs.
SCRIPT = """
import io, json, sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "safetensors", "sklearn", "scipy", "tensorboard"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())

import numpy as np
import vsn
from vsn.cli import main
from vsn.data.processor import Processor, open_as_in
from vsn.inference.inputs import views_of_video
from vsn.serve.models import open_model

model, video, pictures, out = map(Path, sys.argv[1:5])
predictor = vsn.Predictor.from_file(model)
arrays, texts = {}, {}
for protocol in sys.argv[5:]:
    view = replace(predictor.recipe.eval, protocol=protocol)
    for name, path in (("video", video), ("pictures", pictures)):
        arrays[f"{protocol}-{name}"] = views_of_video(path, replace(predictor.recipe, model=replace(
            predictor.recipe.model, name="tsn_resnet14_tiny")), view)
clip = views_of_video(video, predictor.recipe, predictor.recipe.eval)
arrays["features"] = predictor.features(video)
arrays["scores"] = open_model(model).score([clip])[0]

def run(*arguments):
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            main([str(argument) for argument in arguments])
    except SystemExit as error:
        return str(error.code)
    return printed.getvalue()

texts["predict"] = run("predict", model, video, "--json")
texts["windows"] = run("predict", model, video, "--windows", "--seconds", "0.8", "--json")
texts["stream"] = run("stream", model, video, "--fast", "--seconds", "0.8")
texts["features"] = run("features", model, video, "--out", out.with_name("f.npz"))
texts["demo"] = run("demo")
texts["run"] = run("predict", out.parent, video)
for name in ("create_model", "train"):
    try:
        getattr(vsn, name)
    except ModuleNotFoundError as error:
        texts[name] = str(error)
assert not {"torch", "torchvision", "scipy"} & set(sys.modules)
np.savez(out, **arrays)
print(json.dumps(texts))
"""


@pytest.fixture(scope="module")
def exported(exported_run: ExportReport) -> Path:
    return exported_run.path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A video of 40 noisy frames of 60x90 pixels, and its frames as pictures, both larger than clips."""
    folder = tmp_path_factory.mktemp("videos")
    images = np.random.default_rng(0).integers(0, 256, (40, 15, 18, 3), np.uint8).repeat(4, axis=1).repeat(5, axis=2)
    write_video(folder / "noise.mp4", list(images), frames_per_second=20)
    (folder / "noise").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "noise" / f"{number:05d}.png")
    return folder / "noise.mp4", folder / "noise"


@pytest.fixture(scope="module")
def found(
    exported: Path, videos: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and printed texts of a process without PyTorch."""
    out = tmp_path_factory.mktemp("without") / "arrays.npz"
    arguments = [str(path) for path in (exported, *videos, out)]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments, *get_args(Protocol)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    with np.load(out) as arrays:
        return dict(arrays), json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["video", "pictures"])
@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_frames_are_those_of_a_process_with_torch(
    found: tuple[dict, dict], exported: Path, videos: tuple[Path, Path], protocol: Protocol, kind: str
) -> None:
    """Of the data set that evaluation reads, with PyTorch's resize."""
    recipe = vsn.Predictor.from_file(exported).recipe
    recipe = replace(
        recipe,
        model=replace(recipe.model, name="tsn_resnet14_tiny"),
        eval=replace(recipe.eval, protocol=protocol),
    )
    path = videos[0] if kind == "video" else videos[1]
    dataset = VideoDataset(RecordSet((VideoRecord(path, (0,), "v"),), CLASSES), recipe, train=False)
    np.testing.assert_array_equal(found[0][f"{protocol}-{kind}"], dataset[0].clip)


def test_predictions_features_and_windows_are_the_same(
    found: tuple[dict, dict], exported: Path, videos: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    arrays, texts = found
    predictor, video = vsn.Predictor.from_file(exported), videos[0]
    prediction = predictor.predict(video, top_k=3)
    printed = json.loads(texts["predict"])["predictions"]
    assert [entry["label"] for entry in printed] == list(prediction.labels)
    assert [entry["probability"] for entry in printed] == pytest.approx(list(prediction.probabilities), abs=1e-9)
    np.testing.assert_array_equal(arrays["features"], predictor.features(video))
    assert predictor.classes[int(arrays["scores"].argmax())] == prediction.labels[0]
    for arguments, name in ((("predict", "--windows", "--json"), "windows"), (("stream", "--fast"), "stream")):
        main([arguments[0], str(exported), str(video), *arguments[1:], "--seconds", "0.8"])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        without = [json.loads(line) for line in texts[name].splitlines()]
        for line in (*lines, *without):
            line.pop("lag_ms", None)
        assert lines == without
        assert lines
    assert "(1, 256)" in texts["features"]


def test_what_needs_torch_says_what_to_install(found: tuple[dict, dict]) -> None:
    for name in ("demo", "run", "create_model", "train"):
        assert 'pip install "vsn-video[train]"' in found[1][name], name


@given(
    size=st.tuples(st.integers(2, 90), st.integers(2, 90)), new_size=st.tuples(st.integers(2, 90), st.integers(2, 90)),
    channels=st.integers(1, 5), seed=st.integers(0, 99),
)  # fmt: skip
def test_pictures_are_resized_to_the_same_bytes(
    size: tuple[int, int], new_size: tuple[int, int], channels: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)
    np.testing.assert_array_equal(resize_with_numpy(image, *new_size), resize_rgb(image, *new_size))


@pytest.mark.parametrize("size", [(1080, 1920), (480, 640), (2160, 3840)])
def test_large_pictures_are_resized_to_the_same_bytes(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_with_numpy(image, 256, 455), resize_rgb(image, 256, 455))


def test_real_videos_give_the_same_frames_resized(shared_data: Path) -> None:
    """Frames of real videos at their size, as pictures of a folder are read."""
    paths = sorted(shared_data.rglob("*.mp4"))[:4] + sorted(shared_data.rglob("*.avi"))[:2]
    assert paths
    for path in paths:
        with open_video(path) as video:
            frame = video.frames_at([video.num_frames // 2])[0]
        height, width = frame.shape[0] * 112 // 240, frame.shape[1] * 112 // 240
        np.testing.assert_array_equal(resize_with_numpy(frame, height, width), resize_rgb(frame, height, width))
