"""Measure the peak memory of a forward pass: on CUDA by the allocator's statistics, on a CPU in a new process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vsn.bench.runtimes import RUNTIMES, Variant
from vsn.bench.subjects import Subject
from vsn.config import BenchConfig
from vsn.models import build_model
from vsn.system.limits import available_bytes

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def cuda_peak_bytes(call: Callable[[], object], device: torch.device, weights: int) -> int:
    """Measure the peak memory of a call of a warmed-up model: its weights (bytes), and all that it allocates."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    # Other models and their clips are on the device too, so only what is added counts.
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before + weights


def cpu_peak_bytes(subject: Subject, config: BenchConfig, variant: Variant, num_videos: int) -> int | None:
    """Measure the peak memory of a batch in a new process: what it adds to the process, and the weights.

    Returns None if the system cannot reset the recorded peak of a process, which Linux can.

    Raises:
        RuntimeError: the process failed; with the last line it wrote.
    """
    if not os.access(_RESET, os.W_OK):
        return None
    # Here memory that earlier models freed would be reused, and the peak not show. Pickle, not JSON: both ends are ours.
    done = subprocess.run(
        [sys.executable, "-m", "vsn.bench.memory"],
        # Without the run: the weights are random in that process, which changes no size.
        input=pickle.dumps((replace(subject, run=None, evaluations=()), config, variant, num_videos)),
        capture_output=True,
        # glibc then returns every freed tensor to the system, so that the process holds only what it uses.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no error message"])[-1]
        raise RuntimeError(f"The process that measures the memory of {subject.label} failed: {last}")
    return int(done.stdout.split()[-1])


def _measure_in_this_process(subject: Subject, config: BenchConfig, variant: Variant, num_videos: int) -> int:
    if config.threads:
        torch.set_num_threads(config.threads)
    # Weights are counted, not measured: the copy in the runtime may share or repack them.
    network = subject.build(config.seed)
    weights = weight_bytes(network)
    clips = subject.clips(num_videos, config.seed)
    infer = RUNTIMES[variant.runtime](network, subject.config, clips, variant, torch.device("cpu"))
    del network
    infer(clips)  # compiles, and fills caches that stay
    before = _status_bytes("VmRSS")
    _RESET.write_text("5", encoding="ascii")  # 5 resets the recorded peak, see proc(5)
    infer(clips)
    return _status_bytes("VmHWM") - before + weights


def _status_bytes(key: str) -> int:
    """Read memory that this process holds now (VmRSS), or has held at most (VmHWM)."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def require_memory(subject: Subject, variant: Variant, num_videos: int) -> None:
    """Refuse a batch that does not fit into memory: the system would kill the process, and all results be lost.

    Only for PyTorch; the need of other runtimes is not known in advance.

    Raises:
        MemoryError: with the memory it needs, and the memory there is.
    """
    if variant.runtime != "torch":
        return
    # Kernels need about a fifth more for their workspaces.
    needed = 1.2 * activation_bytes(subject, num_videos) / (1 if variant.dtype == "fp32" else 2)
    held = psutil.Process().memory_info().rss  # includes freed memory, which is reused
    available = available_bytes() + held
    if needed > available:
        raise MemoryError(
            f"{num_videos} videos per batch need about {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are available. "
            "Use a smaller --batch-size; 0 measures only latency."
        )


def activation_bytes(subject: Subject, num_videos: int) -> int:
    """Compute the peak memory of all tensors of a batch in fp32 and eager mode, on the meta device."""
    # Tensors on the meta device have sizes and no data, so this takes milliseconds.
    with torch.device("meta"):
        model = build_model(subject.config).eval()
    shape = subject.clips(1, 0).shape
    clips = torch.empty(num_videos * shape[0], *shape[1:], dtype=torch.uint8, device="meta")
    with torch.inference_mode(), _LiveBytes() as live:
        model(clips)
    return live.peak + clips.nbytes


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations allocate, until their last tensor is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._num_tensors: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor)
        return out

    def _add(self, tensor: torch.Tensor) -> None:
        # Views share a storage, which counts once.
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._num_tensors[key]:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._num_tensors[key] += 1
        weakref.finalize(tensor, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._num_tensors[key] -= 1
        if not self._num_tensors[key]:
            self.now -= size


def weight_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


if __name__ == "__main__":
    print(_measure_in_this_process(*pickle.load(sys.stdin.buffer)))
