"""Define how a model is exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vsn.config.errors import check_range, require

ExportFormat = Literal["onnx", "openvino", "torch-export", "aoti"]
InputType = Literal["uint8", "float32"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Format and input of the exported model."""

    to: ExportFormat = "onnx"
    """onnx: ONNX Runtime and most others; openvino: an .xml and its .bin; torch-export: a .pt2 that torch loads
    without this package; aoti: a .pt2 compiled for this processor."""
    input: InputType = "uint8"
    """uint8 clips, or float32 in [0, 1]; normalization is inside either way."""
    any_size: bool = False
    """Take frames of any height and width, instead of the size of the protocol's crops."""
    int8: bool = False
    """Quantize weights and activations of convolutions to 8 bits, calibrated on clips of the run (onnx, openvino)."""
    fp16: bool = False
    """Store the weights in 16 bits: half the file size, the same speed (openvino)."""
    calibration_clips: int = 64
    """Videos to calibrate int8 on."""
    opset: int = 20
    """Version of the ONNX operators; older runtimes refuse the file."""

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "calibration_clips")
        check_range(self, "[18, 23]", "opset")
        # NNCF quantizes ONNX and OpenVINO models; 16-bit storage is OpenVINO's compression.
        if self.int8:
            require(self.to in ("onnx", "openvino"), f"int8 needs format onnx or openvino; the format is {self.to!r}.")
        if self.fp16:
            require(self.to == "openvino", f"fp16 needs format openvino; the format is {self.to!r}.")
        require(not (self.fp16 and self.int8), "fp16 and int8 exclude each other; choose one of them.")
