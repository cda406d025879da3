"""Export a run to a file for another runtime, and compare the file with PyTorch before keeping it."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsn.config import ExportConfig, Protocol, Recipe
from vsn.config.distribution import installed_version
from vsn.data.lengths import training_seconds
from vsn.data.processor import Processor
from vsn.data.views import PROTOCOLS
from vsn.export.check import (
    Accuracy,
    Check,
    compare,
    export_accuracy,
    generated_clips,
    real_clips,
    require_close,
    split_clips,
)
from vsn.export.edge import write_executorch, write_litert
from vsn.export.form import ExportForm, FoldedForm
from vsn.export.web import check_page, find_examples, page_libraries, write_page
from vsn.export.write import (
    check_packages,
    quantize_onnx,
    quantize_openvino,
    quiet,
    trace,
    write_aoti,
    write_onnx,
    write_onnx_parts,
    write_openvino,
)
from vsn.inference.exported import ExportedModel
from vsn.inference.exported_metadata import (
    KEY,
    OUTPUTS,
    SUFFIXES,
    ExportError,
    ExportMetadata,
    frames_file,
    import_package,
)
from vsn.models import VideoClassifier
from vsn.models.classifier import FrameClassifier
from vsn.models.split import CannotSplitError, SplitBackbone, split_backbone
from vsn.runs.checkpoint import load_model
from vsn.runs.run import WeightsKind, open_run, weights_hash
from vsn.system.files import atomic_write


@dataclass(frozen=True)
class ExportReport:
    """The exported file, compared with PyTorch."""

    path: Path
    """An OpenVINO ``.xml`` has its ``.bin`` next to it."""
    metadata: ExportMetadata
    num_bytes: int
    """Of the file or files."""
    clips: str
    """Description of the clips it was compared on."""
    check: Check
    note: str = ""
    """A remark on the protocol."""
    accuracy: Accuracy | None = None
    """With `check_accuracy`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        accuracy = self.accuracy and self.accuracy.to_dict()
        return {**asdict(self), "path": str(self.path), "accuracy": accuracy}


def export_run(
    path: str | Path,
    config: ExportConfig | None = None,
    *,
    out: str | Path | None = None,
    weights: WeightsKind = "last",
    protocol: Protocol | None = None,
    root: str | Path | None = None,
    check_accuracy: bool = False,
    window_seconds: float | None = None,
    progress: bool = True,
) -> ExportReport:
    """Export a run: write the file, compare it with PyTorch on clips of the run's data set.

    Args:
        path: the run folder.
        config: what to write; default ONNX.
        out: the file, for web the folder; default ``RUN/export/model`` with the format's suffix, ``RUN/export/web``.
        weights: weights of the last epoch, or of the best validation.
        protocol: the view of a video that the file takes; default the run's, see `export_view`.
        root: folder of the data set, if it moved; default the recipe's ``data.root``.
        check_accuracy: test the file, and the run's model, on the run's test split.
        window_seconds: for web, length of the windows of timelines and the camera; None: the page has neither.
        progress: draw progress bars.

    Raises:
        RunError, ConfigError: as loading a run; for int8, if the calibration clips cannot be read.
        ExportError: a package is not installed, or the file differs from PyTorch by more than
            `TOLERANCES` allows; no file is left then.
    """
    config = config or ExportConfig()
    # A missing package is reported before the model is loaded.
    check_packages(config)
    run = open_run(path)
    # A few clips are read once; a cache would decode whole videos for them.
    data = replace(run.recipe.data, cache="none", root=run.recipe.data.root if root is None else str(root))
    recipe = replace(run.recipe, data=data)
    if protocol is not None:
        recipe = replace(recipe, eval=replace(recipe.eval, protocol=protocol))
    model = load_model(run, weights)
    # The file may be for another view than the run's; clips and accuracy are of that view.
    as_exported, _ = export_view(recipe, any_size=config.any_size)
    calibration = None
    # Ranges come from training clips: those of test clips would favor the file on the test split.
    if config.int8:
        calibration = split_clips(
            as_exported, run.classes, data.train_split, config.calibration_clips, progress=progress
        )
    clips, description = real_clips(as_exported, run.classes)
    file = default_path(run.path, config) if out is None else Path(out)
    if config.to == "web" and out is not None:
        file = file / "model.onnx"
    with contextlib.ExitStack() as stack:
        libraries = None
        if config.to == "web":
            # Before the model takes time: a download may fail.
            check_page(as_exported)
            examples = find_examples(as_exported, config.examples)
            libraries = stack.enter_context(page_libraries(config.node_modules))
        report = export_model(
            model,
            recipe,
            file,
            config=config,
            classes=run.classes,
            weights=weights,
            weights_sha256=weights_hash(run, weights),
            window_seconds=training_seconds(recipe),
            clips=clips,
            calibration=calibration,
        )
        if libraries is not None:
            write_page(file.parent, report.metadata, libraries, window_seconds=window_seconds, examples=examples)
    report = replace(report, clips=f"{report.clips} ({description})" if clips is None else description)
    if check_accuracy:
        exported = ExportedModel.from_file(report.path)
        report = replace(report, accuracy=export_accuracy(model, exported, as_exported, run.classes, progress=progress))
    return report


def export_model(
    model: VideoClassifier,
    recipe: Recipe,
    path: str | Path,
    *,
    config: ExportConfig | None = None,
    classes: Sequence[str] = (),
    weights: str = "",
    weights_sha256: str = "",
    window_seconds: float | None = None,
    clips: NDArray[np.uint8] | None = None,
    calibration: Sequence[NDArray[np.uint8]] | None = None,
) -> ExportReport:
    """Export a model and compare the file with it.

    Args:
        model: is not changed.
        recipe: describes the model (table model) and its input (tables clip, eval); `Recipe(model=...)` is enough.
        path: the file to write; the format's suffix is added if it is missing.
        config: what to write; default ONNX.
        classes: names, in the order of the logits; default their numbers.
        weights: "last" or "best", for the metadata.
        weights_sha256: SHA-256 of the weights file, for the metadata.
        window_seconds: median length of training videos, for the metadata.
        clips: uint8 ``(3, T, C, H, W)`` to compare on; default generated ones.
        calibration: for int8, uint8 clips ``(T, C, H, W)``; default the same as ``clips``.

    Raises:
        ExportError: as `export_run`.
    """
    config = config or ExportConfig()
    check_packages(config)
    recipe, note = export_view(recipe, any_size=config.any_size)
    clip, protocol, processor = recipe.clip, recipe.eval.protocol, Processor(recipe)
    # Of whole frames this is only a size to trace and compare with.
    size = clip.short_side if PROTOCOLS[protocol].crops == "three" else clip.crop_size
    # Everything that a user of the file needs and that the graph does not hold.
    metadata = ExportMetadata(
        to=config.file_format,
        classes=tuple(classes) or tuple(str(label) for label in range(model.head.out_features)),
        num_frames=processor.num_frames,  # some protocols have their own T, for a TSN
        channels=recipe.model.clip_channels,
        height=None if config.any_size else size,
        width=None if config.any_size else size,
        input=config.input,
        precision="int8" if config.int8 else "fp16" if config.fp16 else "fp32",
        preprocessing=processor.describe(),
        recipe=processor.to_dict(),
        vsn=installed_version(),
        weights=weights,
        weights_hash=weights_sha256,
        training_seconds=window_seconds,
        outputs=OUTPUTS if config.file_format in ("onnx", "openvino") and not config.folded else OUTPUTS[:1],
        folded=config.takes_one_clip,
    )
    description = "given clips"
    if clips is None:
        clips = generated_clips((3, metadata.num_frames, metadata.channels, size, size))
        description = "3 generated clips"
    path, suffix = Path(path), SUFFIXES[config.file_format]
    if path.suffix != suffix:
        path = path.with_name(path.name + suffix)
    # The file is compared with fp32 on the CPU, where a training run may have left the model on a GPU in another type.
    reference = copy.deepcopy(model).cpu().float().eval()
    # The file gets its name only if it passes, so that an older one is kept otherwise.
    with atomic_write(path) as temporary:
        try:
            ranges = clips if calibration is None else calibration
            metadata = _write(reference, temporary, config, metadata, ranges, size, recipe.model.stem_channels)
            check = compare(reference, ExportedModel.from_file(temporary), clips)
            require_close(check, metadata.precision, path)
            # The file appears last, because it does not open without the other one.
            for written, final in zip(_beside(temporary, config), _beside(path, config), strict=True):
                written.replace(final)
        finally:
            for written in _beside(temporary, config):
                written.unlink(missing_ok=True)
    num_bytes = sum(file.stat().st_size for file in (path, *_beside(path, config)))
    return ExportReport(path, metadata, num_bytes, description, check, note)


def _beside(path: Path, config: ExportConfig) -> tuple[Path, ...]:
    """Return the second file of an export, if it has one: the weights of an OpenVINO file, the first part of a split."""
    if config.to == "openvino":
        return (path.with_suffix(".bin"),)
    return (frames_file(path),) if config.split else ()


def _write(
    model: VideoClassifier,
    path: Path,
    config: ExportConfig,
    metadata: ExportMetadata,
    calibration: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    size: int,
    stem_channels: int,
) -> ExportMetadata:
    """Trace the model and write it in the format, with the file beside it; return the metadata in it."""
    form = ExportForm(
        model,
        uint8=config.input == "uint8",
        features="features" in metadata.outputs,
        half=config.fp16 and config.file_format == "onnx",
    )
    if config.split:
        split = _split(form, stem_channels)
        metadata = replace(metadata, first_temporal=split.first_temporal)
        write_onnx_parts(form, path, metadata, split, opset=config.opset)
        return metadata
    # For any size, trace with different height and width, and feature maps above 1x1: torch.export would take equal
    # sizes, and sizes of 1, for a rule.
    height, width = (max(size, 64) + 32, max(size, 64) + 64) if config.any_size else (size, size)
    shape = (2, metadata.num_frames, metadata.channels, height, width)
    clips = torch.zeros(shape, dtype=getattr(torch, config.input))
    if metadata.folded:
        clips = clips[0]
        program = trace(FoldedForm(form), clips, any_size=config.any_size)
    else:
        program = trace(form, clips, any_size=config.any_size)
    # In the dtype and shape that the graph takes.
    given = calibration if metadata.folded else [clip[None] for clip in calibration]
    ranges = [clip if config.input == "uint8" else clip / np.float32(255) for clip in given]
    match config.file_format:
        case "onnx":
            write_onnx(program, path, metadata, opset=config.opset, outputs=metadata.outputs)
            if config.int8:
                quantize_onnx(path, ranges, metadata)
        case "openvino":  # converted from ONNX
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".openvino-") as folder:
                intermediate = Path(folder) / "model.onnx"
                write_onnx(program, intermediate, None, opset=config.opset, outputs=metadata.outputs)
                graph = import_package("openvino", "Export to OpenVINO").convert_model(str(intermediate))
                if config.int8:
                    graph = quantize_openvino(graph, ranges)
                # fp16 only changes how weights are stored; OpenVINO converts them when it opens the file.
                write_openvino(graph, path, metadata, fp16=config.fp16)
        case "torch-export":
            torch.export.save(program, path, extra_files={f"{KEY}.json": metadata.to_json()})
        case "aoti":
            write_aoti(program, path, metadata)
        case "executorch":
            with quiet():
                write_executorch(program, path, metadata)
        case "litert":
            with quiet():
                write_litert(program, clips, path, metadata)
    return metadata


def _split(form: ExportForm, channels: int) -> SplitBackbone:
    """Split a network before its first temporal operation. Raises `ExportError` if it has no such parts."""
    reason = "it mixes the frames of a clip from its first layer on"
    if isinstance(form.model, FrameClassifier):
        try:
            return split_backbone(form.model.backbone, channels=channels)
        except CannotSplitError as error:
            reason = str(error)
    raise ExportError(f"The network cannot be split: {reason}. Export it without --split.")


def default_path(run: Path, config: ExportConfig) -> Path:
    """Name a run's file after its settings: ``RUN/export/model.onnx``, ``model-aoti.pt2``, ``web-int8/model.onnx``, ..."""
    options = {
        "aoti": config.to == "aoti",  # the suffix .pt2 is that of torch-export too
        "int8": config.int8,
        "fp16": config.fp16,
        "any-size": config.any_size,
        "split": config.split,
        "folded": config.folded,
        config.input: config.input != ExportConfig.input,
    }
    if config.to == "web":
        return (
            run / "export" / "-".join(["web", *(option for option, chosen in options.items() if chosen)]) / "model.onnx"
        )
    name = "-".join(["model", *(option for option, chosen in options.items() if chosen)])
    return run / "export" / f"{name}{SUFFIXES[config.file_format]}"


def export_view(recipe: Recipe, *, any_size: bool) -> tuple[Recipe, str]:
    """Choose the view of a video that an exported model takes.

    It is the run's, except for whole frames (protocol fcn), which have many shapes: a file of one size takes their
    center crops (protocol center).

    Returns:
        The recipe with that protocol, and a note for the user, or "".
    """
    protocol = recipe.eval.protocol
    if PROTOCOLS[protocol].windows and any_size:
        recipe = replace(recipe, eval=replace(recipe.eval, protocol="fcn"))
        return recipe, f"The run is tested by protocol {protocol}, by windows; this file scores the whole frame (fcn)."
    if PROTOCOLS[protocol].crops != "whole" or any_size:
        return recipe, ""
    size = recipe.clip.crop_size
    return replace(recipe, eval=replace(recipe.eval, protocol="center")), (
        f"The run is tested on whole frames (protocol {protocol}) of any shape; this file takes {size}x{size} "
        "center crops (protocol center). For whole frames export with --any-size."
    )
