"""Exported files: scores equal to PyTorch's, metadata, errors."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vsn
from vsn import cli
from vsn.config import ClipSpec, ConfigError, EvalConfig, ExportConfig, ModelConfig, Recipe
from vsn.export import export as export_module
from vsn.export.check import Check, generated_clips, require_close
from vsn.export.export import ExportReport, default_path, export_model, export_run, export_view
from vsn.export.form import ExportForm
from vsn.inference import exported as exported_module
from vsn.inference.exported import ExportedModel, open_openvino, video_logits
from vsn.inference.exported_metadata import OUTPUTS, ExportError, read_metadata
from vsn.models import VideoClassifier, build_model
from vsn.runs.run import open_run, weights_hash

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.needs("onnxruntime")

SIZE = 32


def small(name: str = "vsn_resnet14_tiny", **settings) -> tuple[VideoClassifier, Recipe]:
    """A model of 4 frames of 32x32 with a random head, and its recipe."""
    torch.manual_seed(0)
    config = ModelConfig(name=name, num_classes=5, num_frames=4, **settings)
    model = build_model(config).eval()
    nn.init.normal_(model.head.weight)
    return model, Recipe(model=config, clip=ClipSpec(short_side=40, crop_size=SIZE))


def clips_of(model: VideoClassifier, batch: int, size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    return generated_clips((batch, 4, model.num_channels, *size), seed=batch)


def logits_of(model: VideoClassifier, clips: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.from_numpy(clips)).numpy()


@pytest.fixture(scope="module")
def views_report(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """The finished run for three crops of a video, exported without its data set; torch-export is the fastest format."""
    folder, config = tmp_path_factory.mktemp("views"), ExportConfig(to="torch-export")
    return export_run(
        finished_run, config, out=folder / "m.pt2", protocol="3crop", root=folder / "gone", progress=False
    )


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoClassifier, Path]:
    """A small model and its ONNX file, of another block and modality than those of the finished run."""
    model, recipe = small(block="headtail", modality="rgbdiff", flow_length=2)
    return model, export_model(model, recipe, tmp_path_factory.mktemp("small") / "model").path


@pytest.fixture(scope="module")
def any_size_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoClassifier, ExportReport]:
    """A small model and its ONNX file for frames of any size."""
    model, recipe = small()
    return model, export_model(
        model, recipe, tmp_path_factory.mktemp("any") / "m.onnx", config=ExportConfig(any_size=True)
    )


@pytest.fixture(scope="module")
def other_formats(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoClassifier, dict[str, ExportReport]]:
    """A small model as OpenVINO and as torch's own format, in a folder each."""
    pytest.importorskip("openvino")
    model, recipe = small()
    reports = {
        to: export_model(
            model,
            recipe,
            tmp_path_factory.mktemp(to) / "model",
            config=ExportConfig(to=to),
            classes=["a", "b", "c", "é", '"<&>'],
        )
        for to in ("openvino", "torch-export")
    }
    return model, reports


# The same scores


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_onnx_scores_as_pytorch_for_any_number_of_clips(onnx_file, batch: int):
    model, path = onnx_file
    clips = clips_of(model, batch)
    found = ExportedModel.from_file(path)(clips)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, logits_of(model, clips), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tsn_resnet14_tiny", {}),
        ("vsn_resnet14_tiny", {"modality": "flow", "flow_length": 2}),
        ("vsn_resnet18", {"block": "headtail"}),
    ],
)
@pytest.mark.slow
def test_other_models_and_inputs(tmp_path: Path, name: str, settings: dict):
    model, recipe = small(name, **settings)
    model.train().double()
    report = export_model(model, recipe, tmp_path / "model.onnx")
    assert model.training
    assert model.head.weight.dtype == torch.float64
    assert report.metadata.channels == model.num_channels
    assert set(report.check.difference) == {1, 3}
    assert max(report.check.difference.values()) < 1e-5
    assert report.check.agreement == 1.0


@pytest.mark.needs("openvino")
@pytest.mark.parametrize("to", ["openvino", "torch-export"])
def test_other_formats_score_as_pytorch(other_formats, to: str):
    model, report = other_formats[0], other_formats[1][to]
    exported = ExportedModel.from_file(report.path)
    for batch in (1, 3):
        clips = clips_of(model, batch)
        np.testing.assert_allclose(exported(clips), logits_of(model, clips), rtol=1e-4, atol=1e-4)
    files = {"openvino": ["model.bin", "model.xml"], "torch-export": ["model.pt2"]}[to]
    assert sorted(file.name for file in report.path.parent.iterdir()) == files
    assert report.num_bytes == sum(file.stat().st_size for file in report.path.parent.iterdir())


@pytest.mark.slow
def test_aoti_scores_as_pytorch(tmp_path: Path):
    model, recipe = small()
    report = export_model(model, recipe, tmp_path / "model", config=ExportConfig(to="aoti"))
    exported = ExportedModel.from_file(report.path)
    for batch in (1, 3):
        clips = clips_of(model, batch)
        np.testing.assert_allclose(exported(clips), logits_of(model, clips), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_shares_as_input(tmp_path: Path):
    model, recipe = small()
    path = export_model(model, recipe, tmp_path / "m.onnx", config=ExportConfig(input="float32")).path
    exported, clips = ExportedModel.from_file(path), clips_of(model, 2)
    expected = logits_of(model, clips)
    for given in (clips, clips.astype(np.float32) / 255):
        np.testing.assert_allclose(exported(given), expected, rtol=1e-4, atol=1e-4)


def axes(value) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("any_size", [False, True])
def test_axes_of_an_onnx_file_have_names(onnx_file, any_size_file, any_size: bool):
    file = any_size_file[1].path if any_size else onnx_file[1]
    graph = onnx.load(file).graph
    size = ["height", "width"] if any_size else [SIZE, SIZE]
    assert axes(graph.input[0]) == ["batch", 4, 3 if any_size else 9, *size]
    assert axes(graph.output[0]) == ["batch", 5]
    named = [axis.denotation for axis in graph.input[0].type.tensor_type.shape.dim]
    assert named == ["batch", "frames", "channels", "height", "width"]
    inside = " ".join(str(size) for value in graph.value_info for size in axes(value))
    assert not re.findall(r"\bs\d+\b", inside)
    assert [one.shape for one in ort.InferenceSession(str(file)).get_inputs()] == [axes(graph.input[0])]


@pytest.mark.parametrize(
    ("name", "channels"),
    [pytest.param("trajectory_resnet18_thin", 7, marks=pytest.mark.slow), ("gcn_resnet26_thin", 13)],
)
def test_a_file_takes_frames_and_what_is_beside_them(tmp_path: Path, name: str, channels: int):
    torch.manual_seed(0)
    config = ModelConfig(name=name, num_classes=5, num_frames=5)
    model = build_model(config).eval()
    recipe = Recipe(model=config, clip=ClipSpec(short_side=40, crop_size=SIZE))
    report = export_model(model, recipe, tmp_path / "m", config=ExportConfig(to="torch-export"))
    assert max(report.check.difference.values()) < 1e-4
    assert read_metadata(report.path).channels == channels


def test_any_size(any_size_file):
    model, report = any_size_file
    assert (report.metadata.height, report.metadata.width) == (None, None)
    exported = ExportedModel.from_file(report.path)
    for size in ((40, 56), (64, 40), (32, 32)):
        clips = clips_of(model, 2, size)
        np.testing.assert_allclose(exported(clips), logits_of(model, clips), rtol=1e-4, atol=1e-4)


def test_a_model_stays_as_it_was(tmp_path: Path):
    model, recipe = small()
    model.train().double()
    report = export_model(model, recipe, tmp_path / "model", config=ExportConfig(to="torch-export"))
    assert model.training
    assert model.head.weight.dtype == torch.float64
    assert set(report.check.difference) == {1, 3}


def test_int8_is_small_and_near(tmp_path: Path):
    model, recipe = small()
    clips = clips_of(model, 4)
    report = export_model(
        model, recipe, tmp_path / "small.onnx", config=ExportConfig(int8=True), calibration=list(clips)
    )
    assert read_metadata(report.path).precision == "int8"
    assert 1e-4 < max(report.check.difference.values()) < 0.5
    graph = onnx.load(str(report.path)).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
    convolutions = [value for value in graph.initializer if len(value.dims) == 4 and value.dims[0] > 1]
    assert {value.data_type for value in convolutions} == {onnx.TensorProto.INT8}


# Metadata


def test_the_file_says_what_it_is(finished_run: Path, exported_run: ExportReport):
    run, facts = open_run(finished_run), read_metadata(exported_run.path)
    assert facts == exported_run.metadata
    assert facts.classes == run.classes
    assert (facts.num_frames, facts.channels, facts.height, facts.width) == (4, 3, 32, 32)
    assert (facts.to, facts.input, facts.precision, facts.vsn) == ("onnx", "uint8", "fp32", vsn.__version__)
    assert facts.weights_hash == weights_hash(run)
    assert facts.to_recipe().clip == run.recipe.clip
    assert facts.to_recipe().eval == replace(run.recipe.eval, protocol="center")
    assert facts.preprocessing["view"] == "one center crop of 32x32 pixels"
    entries = ort.InferenceSession(str(exported_run.path)).get_modelmeta().custom_metadata_map
    assert json.loads(entries["vsn"])["classes"] == list(run.classes)
    # Nothing of the machine it was trained on.
    assert run.recipe.data.root not in entries["vsn"]


def test_facts_are_read_without_torch_and_predictions_without_the_networks(
    exported_run: ExportReport, gray_video: Path
):
    program = (
        "import sys\n"
        "from vsn.inference.exported_metadata import read_metadata\n"
        f"assert read_metadata({str(exported_run.path)!r}).num_frames == 4\n"
        "assert 'torch' not in sys.modules\n"
        "import vsn\n"
        f"predictor = vsn.Predictor.from_file({str(exported_run.path)!r})\n"
        f"assert len(predictor.predict({str(gray_video)!r}).labels) == 3\n"
        "assert not [name for name in sys.modules if name.startswith('vsn.models')]\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("openvino")
def test_facts_of_other_formats(other_formats):
    reports = other_formats[1]
    facts = {to: read_metadata(report.path) for to, report in reports.items()}
    assert facts == {to: report.metadata for to, report in reports.items()}
    assert facts["openvino"] == replace(facts["torch-export"], to="openvino", outputs=OUTPUTS)
    with zipfile.ZipFile(reports["torch-export"].path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("extra/vsn.json"))
        assert json.loads(archive.read(name))["classes"][3:] == ["é", '"<&>']


# Which views


@pytest.mark.parametrize(
    ("protocol", "any_size", "expected"),
    [
        ("fcn", False, "center"),
        ("fcn", True, "fcn"),
        ("fcn-windows", False, "center"),
        ("fcn-windows", True, "fcn"),
        ("center", False, "center"),
        ("3crop", False, "3crop"),
        ("25x10", False, "25x10"),
    ],
)
def test_the_file_is_for_the_runs_protocol(protocol, any_size: bool, expected: str):
    recipe = replace(small("tsn_resnet14_tiny")[1], eval=EvalConfig(protocol=protocol))
    exported, note = export_view(recipe, any_size=any_size)
    assert exported == replace(recipe, eval=replace(recipe.eval, protocol=expected))
    assert ("--any-size" in note) == (protocol.startswith("fcn") and not any_size)
    assert ("by windows" in note) == (protocol == "fcn-windows" and any_size)


@pytest.mark.parametrize(("protocol", "expected"), [("3crop", (4, 40, 40)), ("25x10", (25, 32, 32))])
def test_clips_have_the_shape_of_the_protocol(tmp_path: Path, protocol, expected: tuple[int, int, int]):
    model, recipe = small("tsn_resnet14_tiny")
    recipe, config = replace(recipe, eval=EvalConfig(protocol=protocol)), ExportConfig(to="torch-export")
    metadata = export_model(model, recipe, tmp_path / "model", config=config).metadata
    assert (metadata.num_frames, metadata.height, metadata.width) == expected


def test_a_protocol_of_another_t_is_refused_for_a_temporal_model(finished_run: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"'25x10'.*T=25.*T=4"):
        export_run(finished_run, out=tmp_path / "m.onnx", protocol="25x10", progress=False)
    assert not list(tmp_path.iterdir())


# Prediction


def test_prediction_from_the_file_is_the_runs(finished_run: Path, exported_run: ExportReport, gray_video: Path):
    ours = vsn.Predictor.from_file(exported_run.path).predict(gray_video, top_k=3)
    runs = vsn.Predictor.from_run(finished_run, device="cpu")
    wanted = runs.predict(gray_video, top_k=3, protocol=EvalConfig(protocol="center"))
    assert (ours.path, ours.labels) == (wanted.path, wanted.labels)
    assert ours.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)


@pytest.mark.parametrize("average", ["logits", "softmax"])
def test_several_views_are_averaged_as_evaluation_does(
    finished_run: Path, views_report: ExportReport, gray_video: Path, average
):
    view = EvalConfig(protocol="3crop", average=average)
    ours = vsn.Predictor.from_file(views_report.path).predict(gray_video, protocol=view)
    wanted = vsn.Predictor.from_run(finished_run, device="cpu").predict(gray_video, protocol=view)
    assert ours.labels == wanted.labels
    assert ours.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)


def test_whole_frames_need_any_size(exported_run: ExportReport, gray_video: Path):
    whole = EvalConfig(protocol="fcn")
    fixed = vsn.Predictor.from_file(exported_run.path)
    with pytest.raises(ExportError, match=r"\(B, 4, 3, 32, 32\).*\(1, 4, 3, 36, 54\).*--any-size"):
        fixed.predict(gray_video, protocol=whole)


@pytest.mark.slow
def test_whole_frames_from_a_file_of_any_size(finished_run: Path, gray_video: Path, tmp_path: Path):
    config = ExportConfig(any_size=True)
    path = export_run(finished_run, config, out=tmp_path / "m.onnx", progress=False).path
    ours = vsn.Predictor.from_file(path).predict(gray_video)
    wanted = vsn.Predictor.from_run(finished_run, device="cpu").predict(gray_video)
    assert ours.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)


@pytest.mark.parametrize(("average", "expected"), [("logits", [2.0, 0.0]), ("softmax", [0.6, 0.4])])
def test_views_are_averaged_one_by_one(exported_run: ExportReport, average, expected: list[float]):
    """Two views, whose logits are those of probabilities 0.9 and 0.3, or 4 and 0."""
    odds = {"logits": [(4.0, 0.0), (0.0, 0.0)], "softmax": [np.log((0.9, 0.1)), np.log((0.3, 0.7))]}
    rest = iter(np.array(odds[average], np.float32))
    model = ExportedModel(exported_run.metadata, lambda clips, output: next(rest)[None])
    found = video_logits(model, np.zeros((2, 4, 3, 32, 32), np.uint8), average=average)
    assert (np.exp(found) if average == "softmax" else found).tolist() == pytest.approx(expected)


def test_the_command(exported_run: ExportReport, monkeypatch: pytest.MonkeyPatch, capsys):
    """Options become settings, and the report is printed; other tests export."""
    calls = []

    def export(run: Path, config: ExportConfig, **options: object) -> ExportReport:
        calls.append((run, config, options))
        return exported_run

    monkeypatch.setattr(export_module, "export_run", export)
    command = ["export", "run", "--to", "openvino", "--int8", "--any-size", "--input", "float32", "--root", "set"]
    cli.main([*command, "--calibration-clips", "8", "--weights", "best", "--check-accuracy"])
    page = capsys.readouterr().out
    ((run, config, options),) = calls
    assert run == Path("run")
    assert config == ExportConfig(to="openvino", int8=True, any_size=True, input="float32", calibration_clips=8)
    assert (options["weights"], options["root"], options["check_accuracy"]) == ("best", Path("set"), True)
    parts = (
        f"{exported_run.path}: ",
        " MB, fp32",
        "(B, 4, 3, H, W), 32x32, uint8",
        "3 clips of split 'test'",
        "100.0%",
    )
    assert [part for part in parts if part not in page] == []
    assert "--any-size" in page  # the note on whole frames
    cli.main([*command, "--json"])
    values = json.loads(capsys.readouterr().out)
    assert list(values) == ["path", "metadata", "num_bytes", "clips", "check", "note", "accuracy"]
    assert values["accuracy"]["exported"]["top1"] == exported_run.accuracy.exported.top1
    assert "mean_class" in values["accuracy"]["pytorch"]


def test_accuracy_of_the_file_beside_the_runs(exported_run: ExportReport):
    report = exported_run
    assert report.accuracy is not None
    assert report.accuracy.exported.num_videos == 3
    assert report.accuracy.agreement == 1.0
    assert report.accuracy.exported.top1 == report.accuracy.pytorch.top1
    assert report.clips == "3 clips of split 'test'"


def test_without_the_data_generated_clips_are_compared_and_that_is_said(
    finished_run: Path, views_report: ExportReport, tmp_path: Path
):
    assert views_report.clips.startswith("3 generated clips (")
    with pytest.raises(ConfigError, match="gone"):
        export_run(
            finished_run, ExportConfig(int8=True), out=tmp_path / "int8.onnx", root=tmp_path / "gone", progress=False
        )
    assert not list(tmp_path.iterdir())
    assert [file.name for file in views_report.path.parent.iterdir()] == ["m.pt2"]


def test_files_of_a_run_have_names_of_their_own(tmp_path: Path):
    configs = [
        ExportConfig(),
        ExportConfig(int8=True),
        ExportConfig(any_size=True),
        ExportConfig(input="float32"),
        ExportConfig(to="openvino"),
        ExportConfig(to="openvino", fp16=True),
        ExportConfig(folded=True),
        ExportConfig(fp16=True),
        ExportConfig(to="litert"),
        ExportConfig(to="executorch"),
        ExportConfig(to="torch-export"),
        ExportConfig(to="aoti"),
    ]
    names = [default_path(tmp_path, config).relative_to(tmp_path).as_posix() for config in configs]
    assert names[:2] == ["export/model.onnx", "export/model-int8.onnx"]
    assert len(set(names)) == len(names)


# Refusals


class _Wrong(ExportForm):
    """An export form with a fault: its frames come in another order."""

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return super().forward(clip.flip(1))


def test_a_file_that_differs_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, recipe = small()
    (tmp_path / "model.pt2").write_text("an older file")
    monkeypatch.setattr(export_module, "ExportForm", _Wrong)
    with pytest.raises(ExportError, match=r"model\.pt2.*fp32 allows 0\.001"):
        export_model(model, recipe, tmp_path / "model", config=ExportConfig(to="torch-export"))
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "an older file"


@pytest.mark.slow
@pytest.mark.needs("openvino")
def test_an_openvino_file_that_differs_leaves_neither_of_its_files(tmp_path: Path, monkeypatch):
    pytest.importorskip("openvino")
    model, recipe = small()
    monkeypatch.setattr(export_module, "ExportForm", _Wrong)
    with pytest.raises(ExportError, match=r"model\.xml"):
        export_model(model, recipe, tmp_path / "model", config=ExportConfig(to="openvino"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("difference", "precision"), [(1.1e-3, "fp32"), (0.06, "fp16"), (0.6, "int8"), (float("nan"), "int8")]
)
def test_tolerances(difference: float, precision):
    check = Check(difference={1: 0.0, 3: difference}, agreement=1.0, latency_ms={})
    with pytest.raises(ExportError, match=precision):
        require_close(check, precision, Path("model.onnx"))
    require_close(replace(check, difference={1: 0.0, 3: 9e-4}), precision, Path("model.onnx"))


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (np.zeros((1, 8, 3, 32, 32), np.uint8), r"\(B, 4, 3, 32, 32\).*\(1, 8, 3, 32, 32\).*4 frames"),
        (np.zeros((4, 3, 32, 32), np.uint8), r"\(B, 4, 3, 32, 32\), got \(4, 3, 32, 32\)"),
        (np.zeros((1, 4, 3, 40, 32), np.uint8), "--any-size"),
        (np.zeros((1, 4, 3, 32, 32), np.float32), "uint8, got float32"),
    ],
)
def test_clips_that_do_not_fit(exported_run: ExportReport, clips: np.ndarray, message: str):
    with pytest.raises(ExportError, match=message):
        ExportedModel.from_file(exported_run.path)(clips)


def test_files_that_are_none_of_ours(tmp_path: Path, onnx_file):
    strange = onnx.load(str(onnx_file[1]))
    del strange.metadata_props[:]
    onnx.save(strange, str(tmp_path / "strange.onnx"))
    (tmp_path / "text.onnx").write_text("text")
    (tmp_path / "text.xml").write_text("text")
    (tmp_path / "text.pt2").write_text("text")
    with zipfile.ZipFile(tmp_path / "strange.pt2", "w") as archive:
        archive.writestr("model/data", "")
    (tmp_path / "strange.xml").write_text("<net><layers/></net>")
    for name, message in {
        "model.pt": r"\.onnx, \.xml, \.pt2",
        "gone.onnx": "gone.onnx",
        "strange.onnx": "metadata.*'vsn'",
        "strange.pt2": "metadata.*'vsn'",
        "strange.xml": "metadata.*'vsn'",
        "text.onnx": "damaged",
        "text.xml": "damaged",
        "text.pt2": "damaged",
    }.items():
        with pytest.raises(ExportError, match=message):
            ExportedModel.from_file(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts | {"format_version": 9}, r"version 9.*version 1"),
        (lambda facts: {k: v for k, v in facts.items() if k != "classes"}, "damaged"),
        (lambda facts: facts | {"to": "coreml"}, "damaged"),
    ],
)
def test_damaged_facts(tmp_path: Path, exported_run: ExportReport, change, message: str):
    facts = change(json.loads(exported_run.metadata.to_json()))
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("m/extra/vsn.json", json.dumps(facts))
    with pytest.raises(ExportError, match=message):
        read_metadata(tmp_path / "m.pt2")


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_before_anything_is_done(tmp_path: Path, monkeypatch, package: str):
    monkeypatch.setitem(sys.modules, package, None)
    model, recipe = small()
    with pytest.raises(ExportError, match=rf"{package}, which is not installed.*pip install .vsn-video\[export\]"):
        export_model(model, recipe, tmp_path / "model.onnx")


def test_aoti_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    model, recipe = small()
    with pytest.raises(ExportError, match=r"g\+\+.*torch-export"):
        export_model(model, recipe, tmp_path / "model", config=ExportConfig(to="aoti"))
    assert not list(tmp_path.iterdir())


def test_bf16_is_openvinos(onnx_file):
    with pytest.raises(ExportError, match=r"'bf16'.*OpenVINO"):
        ExportedModel.from_file(onnx_file[1], precision="bf16")


class FakeOpenVino:
    """The part of openvino that opens a file, on a CPU with these abilities; records the settings."""

    def __init__(self, abilities: list[str]) -> None:
        self.abilities, self.settings = abilities, list[dict]()

    def Core(self) -> "FakeOpenVino":  # noqa: N802  (openvino's name)
        return self

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self.abilities

    def compile_model(self, path: str, device: str, settings: dict) -> "FakeOpenVino":
        self.settings.append(settings)
        return self

    def create_infer_request(self) -> "FakeOpenVino":
        return self


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("bf16", "bf16")])
def test_openvino_is_told_what_to_compute_in(monkeypatch: pytest.MonkeyPatch, precision, hint: str):
    monkeypatch.setitem(sys.modules, "openvino", fake := FakeOpenVino(["FP32", "BF16"]))
    open_openvino("model.xml", 0, precision)
    assert fake.settings == [{"INFERENCE_PRECISION_HINT": hint}]


@pytest.mark.parametrize(
    ("to", "opens"),
    [
        ("onnx", "open_onnx"),
        ("openvino", "open_openvino"),
        ("litert", "open_litert"),
        ("executorch", "open_executorch"),
    ],
)
def test_a_quota_of_cpu_time_limits_the_threads_of_runtimes(
    exported_run: ExportReport, monkeypatch: pytest.MonkeyPatch, to, opens: str
):
    metadata, started = replace(read_metadata(exported_run.path), to=to, folded=False), []
    monkeypatch.setattr(exported_module, "read_metadata", lambda path: metadata)
    monkeypatch.setattr(exported_module, "thread_limit", lambda: 3)
    monkeypatch.setattr(exported_module, opens, lambda path, num_threads, *_: started.append(num_threads))
    for num_threads in (0, 1):
        ExportedModel.from_file(exported_run.path, num_threads=num_threads)
    assert started == [3, 1]


def test_bf16_is_refused_where_the_processor_has_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", fake := FakeOpenVino(["FP32", "INT8"]))
    open_openvino("model.xml", 0, "fp32")
    with pytest.raises(ExportError, match="bf16"):
        open_openvino("model.xml", 0, "bf16")
    assert len(fake.settings) == 1


@pytest.mark.needs("openvino")
def test_the_command_predicts_in_bf16_or_says_that_it_cannot(other_formats, gray_video: Path, capsys):
    openvino = pytest.importorskip("openvino")
    command = ["predict", str(other_formats[1]["openvino"].path), str(gray_video), "--precision", "bf16"]
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        cli.main(command)
        assert "gray.mp4: " in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit, match="bf16"):
            cli.main(command)


@pytest.mark.parametrize("options", [[], ["--windows"]])
def test_a_run_has_its_own_precision(finished_run: Path, gray_video: Path, options: list[str]):
    with pytest.raises(SystemExit, match=r"--precision bf16"):
        cli.main(["predict", str(finished_run), str(gray_video), "--precision", "bf16", *options])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"to": "aoti", "int8": True}, "int8.*'aoti'"),
        ({"to": "torch-export", "fp16": True}, "fp16.*'torch-export'"),
        ({"to": "litert", "fp16": True}, "fp16.*'litert'"),
        ({"to": "executorch", "any_size": True}, "any_size.*executorch.*one size"),
        ({"to": "openvino", "fp16": True, "int8": True}, "fp16.*int8"),
        ({"calibration_clips": 0}, r"calibration_clips.*0"),
        ({"opset": 16}, r"opset.*16.*17"),
    ],
)
def test_impossible_settings(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        ExportConfig(**settings)


def test_a_folder_named_as_a_file_is_a_run(finished_run: Path, tmp_path: Path, gray_video: Path, capsys):
    run = shutil.copytree(finished_run, tmp_path / "run.onnx")
    cli.main(["predict", str(run), str(gray_video), "--device", "cpu"])
    assert "gray.mp4: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "change", [lambda clip: clip * 255, lambda clip: (clip - 0.45) / 0.225, lambda clip: clip * np.nan]
)
def test_float_clips_outside_the_range_are_refused(tmp_path: Path, change):
    model, recipe = small()
    exported = ExportedModel.from_file(
        export_model(model, recipe, tmp_path / "m.onnx", config=ExportConfig(input="float32")).path
    )
    clips = clips_of(model, 1).astype(np.float32) / np.float32(255)
    exported(clips)
    with pytest.raises(ExportError, match=r"float clips in \[0, 1\], got values from"):
        exported(change(clips).astype(np.float32))
