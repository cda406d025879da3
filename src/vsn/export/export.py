"""Export: a run into one file that needs no run folder, checked against PyTorch before it is there."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsn.config import EvalConfig, ExportConfig, Protocol, Recipe
from vsn.data.views import PROTOCOLS, num_test_frames
from vsn.export.check import (
    Check,
    compare,
    export_accuracy,
    generated_clips,
    real_clips,
    require_close,
    split_clips,
)
from vsn.export.exported import ExportedModel
from vsn.export.facts import SUFFIXES, ExportFacts, need, recipe_to_export
from vsn.export.form import ExportForm
from vsn.export.write import (
    check_packages,
    quantize_onnx,
    quantize_openvino,
    trace,
    write_aoti,
    write_onnx,
    write_openvino,
    write_torch_export,
)
from vsn.models import VideoClassifier
from vsn.runs.checkpoint import load_model
from vsn.runs.metadata import describe_preprocessing
from vsn.runs.run import WeightsKind, open_run, weights_hash
from vsn.system.files import atomic_write
from vsn.system.version import installed_version


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with PyTorch.

    Attributes:
        path: the file; beside an OpenVINO ``.xml`` lies its ``.bin``.
        facts: what the file says of itself.
        num_bytes: of the file or files.
        clips: what it was compared on, in words.
        check: the comparison.
        note: a word on the protocol, or "".
        accuracy: with `check_accuracy`, measures of PyTorch and of the file on the same videos; else None.
    """

    path: Path
    facts: ExportFacts
    num_bytes: int
    clips: str
    check: Check
    note: str = ""
    accuracy: dict[str, Any] | None = None


def export_run(
    path: str | Path,
    config: ExportConfig | None = None,
    *,
    out: str | Path | None = None,
    weights: WeightsKind = "last",
    protocol: Protocol | None = None,
    root: str | Path | None = None,
    check_accuracy: bool = False,
    progress: bool = True,
) -> ExportReport:
    """Export a run: write the file, compare it with PyTorch on clips of the run's data, report.

    Args:
        path: the run folder.
        config: what to write; default ONNX.
        out: the file; default ``RUN/export/model`` with the format's suffix.
        weights: the last of the run, or those of its best validation.
        protocol: the view of a video the file is for; default the run's, see `export_view`.
        root: where the data set is now; default the recipe's ``data.root``.
        check_accuracy: test the file, and the run's model, on the run's test split.
        progress: draw progress bars.

    Raises:
        RunError, ConfigError: as loading a run; for int8, that its clips cannot be read.
        ExportError: a package is not installed, or the file differs from PyTorch by more than
            `TOLERANCES` allows: it is not left behind.
    """
    config = config or ExportConfig()
    check_packages(config)
    run = open_run(path)
    recipe = run.recipe if root is None else replace(run.recipe, data=replace(run.recipe.data, root=str(root)))
    recipe = replace(recipe, data=replace(recipe.data, cache="none"))
    if protocol is not None:
        recipe = replace(recipe, eval=replace(recipe.eval, protocol=protocol))
    model = load_model(run, weights)
    view = export_view(recipe, any_size=config.any_size)
    seen = replace(recipe, eval=view.eval)
    calibration = None
    if config.int8:
        calibration = split_clips(
            seen, run.classes, recipe.data.train_split, config.calibration_clips, progress=progress
        )
    found, said = real_clips(seen, run.classes)
    report = export_model(
        model,
        recipe,
        default_path(run.path, config) if out is None else out,
        config=config,
        classes=run.classes,
        weights=weights,
        hash_of_weights=weights_hash(run, weights),
        clips=np.stack(found) if found else None,
        calibration=calibration,
    )
    report = replace(report, clips=said if found else f"{report.clips} ({said})")
    if check_accuracy:
        exported = ExportedModel.from_file(report.path)
        report = replace(report, accuracy=export_accuracy(model, exported, seen, run.classes, progress=progress))
    return report


def export_model(
    model: VideoClassifier,
    recipe: Recipe,
    path: str | Path,
    *,
    config: ExportConfig | None = None,
    classes: Sequence[str] = (),
    weights: str = "",
    hash_of_weights: str = "",
    clips: NDArray[np.uint8] | None = None,
    calibration: Sequence[NDArray[np.uint8]] | None = None,
) -> ExportReport:
    """Export a model, compare the file with it, and report.

    Args:
        model: left as it is.
        recipe: what it is (table model) and what it sees of a video (tables clip, eval); `Recipe(model=...)` will do.
        path: the file to write; the format's suffix is added where it is missing.
        config: what to write; default ONNX.
        classes: names, in the order of the logits; default their numbers.
        weights: "last" or "best", for the file to say.
        hash_of_weights: SHA-256 of the weights' file, for the file to say.
        clips: uint8 ``(3, T, C, H, W)`` to compare on; default generated ones.
        calibration: for int8 uint8 clips ``(T, C, H, W)``; default the same as ``clips``.

    Raises:
        ExportError: as `export_run`.
    """
    config = config or ExportConfig()
    check_packages(config)
    view = export_view(recipe, any_size=config.any_size)
    num_classes = model.head.out_features
    facts = ExportFacts(
        to=config.to,
        classes=tuple(classes) or tuple(str(label) for label in range(num_classes)),
        num_frames=view.num_frames,
        channels=recipe.model.clip_channels,
        height=None if config.any_size else view.size,
        width=None if config.any_size else view.size,
        input=config.input,
        precision="int8" if config.int8 else "fp16" if config.fp16 else "fp32",
        preprocessing=describe_preprocessing(replace(recipe, eval=view.eval)),
        recipe=recipe_to_export(replace(recipe, eval=view.eval)),
        vsn=installed_version(),
        weights=weights,
        weights_hash=hash_of_weights,
    )
    said = "clips that were given"
    if clips is None:
        clips = generated_clips((3, facts.num_frames, facts.channels, view.size, view.size))
        said = "3 generated clips"
    path = Path(path)
    if path.suffix != SUFFIXES[config.to]:
        path = path.with_name(path.name + SUFFIXES[config.to])
    reference = copy.deepcopy(model).cpu().float().eval()
    with atomic_write(path) as temporary:
        try:
            _write(reference, temporary, config, facts, clips if calibration is None else calibration, view.size)
            check = compare(reference, ExportedModel.from_file(temporary), clips)
            require_close(check, facts.precision, path)
            if config.to == "openvino":  # the .xml, without which it is nothing, comes last
                temporary.with_suffix(".bin").replace(path.with_suffix(".bin"))
        finally:
            temporary.with_suffix(".bin").unlink(missing_ok=True)
    files = [path, path.with_suffix(".bin")] if config.to == "openvino" else [path]
    return ExportReport(path, facts, sum(file.stat().st_size for file in files), said, check, view.note)


def _write(
    model: VideoClassifier,
    path: Path,
    config: ExportConfig,
    facts: ExportFacts,
    calibration: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    size: int,
) -> None:
    """Write the file of a format to a path; of OpenVINO the ``.bin`` beside it too."""
    form = ExportForm(model, uint8=config.input == "uint8")
    # Two sizes that differ, and maps of features above 1x1: what is equal or 1 here would be taken for a rule.
    height, width = (max(size, 64) + 32, max(size, 64) + 64) if config.any_size else (size, size)
    clip = torch.zeros(2, facts.num_frames, facts.channels, height, width, dtype=getattr(torch, config.input))
    program = trace(form, clip, any_size=config.any_size)
    ranges = [clip[None] if config.input == "uint8" else clip[None] / np.float32(255) for clip in calibration]
    match config.to:
        case "onnx":
            write_onnx(program, path, facts, opset=config.opset)
            if config.int8:
                quantize_onnx(path, ranges, facts)
        case "openvino":
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".openvino-") as folder:
                middle = Path(folder) / "model.onnx"
                write_onnx(program, middle, None, opset=config.opset)
                graph = need("openvino", "Export to OpenVINO").convert_model(str(middle))
                if config.int8:
                    graph = quantize_openvino(graph, ranges)
                write_openvino(graph, path, facts, fp16=config.fp16)
        case "torch-export":
            write_torch_export(program, path, facts)
        case "aoti":
            write_aoti(program, path, facts)


def default_path(run: Path, config: ExportConfig) -> Path:
    """Where a run's export goes: ``RUN/export/model.onnx``, ``model-int8.onnx``, ``model-aoti.pt2``, ..."""
    parts = ["model"]
    parts += ["aoti"] if config.to == "aoti" else []
    parts += [name for name, on in (("int8", config.int8), ("fp16", config.fp16)) if on]
    parts += ["any-size"] if config.any_size else []
    parts += [config.input] if config.input != ExportConfig.input else []
    return run / "export" / f"{'-'.join(parts)}{SUFFIXES[config.to]}"


@dataclass(frozen=True)
class ExportView:
    """What an exported model sees of a video.

    Attributes:
        eval: the protocol, and the rest of the recipe's table eval.
        size: height and width of its crops, pixels; of whole frames, a size to trace with.
        num_frames: T.
        note: what the user should know of it, or "".
    """

    eval: EvalConfig
    size: int
    num_frames: int
    note: str


def export_view(recipe: Recipe, *, any_size: bool) -> ExportView:
    """Which protocol an exported model is for, and its T and size.

    The run's own, but for whole frames (fcn), which have many shapes: a file of one size takes their center crops
    (protocol center) instead. A TSN under a protocol with a T of its own is exported for that T.

    Raises:
        ConfigError: the protocol has another T, and the model keeps its own.
    """
    view, note = recipe.eval, ""
    num_frames = num_test_frames(recipe.model, view.protocol)
    crops = PROTOCOLS[view.protocol].crops
    size = recipe.clip.short_side if crops == "three" else recipe.clip.crop_size
    if crops == "whole" and not any_size:
        note = (
            f"The run is tested on whole frames (protocol {view.protocol}), which have many shapes; this file takes "
            f"{size}x{size} center crops of them (protocol center). For whole frames: --any-size."
        )
        view = replace(view, protocol="center")
    return ExportView(view, size, num_frames, note)
