"""Write a traced model in each export format, with its metadata."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vsn.config import ExportConfig
from vsn.config.errors import one_line
from vsn.export.edge import INSTALL
from vsn.export.form import ClipForm, ExportForm, FramesForm
from vsn.inference.exported_metadata import KEY, OUTPUTS, ExportError, ExportMetadata, frames_file, import_package
from vsn.models.split import SplitBackbone

AXES = ("batch", "frames", "channels", "height", "width")
"""Of clips; a folded model takes one, without the first axis."""
_LEAST_OPSET = 18
"""The oldest that torch writes; ONNX's own converter writes older ones."""
_OLD_IR = 8
"""The version of the file format from the time of opset 17."""


def trace(form: nn.Module, clip: Tensor, *, any_size: bool) -> torch.export.ExportedProgram:
    """Trace a model in its export form, with a dynamic batch size and, if ``any_size``, dynamic height and width.

    In ``clip`` ``(B, T, C, H, W)`` B is at least 2, because torch.export specializes sizes of 1. For a `FoldedForm` it is
    ``(T, C, H, W)``.
    """
    axes: dict[int, Any] = {} if clip.ndim == 4 else {0: torch.export.Dim("batch", min=1, max=1 << 16)}
    if any_size:  # the exporter derives the smallest size, below which feature maps would be 1x1
        axes |= {clip.ndim - 2: torch.export.Dim.DYNAMIC, clip.ndim - 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), quiet():
        program = torch.export.export(form, (clip,), dynamic_shapes=(axes,))
    # A mean in the type that its input has: LiteRT's converter does not take the argument.
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.mean.dim and node.kwargs.get("dtype") == node.args[0].meta["val"].dtype:
            node.kwargs = {}
    return program


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    metadata: ExportMetadata | None,
    *,
    opset: int,
    inputs: Sequence[str] = ("clip",),
    outputs: Sequence[str] = OUTPUTS,
) -> None:
    """Write an ONNX file with its weights inside. An intermediate file needs no metadata."""
    import_package("onnxscript", "Export to ONNX")
    onnx = import_package("onnx", "Export to ONNX")
    with torch.no_grad(), quiet():
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=max(opset, _LEAST_OPSET),
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    assert written is not None
    model = _in_older_operators(written.model_proto, opset) if opset < _LEAST_OPSET else written.model_proto
    if inputs == ("clip",):
        _name_axes(model.graph)
    if metadata is not None:
        onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    onnx.save(model, str(path))


def _in_older_operators(model: Any, opset: int) -> Any:
    """Return an ONNX model in an older version of the operators. Raises `ExportError` if it has others."""
    converter = import_package("onnx.version_converter", "Export to ONNX")
    try:
        model = converter.convert_version(model, opset)
    except RuntimeError as error:
        raise ExportError(
            f"The operators of this network cannot be written in version {opset} of ONNX ({one_line(error)}). Use --opset "
            f"{_LEAST_OPSET}."
        ) from error
    for node in model.graph.node:  # the converter keeps an attribute that older versions do not have
        if node.op_type.startswith("Reduce"):
            kept = [entry for entry in node.attribute if entry.name != "noop_with_empty_axes"]
            del node.attribute[:]
            node.attribute.extend(kept)
    # Runtimes of that time refuse a newer version of the file, whose additions an older one must not have.
    model.ir_version = min(model.ir_version, _OLD_IR)
    for part in (*model.graph.node, *model.functions):
        part.ClearField("metadata_props")
    return model


def write_onnx_parts(
    form: ExportForm, path: Path, metadata: ExportMetadata, split: SplitBackbone, *, opset: int
) -> None:
    """Write a network as two ONNX files: ``path``, which takes the features that `frames_file` computes of each frame."""
    assert metadata.height, "a split takes clips of one size, which are squares"
    shape = (2 * metadata.num_frames, metadata.channels, metadata.height, metadata.height)
    frames = torch.zeros(shape, dtype=getattr(torch, metadata.input))
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    with torch.no_grad(), quiet():
        first = FramesForm(form, split)
        features = first(frames)
        names = tuple(f"feature{number}" for number in range(len(features)))
        program = torch.export.export(first, (frames,), dynamic_shapes=({0: batch},))
        write_onnx(program, frames_file(path), metadata, opset=opset, inputs=("frames",), outputs=names)
        # One argument per tensor; the number of frames is a multiple of T.
        axes = tuple({0: metadata.num_frames * batch} for _ in features)
        program = torch.export.export(ClipForm(form, split), features, dynamic_shapes=(axes,))
        write_onnx(program, path, metadata, opset=opset, inputs=names)


def _name_axes(graph: Any) -> None:
    """Name the axes of an ONNX graph: torch calls those of any size s53 and the like, which users see and set."""
    symbols = {}
    # Features have no axis of frames where the network merges them.
    rows = {"clip": AXES[-_num_axes(graph.input[0]) :], "logits": ("batch", "classes")}
    for value in graph.output[1:]:
        rows[value.name] = ("batch", "features") if _num_axes(value) == 2 else ("batch", "frames", "features")
    for value in (graph.input[0], *graph.output):
        names = rows[value.name]
        for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            axis.denotation = name
            if axis.dim_param:
                symbols[axis.dim_param] = name
    # Inside the graph they are parts of expressions, such as "4*s53".
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = re.sub(r"\b[a-z]\d+\b", lambda match: symbols.get(match[0], match[0]), axis.dim_param)


def _num_axes(value: Any) -> int:
    return len(value.type.tensor_type.shape.dim)


def write_openvino(graph: Any, path: Path, metadata: ExportMetadata, *, fp16: bool) -> None:
    """Write OpenVINO's ``.xml`` and, next to it, its ``.bin``."""
    ov = import_package("openvino", "Export to OpenVINO")
    graph.set_rt_info(metadata.to_json(), KEY)
    ov.save_model(graph, os.fspath(path), compress_to_fp16=fp16)


def write_aoti(program: torch.export.ExportedProgram, path: Path, metadata: ExportMetadata) -> None:
    """Compile for this machine's CPU and write a ``.pt2`` that `torch._inductor.aoti_load_package` reads.

    Raises:
        ExportError: there is no C++ compiler.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++", "cl")), None)
    if compiler is None or shutil.which(compiler) is None:
        searched = f"the one in CXX, {compiler!r}" if compiler else "g++, clang++"
        raise ExportError(
            f"Export to aoti needs a C++ compiler; none was found ({searched}). Install one, such as g++, or export to "
            "torch-export."
        )
    with torch.no_grad(), quiet():
        torch._inductor.aoti_compile_and_package(program, package_path=os.fspath(path))
    # aoti_compile_and_package takes no extra files; add the member that torch.export.save would write.
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{folder}/extra/{KEY}.json", metadata.to_json())


def check_packages(config: ExportConfig) -> None:
    """Import the packages of a format, before anything takes time. Raises `ExportError`."""
    # OpenVINO files are converted from ONNX; ONNX Runtime checks an ONNX file. A .pt2 needs only torch.
    packages = {
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "openvino": ("onnx", "onnxscript", "openvino"),
        "executorch": ("executorch.exir",),
        "litert": ("litert_torch", "ai_edge_litert"),
    }
    for package in packages.get(config.file_format, ()):
        import_package(package, f"Export to {config.to}", command=INSTALL.get(config.to, ""))
    if config.to == "openvino" and config.int8:
        import_package("nncf", "int8 for OpenVINO")


def quantize_onnx(path: Path, clips: Sequence[NDArray[Any]], metadata: ExportMetadata | None) -> None:
    """Quantize an ONNX file to int8 in place, with a quantize and dequantize pair at the inputs of each convolution.

    Weights are quantized per output channel (int8), activations per tensor (uint8) over their range on the calibration
    clips, each ``(1, T, C, H, W)``. Metadata is written into the file, unless None.
    """
    onnx = import_package("onnx", "int8 for ONNX")
    import_package("onnxruntime", "int8 for ONNX")
    from onnxruntime import quantization

    # The base class is only there where onnxruntime is.
    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[NDArray[Any]] = iter(clips)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            clip = next(self.rest, None)
            return None if clip is None else {"clip": clip}

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".int8-") as folder, quiet():
        prepared = os.path.join(folder, "prepared.onnx")
        quantization.shape_inference.quant_pre_process(str(path), prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # The temporal operations (Reshape, Transpose, Concat) too, so that the graph stays in int8 around them.
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "MaxPool", "Reshape", "Transpose", "Concat"],
        )
    if metadata is not None:  # quantization does not keep it
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
        onnx.save(model, str(path))


def quantize_openvino(graph: Any, clips: Sequence[NDArray[Any]]) -> Any:
    """Quantize an OpenVINO graph to int8, with ranges from ``clips``, each ``(1, T, C, H, W)``."""
    nncf = import_package("nncf", "int8 for OpenVINO")
    with quiet():
        return nncf.quantize(graph, nncf.Dataset([np.asarray(clip) for clip in clips]), subset_size=len(clips))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what exporters print, log and warn about; errors pass."""
    # torch.onnx prints progress, and torch.export and NNCF log warnings that users cannot act on.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
