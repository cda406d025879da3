"""What a model costs: parameters, multiply-adds, and latency side by side with others."""

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


def time_round(calls: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Milliseconds of one call of each, in the order they are in, one after another.

    Taking turns makes a drifting or busy machine slow all of them alike, so that their ratios hold
    where the milliseconds do not. On CUDA the device's own events are the clock, and nothing else runs
    between them; elsewhere it is the processor's, read when the device has finished.
    """
    return {name: _time_call(call, device) for name, call in calls.items()}


@torch.inference_mode()
def latency_ms(models: Mapping[str, nn.Module], clip: torch.Tensor, *, rounds: int = 20) -> dict[str, float]:
    """Median milliseconds of one forward pass of each model, taken in turns."""
    calls = {name: partial(model, clip) for name, model in models.items()}
    found = [time_round(calls, clip.device) for _ in range(rounds + 2)]
    # The first passes set up kernels and caches.
    return {name: statistics.median(one[name] for one in found[2:]) for name in models}


def _time_call(call: Callable[[], object], device: torch.device) -> float:
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
    """Wait until the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
