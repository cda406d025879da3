"""Define how a model is exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vsn.config.errors import check_range, require

ExportFormat = Literal["onnx", "openvino", "torch-export", "aoti"]
"""Formats of a model file."""
ExportTarget = Literal[ExportFormat, "web"]
InputType = Literal["uint8", "float32"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Format and input of the exported model."""

    to: ExportTarget = "onnx"
    """onnx: ONNX Runtime and most others; openvino: an .xml and its .bin; torch-export: a .pt2 that torch loads
    without this package; aoti: a .pt2 compiled for this processor; web: a folder with a web page that labels videos and
    the camera in the browser."""
    input: InputType = "uint8"
    """uint8 clips, or float32 in [0, 1]; normalization is inside either way."""
    any_size: bool = False
    """Take frames of any height and width, instead of the size of the protocol's crops."""
    int8: bool = False
    """Quantize weights and activations of convolutions to 8 bits, calibrated on clips of the run (onnx, openvino)."""
    fp16: bool = False
    """Store the weights in 16 bits: half the file size, the same speed (openvino)."""
    split: bool = False
    """Write the layers before the first temporal operation to a second file, such as model.frames.onnx, which `vsn stream`
    runs once per frame (onnx)."""
    calibration_clips: int = 64
    """Videos to calibrate int8 on."""
    opset: int = 20
    """Version of the ONNX operators; older runtimes refuse the file."""
    node_modules: str = ""
    """For web, a folder node_modules with the packages of the page; by default npm downloads them."""
    examples: int = 0
    """For web, videos of the test split that are copied into the folder, for visitors to try."""

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "calibration_clips")
        check_range(self, "[18, 23]", "opset")
        check_range(self, "[0, inf)", "examples")
        # NNCF quantizes ONNX and OpenVINO models; 16-bit storage is OpenVINO's compression.
        if self.int8:
            allowed = ("onnx", "openvino", "web")
            require(self.to in allowed, f"int8 needs one of {', '.join(allowed)}; the format is {self.to!r}.")
        if self.fp16:
            require(self.to == "openvino", f"fp16 needs format openvino; the format is {self.to!r}.")
        for name in ("node_modules", "examples"):
            require(self.to == "web" or not getattr(self, name), f"{name} is for web; the format is {self.to!r}.")
        if self.split:
            require(self.to == "onnx", f"split needs format onnx; the format is {self.to!r}.")
            require(not (self.int8 or self.any_size), "split works without int8 and any_size; leave these out.")
        require(not (self.fp16 and self.int8), "fp16 and int8 exclude each other; choose one of them.")

    @property
    def file_format(self) -> ExportFormat:
        """The format of the model's file."""
        return "onnx" if self.to == "web" else self.to
