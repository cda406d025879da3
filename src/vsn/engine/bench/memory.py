"""Peak memory of a forward pass: on CUDA by the allocator's own count, on a CPU by a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vsn.config import BenchConfig, ModelConfig
from vsn.engine.bench.runtimes import RUNTIMES, Variant
from vsn.engine.bench.subjects import Subject

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def cuda_peak_bytes(call: Callable[[], object], device: torch.device, weights: int) -> int:
    """What a call of a warmed-up model needs at most: its weights (bytes), and all that it allocates."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before + weights


def cpu_peak_bytes(subject: Subject, config: BenchConfig, variant: Variant, num_videos: int) -> int | None:
    """What a batch needs at most in a process of its own, beyond what it held before, and its weights.

    None where the system tells no peak that can be reset (it is Linux that does).

    Args:
        subject: the model; its weights are random there, which changes no size.
        config: of the measurement: threads and seed.
        variant: how it is computed.
        num_videos: of the batch.

    Raises:
        RuntimeError: the process failed; the last line it wrote.
    """
    if not os.access(_RESET, os.W_OK):
        return None
    asked = {
        "model": asdict(subject.config),
        "num_clips": subject.num_clips,
        "size": subject.size,
        "variant": asdict(variant),
        "num_videos": num_videos,
        "threads": config.threads,
        "seed": config.seed,
    }
    done = subprocess.run(
        [sys.executable, "-m", "vsn.engine.bench.memory"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        # Every tensor goes back to the system when it is freed, so that what is held is what is needed.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it wrote no reason"])[-1]
        raise RuntimeError(f"The process that measures the memory of {subject.label} failed: {last}")
    return int(done.stdout.strip().splitlines()[-1])


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def _measure_here(asked: dict[str, Any]) -> int:
    """Peak of one batch, less what is held before it."""
    if asked["threads"]:
        torch.set_num_threads(asked["threads"])
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in asked["model"].items()
    }
    model = ModelConfig(**values)
    subject = Subject(label="", config=model, num_clips=asked["num_clips"], size=asked["size"])
    variant = Variant(**asked["variant"])
    network = subject.build(asked["seed"])
    weights = weight_bytes(network)
    clips = subject.clips(asked["num_videos"], asked["seed"])
    infer = RUNTIMES[variant.runtime](network, model, clips, variant, torch.device("cpu"))
    del network
    infer(clips)  # compiles, and fills caches that stay
    before = _status("VmRSS")
    _RESET.write_text("5", encoding="ascii")  # the peak so far is forgotten
    infer(clips)
    return _status("VmHWM") - before + weights


def _status(key: str) -> int:
    """Bytes that the system says this process holds (VmRSS), or held at most (VmHWM)."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    print(_measure_here(json.load(sys.stdin)))
