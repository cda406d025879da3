"""Measure what a model costs: parameters, multiply-adds, and latency next to other models."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vsn.config import ModelConfig
from vsn.models import build_model


def count_parameters(model: nn.Module) -> int:
    """Count the learnable values."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(config: ModelConfig, *, size: int | tuple[int, int]) -> int:
    """Count the multiply-adds of one clip of T frames of size x size (or height x width) pixels: the paper's "FLOPs".

    Convolutions, linear layers and matrix products count. The model runs on the meta device, without computing values.
    """
    height, width = (size, size) if isinstance(size, int) else size
    with torch.device("meta"):
        model = build_model(config).eval()
        clip = torch.zeros(1, config.num_frames, config.clip_channels, height, width)
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model(clip)
    # The counter counts a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def latency_ms(models: Mapping[str, nn.Module], clip: torch.Tensor, *, rounds: int = 20) -> dict[str, float]:
    """Measure the median milliseconds of a forward pass of each model, in turn.

    Taking turns, a drifting or busy machine slows all of them alike, so that their ratios are reliable where the
    milliseconds are not.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 2):
        for name, model in models.items():
            times[name].append(time_call_ms(partial(model, clip), clip.device))
    # The first passes set up kernels and caches.
    return {name: statistics.median(of_model[2:]) for name, of_model in times.items()}


def time_call_ms(call: Callable[[], object], device: torch.device) -> float:
    """Time a call: on CUDA by events on its stream, elsewhere by the host's clock after synchronizing."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record(torch.cuda.current_stream(device))
        call()
        end.record(torch.cuda.current_stream(device))
        torch.cuda.synchronize(device)
        return start.elapsed_time(end)
    synchronize(device)
    begin = time.perf_counter()
    call()
    synchronize(device)
    return 1000 * (time.perf_counter() - begin)


def synchronize(device: torch.device) -> None:
    """Wait until all work queued on the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
