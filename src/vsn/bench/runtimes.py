"""Prepare models in PyTorch (eager or compiled) and in the runtimes of exported files.

A runtime is a function `prepare(model, config, clips, variant, device)` that returns a function of clips, uint8
`(B, T, C, H, W)`. A line in `RUNTIMES` adds another one.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vsn.bench.results import BenchError
from vsn.config import BenchConfig, ClipSpec, EvalConfig, ExportConfig, ModelConfig, Recipe
from vsn.config.bench import BenchDtype, BenchFormat, BenchMode, BenchRuntime
from vsn.config.export import ExportFormat
from vsn.models import VideoClassifier
from vsn.training.memory import to_channels_last

DTYPES: dict[BenchDtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_RUNTIME_DTYPES: dict[BenchRuntime, tuple[BenchDtype, ...]] = {
    "torch": tuple(DTYPES),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "executorch": ("fp32",),
    "litert": ("fp32",),
}

Infer = Callable[[Tensor], object]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compute a model."""

    runtime: BenchRuntime = "torch"
    dtype: BenchDtype = "fp32"
    mode: BenchMode | None = None
    """Only of PyTorch, like the format."""
    format: BenchFormat | None = None

    def __str__(self) -> str:
        return " ".join(part for part in (self.runtime, self.mode, self.dtype, self.format) if part)


Prepare = Callable[[nn.Module, ModelConfig, Tensor, Variant, torch.device], Infer]
"""Takes a model in evaluation mode, which it does not change, and clips of the shape to measure."""


def list_variants(config: BenchConfig) -> list[Variant]:
    """List the combinations of the settings that a runtime supports.

    Raises:
        BenchError: a runtime supports none of the data types.
    """
    variants: list[Variant] = []
    for runtime in config.runtimes:
        supported = _RUNTIME_DTYPES[runtime]
        dtypes = [dtype for dtype in config.dtypes if dtype in supported]
        if not dtypes:
            raise BenchError(
                f"--dtypes is {' '.join(config.dtypes)}; {runtime} computes in {', '.join(supported)}: add one of these."
            )
        if runtime == "torch":
            variants += [
                Variant(mode=mode, dtype=dtype, format=form)
                for dtype, mode, form in itertools.product(dtypes, config.modes, config.formats)
            ]
        else:
            variants += [Variant(runtime=runtime, dtype=dtype) for dtype in dtypes]
    return variants


def prepare_torch(
    model: nn.Module, config: ModelConfig, clips: Tensor, variant: Variant, device: torch.device
) -> Infer:
    """Move a copy of the model to the device, in the variant's data type and memory format; compile it if asked to."""
    # A copy, because variants of a model differ in data type and memory format.
    network = copy.deepcopy(model).eval().to(device, DTYPES[variant.dtype])
    if variant.format == "channels-last":
        to_channels_last(network, volumes=True)
    # fullgraph: a graph break would silently leave a part in eager mode. Shapes are fixed.
    compiled = torch.compile(network, fullgraph=True, dynamic=False) if variant.mode == "compile" else network

    def infer(clips: Tensor) -> object:
        with torch.inference_mode():
            return compiled(clips)

    return infer


def prepare_exported(
    model: nn.Module, config: ModelConfig, clips: Tensor, variant: Variant, device: torch.device
) -> Infer:
    """Export the model for its runtime, compare it with PyTorch, and open it.

    OpenVINO computes bf16 from an fp32 file. Ranges of int8 are those of random clips, which is enough to measure
    speed. All use as many threads as PyTorch but ExecuTorch, which takes one per core.

    Raises:
        BenchError: the device is not a CPU.
        ExportError: a package is missing, or the exported model differs from the model.
    """
    from vsn.export.export import export_model
    from vsn.inference.exported import ExportedModel

    if device.type != "cpu":
        raise BenchError(f"{variant.runtime} runs on the CPU, got device {device.type!r}; pass --device cpu.")
    # The least recipe that describes the input: square center crops of this size.
    height = clips.shape[-2]
    recipe = Recipe(
        model=config, clip=ClipSpec(short_side=height, crop_size=height), eval=EvalConfig(protocol="center")
    )
    formats: dict[BenchRuntime, ExportFormat] = {
        "onnxruntime": "onnx",
        "openvino": "openvino",
        "executorch": "executorch",
        "litert": "litert",
    }
    settings = ExportConfig(to=formats[variant.runtime], int8=variant.dtype == "int8")
    # Once opened, the runtimes do not need the file.
    with tempfile.TemporaryDirectory(prefix="vsn-bench-") as folder:
        report = export_model(cast(VideoClassifier, model), recipe, Path(folder) / "model", config=settings)
        opened = ExportedModel.from_file(
            report.path, num_threads=torch.get_num_threads(), precision="bf16" if variant.dtype == "bf16" else "fp32"
        )
    return lambda clips: opened(clips.numpy())


RUNTIMES: dict[BenchRuntime, Prepare] = {
    "torch": prepare_torch,
    "onnxruntime": prepare_exported,
    "openvino": prepare_exported,
    "executorch": prepare_exported,
    "litert": prepare_exported,
}


def describe_device(device: torch.device) -> dict[str, str | int | bool | None]:
    """Return the device and the settings of PyTorch that affect speed, for JSON."""
    settings: dict[str, str | int | bool | None] = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type != "cuda":
        return settings | {"cpu_capability": torch.backends.cpu.get_cpu_capability()}
    properties = torch.cuda.get_device_properties(device)
    return settings | {
        "gpu": properties.name,
        "gpu_memory": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_matrix_products": torch.backends.cuda.matmul.allow_tf32,
    }
