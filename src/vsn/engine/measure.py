"""What a model costs: parameters, multiply-adds, and latency side by side with others."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vsn.config import ModelConfig
from vsn.models import build_model


def count_parameters(model: nn.Module) -> int:
    """Number of learnable values."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(config: ModelConfig, *, size: int | tuple[int, int]) -> int:
    """Multiply-adds of one clip of T frames of size x size (or height x width) pixels: the paper's "FLOPs".

    Convolutions and linear layers are counted, on the meta device: nothing is computed.
    """
    height, width = (size, size) if isinstance(size, int) else size
    with torch.device("meta"):
        model = build_model(config).eval()
        clip = torch.zeros(1, config.num_frames, config.clip_channels, height, width)
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model(clip)
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def latency_ms(models: Mapping[str, nn.Module], clip: torch.Tensor, *, rounds: int = 20) -> dict[str, float]:
    """Median milliseconds of one forward pass of each model, taken in turns.

    Taking turns makes a drifting or busy machine slow all of them alike, so that their ratios hold
    where the milliseconds do not.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    for step in range(rounds + 2):
        for name, model in models.items():
            _synchronise(clip.device)
            start = time.perf_counter()
            model(clip)
            _synchronise(clip.device)
            if step >= 2:  # the first passes set up kernels and caches
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
