"""What computes a model: PyTorch, eager or compiled, ONNX Runtime, OpenVINO.

A runtime is a function `prepare(model, config, clips, variant, device)` that returns a function of clips, uint8
`(B, T, C, H, W)` on the CPU's side or the device's, as it says. One line in `RUNTIMES` adds another.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from vsn.bench.subjects import BenchError
from vsn.config import BenchConfig, ClipSpec, EvalConfig, ExportConfig, ModelConfig, Recipe
from vsn.config.bench import BenchDtype, BenchFormat, BenchMode, BenchRuntime
from vsn.config.export import ExportFormat
from vsn.models import VideoClassifier
from vsn.training.memory import to_channels_last

DTYPES: dict[BenchDtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

Infer = Callable[[Tensor], object]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compute a model."""

    runtime: BenchRuntime = "torch"
    dtype: BenchDtype = "fp32"
    mode: BenchMode | None = None
    """Of PyTorch alone, as is the format."""
    format: BenchFormat | None = None

    def __str__(self) -> str:
        return " ".join(part for part in (self.runtime, self.mode, self.dtype, self.format) if part)


class Prepare(Protocol):
    """How a runtime makes a model ready."""

    def __call__(
        self, model: nn.Module, config: ModelConfig, clips: Tensor, variant: Variant, device: torch.device
    ) -> Infer:
        """Take a model in evaluation mode, which stays as it is; return what maps such clips to scores."""


def list_variants(config: BenchConfig) -> list[Variant]:
    """Every combination that was asked for and means something.

    Raises:
        BenchError: a runtime has none of the data types that were asked for.
    """
    found: list[Variant] = []
    for runtime in config.runtimes:
        able = _ABLE[runtime]
        chosen = [dtype for dtype in config.dtypes if dtype in able]
        if not chosen:
            raise BenchError(
                f"{runtime} computes in {', '.join(able)}, and --dtypes is {' '.join(config.dtypes)}; add one of these."
            )
        if runtime == "torch":
            found += [
                Variant(runtime=runtime, mode=mode, dtype=dtype, format=form)
                for dtype, mode, form in itertools.product(chosen, config.modes, config.formats)
            ]
        else:
            found += [Variant(runtime=runtime, dtype=dtype) for dtype in chosen]
    return found


def prepare_torch(
    model: nn.Module, config: ModelConfig, clips: Tensor, variant: Variant, device: torch.device
) -> Infer:
    """PyTorch: weights and activations in the variant's data type and memory format, on the device."""
    network = copy.deepcopy(model).eval().to(device, DTYPES[variant.dtype])
    if variant.format == "channels-last":
        to_channels_last(network, volumes=True)
    # The whole network as one graph, for just this shape: a part left to Python would go unseen.
    compiled = torch.compile(network, fullgraph=True, dynamic=False) if variant.mode == "compile" else network

    def infer(clips: Tensor) -> object:
        with torch.inference_mode():
            return compiled(clips)

    return infer


def prepare_exported(
    model: nn.Module, config: ModelConfig, clips: Tensor, variant: Variant, device: torch.device
) -> Infer:
    """ONNX Runtime or OpenVINO: the model exported (`vsn.export.export`), compared with PyTorch, and opened.

    OpenVINO computes bf16 from a file in fp32; the ranges of int8 are those of random clips, which is enough
    for speed alone. Both take as many threads as PyTorch has.

    Raises:
        BenchError: the device is no CPU.
        ExportError: a package is missing, or the exported model differs from the model.
    """
    from vsn.export.export import export_model
    from vsn.export.exported import ExportedModel

    if device.type != "cpu":
        raise BenchError(f"{variant.runtime} is measured on the CPU; ask for it with --device cpu.")
    height = clips.shape[-2]
    recipe = Recipe(
        model=config, clip=ClipSpec(short_side=height, crop_size=height), eval=EvalConfig(protocol="center")
    )
    to: ExportFormat = "onnx" if variant.runtime == "onnxruntime" else "openvino"
    with tempfile.TemporaryDirectory(prefix="vsn-bench-") as folder:
        network = cast(VideoClassifier, copy.deepcopy(model))
        settings = ExportConfig(to=to, int8=variant.dtype == "int8")
        report = export_model(network, recipe, Path(folder) / "model", config=settings)
        precision: Literal["fp32", "bf16"] = "bf16" if variant.dtype == "bf16" else "fp32"
        opened = ExportedModel.from_file(report.path, num_threads=torch.get_num_threads(), precision=precision)

    def infer(clips: Tensor) -> object:
        return opened(clips.numpy())

    return infer


_ABLE: dict[BenchRuntime, tuple[BenchDtype, ...]] = {
    "torch": tuple(DTYPES),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
}

RUNTIMES: dict[BenchRuntime, Prepare] = {
    "torch": prepare_torch,
    "onnxruntime": prepare_exported,
    "openvino": prepare_exported,
}


def describe_device(device: torch.device) -> dict[str, Any]:
    """What of PyTorch's own settings speed depends on."""
    facts: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_memory": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_matrix_products": torch.backends.cuda.matmul.allow_tf32,
        }
    else:
        facts["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    return facts
