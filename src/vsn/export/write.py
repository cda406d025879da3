"""Writers of the formats: a model in its export form, traced once, into a file that says what it is."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vsn.config import ExportConfig
from vsn.export.facts import KEY, ExportError, ExportFacts, need, quiet

_MAX = 1 << 16
"""Of an axis whose size is left open."""


def trace(form: nn.Module, clip: Tensor, *, any_size: bool) -> torch.export.ExportedProgram:
    """The graph of a model in its export form, with an open batch axis and, when asked, open height and width.

    Args:
        form: clips to logits.
        clip: ``(B, T, C, H, W)``; B at least 2, as one clip would fix the batch at 1.
        any_size: leave H and W open.
    """
    axes: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=_MAX)}
    if any_size:  # from what least size on, the exporter finds: a 1x1 map of features would be a case of its own
        axes |= {3: torch.export.Dim.DYNAMIC, 4: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), quiet():
        return torch.export.export(form, (clip,), dynamic_shapes=(axes,))


def write_onnx(program: torch.export.ExportedProgram, path: Path, facts: ExportFacts | None, *, opset: int) -> None:
    """Write an ONNX file, its weights inside; without facts one that is a step on the way, or only measured."""
    need("onnxscript", "Export to ONNX")
    onnx = need("onnx", "Export to ONNX")
    with torch.no_grad(), quiet():
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=["clip"],
            output_names=["logits"],
            verbose=False,
        )
    assert written is not None
    model = written.model_proto
    if facts is not None:
        onnx.helper.set_model_props(model, {KEY: facts.to_json()})
    onnx.save(model, str(path))


def write_openvino(graph: Any, path: Path, facts: ExportFacts, *, fp16: bool) -> None:
    """Write OpenVINO's ``.xml`` and, beside it, its ``.bin``."""
    ov = need("openvino", "Export to OpenVINO")
    graph.set_rt_info(facts.to_json(), KEY)
    ov.save_model(graph, os.fspath(path), compress_to_fp16=fp16)


def write_torch_export(program: torch.export.ExportedProgram, path: Path, facts: ExportFacts) -> None:
    """Write a ``.pt2`` that `torch.export.load` reads."""
    torch.export.save(program, path, extra_files={f"{KEY}.json": facts.to_json()})


def write_aoti(program: torch.export.ExportedProgram, path: Path, facts: ExportFacts) -> None:
    """Compile for the processor at hand and write a ``.pt2`` that `torch._inductor.aoti_load_package` reads.

    Raises:
        ExportError: there is no C++ compiler.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++", "cl")), None)
    if compiler is None or shutil.which(compiler) is None:
        raise ExportError(
            "Export to aoti compiles C++, and no compiler was found"
            + (f" under the name in CXX, {compiler!r}" if compiler else " (g++, clang++)")
            + ". Install one, such as g++, or export to torch-export, which needs none."
        )
    with torch.no_grad(), quiet():
        torch._inductor.aoti_compile_and_package(program, package_path=os.fspath(path))
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{folder}/extra/{KEY}.json", facts.to_json())


def check_packages(config: ExportConfig) -> None:
    """Ask for the packages of a format before anything takes time. Raises `ExportError`."""
    if config.to in ("onnx", "openvino"):
        need("onnx", "Export to ONNX")
        need("onnxscript", "Export to ONNX")
    if config.to == "onnx":
        need("onnxruntime", "Checking an ONNX file")
    if config.to == "openvino":
        need("openvino", "Export to OpenVINO")
        if config.int8:
            need("nncf", "int8 for OpenVINO")


def quantize_onnx(path: Path, clips: Sequence[NDArray[Any]], facts: ExportFacts | None) -> None:
    """Replace an ONNX file by its int8 form: a pair of quantize and dequantize at each convolution's inputs.

    Weights are quantized by output channel (int8), activations by tensor (uint8), from their least to their
    greatest value over ``clips``, each ``(1, T, C, H, W)``. ``facts`` are written into the file, unless None.
    """
    onnx = need("onnx", "int8 for ONNX")
    need("onnxruntime", "int8 for ONNX")
    from onnxruntime import quantization

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
            op_types_to_quantize=[
                "Conv",
                "Gemm",
                "MatMul",
                "Add",
                "MaxPool",
                "Reshape",
                "Transpose",
                "Concat",
            ],
        )
    if facts is not None:
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {KEY: facts.to_json()})
        onnx.save(model, str(path))


def quantize_openvino(graph: Any, clips: Sequence[NDArray[Any]]) -> Any:
    """The int8 form of an OpenVINO graph, with ranges from ``clips``, each ``(1, T, C, H, W)``."""
    nncf = need("nncf", "int8 for OpenVINO")
    with quiet():
        return nncf.quantize(graph, nncf.Dataset([np.asarray(clip) for clip in clips]), subset_size=len(clips))
