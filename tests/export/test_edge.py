"""Files for phones, boards and accelerators: one clip as a batch of images, older operators, 16 bits, other devices."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.export.test_export import SIZE, clips_of, logits_of, small
from vsn import cli
from vsn.config import ExportConfig, ExportFormat
from vsn.export.export import export_model
from vsn.export.form import ExportForm, FoldedForm
from vsn.inference.exported import ExportedModel
from vsn.inference.exported_metadata import ExportError, read_metadata

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("modality", ["rgb", "rgbdiff", "flow"])
@pytest.mark.parametrize("uint8", [True, False])
def test_the_frames_of_a_clip_score_as_the_clip(modality: str, uint8: bool):
    model, _ = small(modality=modality)
    form = FoldedForm(ExportForm(model, uint8=uint8))
    for clip in clips_of(model, 2):
        frames = torch.from_numpy(clip if uint8 else clip / np.float32(255))
        with torch.inference_mode():
            np.testing.assert_allclose(form(frames), logits_of(model, clip[None]), rtol=1e-4, atol=1e-4)


def test_a_3d_network_takes_the_frames_of_a_clip():
    model, _ = small("i3d_inception_thin")
    (clip,) = clips_of(model, 1)
    with torch.inference_mode():
        found = FoldedForm(ExportForm(model))(torch.from_numpy(clip))
    np.testing.assert_allclose(found, logits_of(model, clip[None]), rtol=1e-4, atol=1e-4)


def test_an_onnx_file_of_one_clip_with_old_operators(tmp_path: Path):
    model, recipe = small()
    report = export_model(model, recipe, tmp_path / "model", config=ExportConfig(folded=True, opset=17))
    graph = onnx.load(report.path)
    assert [entry.version for entry in graph.opset_import] == [17]
    assert graph.ir_version <= 8  # what runtimes of that time read
    axes = graph.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_value for axis in axes] == [4, 3, SIZE, SIZE]
    assert [axis.denotation for axis in axes] == ["frames", "channels", "height", "width"]
    exported, clips = ExportedModel.from_file(report.path), clips_of(model, 3)
    assert exported.metadata.folded
    np.testing.assert_allclose(exported(clips), logits_of(model, clips), rtol=1e-4, atol=1e-4)
    with pytest.raises(ExportError, match=r"Expected clips of shape \(B, 4, 3, 32, 32\)"):
        exported(clips[0])


@pytest.mark.slow
def test_frames_of_any_size(tmp_path: Path):
    model, recipe = small(modality="rgbdiff", flow_length=2)
    report = export_model(model, recipe, tmp_path / "model", config=ExportConfig(folded=True, any_size=True))
    clips = clips_of(model, 2, (48, 80))
    found = ExportedModel.from_file(report.path)(clips)
    np.testing.assert_allclose(found, logits_of(model, clips), rtol=1e-4, atol=1e-4)


def test_onnx_in_16_bits(tmp_path: Path):
    model, recipe = small()
    sizes, clips = {}, clips_of(model, 3)
    for fp16 in (False, True):
        report = export_model(model, recipe, tmp_path / f"model{fp16}", config=ExportConfig(fp16=fp16))
        sizes[fp16] = sum(tensor.ByteSize() for tensor in onnx.load(report.path).graph.initializer)
    assert sizes[True] < 0.6 * sizes[False]
    exported = ExportedModel.from_file(report.path)
    assert exported.metadata.precision == "fp16"
    found, expected = exported(clips), logits_of(model, clips)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("to", [pytest.param(to, marks=pytest.mark.needs(to)) for to in ("executorch", "litert")])
@pytest.mark.parametrize("modality", ["rgb", "rgbdiff"])
def test_formats_of_phones_score_as_pytorch(tmp_path: Path, to: ExportFormat, modality: str):
    model, recipe = small(modality=modality)
    classes = ("a", "b", "c", "é", '"<&>')
    report = export_model(model, recipe, tmp_path / "model", config=ExportConfig(to=to), classes=classes)
    exported, clips = ExportedModel.from_file(report.path), clips_of(model, 3)
    assert read_metadata(report.path) == exported.metadata
    assert (exported.metadata.to, exported.metadata.classes) == (to, classes)
    np.testing.assert_allclose(exported(clips), logits_of(model, clips), rtol=1e-4, atol=1e-4)
    report.path.write_bytes(report.path.read_bytes()[: report.num_bytes // 2])
    with pytest.raises(ExportError, match=r"damaged or not an exported model"):
        ExportedModel.from_file(report.path)


@pytest.mark.parametrize(
    ("to", "package", "command"),
    [
        ("executorch", "executorch.exir", r"pip install .vsn-video\[executorch\]"),
        ("litert", "litert_torch", "pip install litert-torch"),
    ],
)
def test_what_a_format_needs_is_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: ExportFormat, package: str, command: str
):
    monkeypatch.setitem(sys.modules, package, None)
    model, recipe = small()
    with pytest.raises(ExportError, match=rf"{package}, which is not installed.*{command}"):
        export_model(model, recipe, tmp_path / "model", config=ExportConfig(to=to))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, recipe = small("tsn_resnet14_tiny")
    return export_model(model, recipe, tmp_path_factory.mktemp("devices") / "model").path


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("listed", [False, True])
def test_a_device_that_is_not_there_is_refused_not_replaced_by_the_cpu(
    onnx_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
):
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    if listed:  # installed, and without its driver: ONNX Runtime goes on with the CPU
        monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(ExportError, match=r"'cuda'.*offers .*CPUExecutionProvider here.*onnxruntime-gpu"):
        ExportedModel.from_file(onnx_path, device="cuda")


def test_the_command_names_the_missing_device(onnx_path: Path, gray_video: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"'tensorrt'.*onnxruntime-gpu"):
        cli.main(["predict", str(onnx_path), str(gray_video), "--device", "tensorrt"])


def test_unknown_devices_are_refused(onnx_path: Path):
    with pytest.raises(ExportError, match=r"'tpu'.*cpu, cuda, tensorrt, openvino"):
        ExportedModel.from_file(onnx_path, device="tpu")


def test_another_device_is_used_where_it_is_there(onnx_path: Path):
    if "OpenVINOExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no OpenVINO: onnxruntime-openvino is not installed")
    model, _ = small("tsn_resnet14_tiny")
    clips = clips_of(model, 2)
    found = ExportedModel.from_file(onnx_path, device="openvino")(clips)
    np.testing.assert_allclose(found, logits_of(model, clips), rtol=1e-4, atol=1e-4)
