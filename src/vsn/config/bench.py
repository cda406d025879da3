"""Define what `vsn bench` measures and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vsn.config.errors import SEEDS, check_range, require
from vsn.config.model import ModelConfig

# The axes of `vsn bench`: each combination of values is one row, where the runtime has it.
BenchMode = Literal["eager", "compile"]
BenchFormat = Literal["contiguous", "channels-last"]
BenchDtype = Literal["fp32", "bf16", "fp16", "int8"]
BenchRuntime = Literal["torch", "onnxruntime", "openvino", "executorch", "litert"]

PAPER_INPUTS = dict.fromkeys(("i3d", "i3d-fine", "nl-i3d", "nl-i3d-fine", "gcn"), (32, 2)) | {
    "eco": (16, 1),
    "eco_lite": (16, 1),
    "i3d_inception": (64, 1),
    "nl-c2d": (32, 1),
    "nl-slowfast": (64, 1),
    "r2plus1d_34": (32, 1),
    "s3dg": (64, 1),
    "trajectory": (32, 1),
}
"""(frames per clip, clips per video) by the kind of model, where the paper's tables differ from (8, 1)."""


def paper_input(model: str) -> tuple[int, int]:
    """Return frames per clip and clips per video of a model in the paper's tables; other models as a TSN."""
    return PAPER_INPUTS.get(model.partition("_resnet")[0], (ModelConfig.num_frames, 1))


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """How models are compared. The defaults are those of the paper's Table 6."""

    modes: tuple[BenchMode, ...] = ("eager",)
    """eager, or compiled by torch.compile."""
    formats: tuple[BenchFormat, ...] = ("contiguous",)
    """Memory format of weights and frames."""
    dtypes: tuple[BenchDtype, ...] = ("fp32",)
    """Of weights and activations: PyTorch fp32, bf16 and fp16, ONNX Runtime fp32 and int8, OpenVINO fp32, bf16, int8."""
    runtimes: tuple[BenchRuntime, ...] = ("torch",)
    """All but torch compute the exported model, on a CPU, and need the packages of its format (`vsn export`)."""
    batch_size: int = 16
    """Videos per batch for throughput; 0: measure only latency, which is of one video."""
    num_frames: int = 0
    """T; 0: a run's own, that of the network's row in the paper's tables (16 ECO, 32 I3D, 64 S3D-G), else 8."""
    size: int = 0
    """Height and width in pixels; 0: a run's crop size, else 224."""
    num_classes: int = 174
    """Outputs of models given by name; Something-Something has 174 classes."""
    batches: int = 0
    """Batches per model, of one video and of batch_size; 0: 500 on a GPU, 50 on a CPU."""
    seconds: float = -1.0
    """Time limit for latency, and the same for throughput; at least three batches run. 0: no limit; -1: none on a
    GPU, 120 on a CPU."""
    warmup: int = 3
    """Batches per model that are not counted: they set up kernels and caches."""
    baseline: str = ""
    """The model whose relative latency and throughput are 1; default the first TSN, else the first model."""
    memory: bool = False
    """Measure peak memory on a CPU too, each model in a separate process. On a GPU it is always measured."""
    max_busy: float = 0.1
    """Refuse a result if other processes left no core for more than this share of the threads; 1: accept any."""
    device: str = "auto"
    """auto: CUDA if available, else the CPU."""
    threads: int = 0
    """Threads on a CPU; 0: PyTorch's default."""
    seed: int = 0
    """Seed of the weights, the clips and the order in which models take turns."""

    def __post_init__(self) -> None:
        # The command line accepts repeated values; a repeated row would be measured twice.
        axes = {"modes": BenchMode, "formats": BenchFormat, "dtypes": BenchDtype, "runtimes": BenchRuntime}
        for key, choices in axes.items():
            chosen, allowed = getattr(self, key), get_args(choices)
            require(
                0 < len(chosen) == len(set(chosen)) and set(chosen) <= set(allowed),
                f"bench {key} are {list(chosen)}; choose at least one, each once, from {list(allowed)}.",
            )
        check_range(self, "[0, inf)", "batch_size", "num_frames", "size", "batches", "threads", table="bench ")
        check_range(self, SEEDS, "seed", table="bench ")
        check_range(self, "[0, 1]", "max_busy", table="bench ")
        # Without warm-up the first batch, which compiles kernels, would be measured.
        check_range(self, "[1, inf)", "num_classes", "warmup", table="bench ")
        require(
            0 <= self.seconds < float("inf") or self.seconds == -1,
            f"bench seconds is {self.seconds:g}; it must be at least 0 (no limit), or -1 (as the device needs).",
        )
