"""Peak memory of a forward pass: on CUDA by the allocator's own count, on a CPU by a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vsn.bench.runtimes import RUNTIMES, Variant
from vsn.bench.subjects import Subject
from vsn.config import BenchConfig, ModelConfig
from vsn.models import build_model

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
        [sys.executable, "-m", "vsn.bench.memory"],
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


def require_memory(subject: Subject, variant: Variant, num_videos: int) -> None:
    """Refuse a batch for which the machine has no room: the system would end the process, and all that was measured.

    Of PyTorch alone: what other runtimes need cannot be told before.

    Raises:
        MemoryError: how much it needs, and how much there is.
    """
    if variant.runtime != "torch":
        return
    # A fifth more for what kernels want beside it.
    needed = 1.2 * activation_bytes(subject, num_videos) / (1 if variant.dtype == "fp32" else 2)
    own = psutil.Process().memory_info().rss  # what was freed is kept, and used again
    there_is = psutil.virtual_memory().available + own
    if needed > there_is:
        raise MemoryError(
            f"{num_videos} videos at once need about {needed / 1e9:.1f} GB, and {there_is / 1e9:.1f} GB can be had; "
            "a smaller --batch-size needs less, 0 measures latency alone."
        )


def activation_bytes(subject: Subject, num_videos: int) -> int:
    """Most bytes of tensors that live at one time while a batch goes through in fp32, eager; nothing is computed."""
    with torch.device("meta"):
        model = build_model(subject.config).eval()
    shape = subject.clips(1, 0).shape
    clips = torch.empty(num_videos * shape[0], *shape[1:], dtype=torch.uint8, device="meta")
    with torch.inference_mode(), _LivingBytes() as living:
        model(clips)
    return living.most + clips.nbytes


class _LivingBytes(TorchDispatchMode):
    """Counts the storage that operations make, until the last tensor on it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._tensors: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor)
        return out

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._tensors[key]:
            self.now += size
            self.most = max(self.most, self.now)
        self._tensors[key] += 1
        weakref.finalize(tensor, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._tensors[key] -= 1
        if not self._tensors[key]:
            self.now -= size


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
