"""Define how a model is exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vsn.config.errors import check_range, require

ExportFormat = Literal["onnx", "openvino", "torch-export", "aoti", "executorch", "litert"]
"""Formats of a model file."""
ExportTarget = Literal[ExportFormat, "web"]
InputType = Literal["uint8", "float32"]

FOLDED_FORMATS: tuple[ExportFormat, ...] = ("executorch", "litert")
"""Formats whose files take the frames of one clip."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Format and input of the exported model."""

    to: ExportTarget = "onnx"
    """onnx: ONNX Runtime and most others; openvino: an .xml and its .bin; torch-export: a .pt2 that torch loads
    without this package; aoti: a .pt2 compiled for this processor; executorch: a .pte for phones, with XNNPACK;
    litert: a .tflite for phones and boards; web: a folder with a web page that labels videos and the camera in the
    browser."""
    input: InputType = "uint8"
    """uint8 clips, or float32 in [0, 1]; normalization is inside either way."""
    any_size: bool = False
    """Take frames of any height and width, instead of the size of the protocol's crops."""
    folded: bool = False
    """Take the frames of one clip, (T, C, H, W), instead of a batch of clips: for tools that know only images. Always so
    for executorch and litert."""
    int8: bool = False
    """Quantize weights and activations of convolutions to 8 bits, calibrated on clips of the run (onnx, openvino)."""
    fp16: bool = False
    """Store the weights in 16 bits: half the file size (openvino, which computes as before); onnx computes in 16 bits too,
    which GPUs do faster, and most CPUs slower."""
    split: bool = False
    """Write the layers before the first temporal operation to a second file, such as model.frames.onnx, which `vsn stream`
    runs once per frame (onnx)."""
    calibration_clips: int = 64
    """Videos to calibrate int8 on."""
    opset: int = 20
    """Version of the ONNX operators, 17 to 23; older runtimes refuse the file, TensorRT 8 everything above 17."""
    node_modules: str = ""
    """For web, a folder node_modules with the packages of the page; by default npm downloads them."""
    examples: int = 0
    """For web, videos of the test split that are copied into the folder, for visitors to try."""

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "calibration_clips")
        check_range(self, "[17, 23]", "opset")
        check_range(self, "[0, inf)", "examples")
        # NNCF quantizes ONNX and OpenVINO models; 16-bit storage is OpenVINO's compression.
        allowed = ("onnx", "openvino", "web")
        for name in ("int8", "fp16"):
            is_allowed = self.to in allowed or not getattr(self, name)
            require(is_allowed, f"{name} needs one of {', '.join(allowed)}; the format is {self.to!r}.")
        for name in ("node_modules", "examples"):
            require(self.to == "web" or not getattr(self, name), f"{name} is for web; the format is {self.to!r}.")
        if self.split:
            require(self.to == "onnx", f"split needs format onnx; the format is {self.to!r}.")
            others = self.int8 or self.any_size or self.fp16 or self.folded
            require(not others, "split works without int8, any_size, fp16 and folded; leave these out.")
        require(
            self.to != "web" or not self.folded, "folded is on, but the page passes batches of clips; leave it out."
        )
        if self.to in FOLDED_FORMATS:
            require(not self.any_size, f"any_size is on, but {self.to} files have one size; export one for each size.")
        require(not (self.fp16 and self.int8), "fp16 and int8 exclude each other; choose one of them.")

    @property
    def file_format(self) -> ExportFormat:
        """The format of the model's file."""
        return "onnx" if self.to == "web" else self.to

    @property
    def takes_one_clip(self) -> bool:
        """Whether the file takes the frames of one clip, ``(T, C, H, W)``, instead of a batch of clips."""
        return self.folded or self.to in FOLDED_FORMATS
