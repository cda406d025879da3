"""int8: weights and activations in 8 bits, the ranges of activations taken from real clips."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.engine.export_facts import KEY, ExportFacts
from vsn.engine.export_tools import need, quiet


def quantise_onnx(path: Path, clips: Sequence[NDArray[Any]], facts: ExportFacts | None) -> None:
    """Replace an ONNX file by its int8 form: a pair of quantise and dequantise at each convolution's inputs.

    Weights are quantised by output channel (int8), activations by tensor (uint8), from their least to their
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


def quantise_openvino(graph: Any, clips: Sequence[NDArray[Any]]) -> Any:
    """The int8 form of an OpenVINO graph, with ranges from ``clips``, each ``(1, T, C, H, W)``."""
    nncf = need("nncf", "int8 for OpenVINO")
    with quiet():
        return nncf.quantize(
            graph, nncf.Dataset([np.asarray(clip) for clip in clips]), subset_size=len(clips)
        )
