"""Start `vsn serve` for the benchmarks of the service, and measure its memory."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch

from vsn.config import ClipSpec, ModelConfig, Recipe
from vsn.data.video import write_video
from vsn.models import build_model
from vsn.runs.checkpoint import save_weights
from vsn.runs.metadata import write_run
from vsn.runs.run import new_run


def make_video(
    path: Path, *, seconds: float = 3.0, rate: float = 25.0, size: tuple[int, int] = (240, 320), seed: int = 0
) -> Path:
    """Write moving texture of this height and width."""
    height, width = size
    texture = np.random.default_rng(seed).integers(0, 256, (height // 8 + 10, width // 8 + 20, 3), dtype=np.uint8)
    texture = texture.repeat(8, axis=0).repeat(8, axis=1)
    frames = (np.roll(texture, 4 * i, axis=1)[:height, :width] for i in range(int(seconds * rate)))
    write_video(path, frames, frames_per_second=rate)
    return path


def make_run(path: Path, *, model: str, short_side: int, num_classes: int = 10, seed: int = 0) -> Path:
    """Write a run folder with random weights, whose probabilities differ from video to video."""
    recipe = Recipe(model=ModelConfig(name=model), clip=ClipSpec(short_side=short_side, crop_size=short_side * 7 // 8))
    run = new_run(path, recipe, tuple(f"class {number}" for number in range(num_classes)))
    write_run(run)
    torch.manual_seed(seed)
    network = build_model(run.recipe.model)
    with torch.no_grad():
        network.head.weight.normal_(0, 0.3)
    save_weights(run, network)
    return path


class Served:
    """`vsn serve` as a process group of its own on loopback, with a folder for its uploads.

    Args:
        run, options: of the command.
        folder: for temporary files.
        port: 0: any free one.
    """

    def __init__(self, run: Path, folder: Path, options: Sequence[str] = (), *, port: int = 0) -> None:
        command = [sys.executable, "-m", "vsn", "serve", str(run), "--port", str(port), *options]
        self.folder = folder
        self._log = (folder / "log.txt").open("a+")
        start = self._log.tell()
        # A file, not a pipe: a full pipe would stop the service.
        self.process = subprocess.Popen(
            command, stderr=self._log, env={**os.environ, "TMPDIR": str(folder)}, start_new_session=True
        )
        try:
            self.url = self._wait_for_url(start)
            deadline = time.monotonic() + 120
            while httpx.get(f"{self.url}/readyz").status_code != 200:
                if time.monotonic() > deadline:
                    raise SystemExit(f"vsn serve is not ready after two minutes: {self.log()[start:]}")
                time.sleep(0.1)
        except BaseException:
            self.kill()
            raise

    def _wait_for_url(self, start: int) -> str:
        while True:
            is_running, log = self.process.poll() is None, self.log()[start:]
            if match := re.search(r" at (http://\S+) ", log):
                return match[1]
            if not is_running:
                raise SystemExit(f"vsn serve did not start: {log}")
            time.sleep(0.1)

    def log(self) -> str:
        """Return what it has written so far."""
        return (self.folder / "log.txt").read_text()

    def processes(self) -> list[psutil.Process]:
        """Return the service and its processes."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def decoders(self) -> list[psutil.Process]:
        """Return the processes that decode: those that the fork server started."""
        parent = psutil.Process(self.process.pid)
        return [process for child in parent.children() for process in child.children()]

    def memory_mb(self) -> float:
        """Return the memory of the service and its processes, with shared pages counted once (Linux; else resident)."""
        total = 0
        with contextlib.suppress(psutil.Error):  # it has ended
            for process in self.processes():
                # A decoding process may be replaced meanwhile.
                with contextlib.suppress(psutil.Error):
                    usage = process.memory_full_info()
                    total += getattr(usage, "pss", usage.rss)
        return total / 1e6

    def num_files(self) -> int:
        """Return the number of uploads on disk."""
        return sum(1 for _ in self.folder.rglob("upload-*"))

    def wait_for_no_files(self) -> int:
        """Wait up to 10 s for the uploads of the last disconnected clients to be deleted; return the number left."""
        for _ in range(100):
            if self.num_files() == 0:
                break
            time.sleep(0.1)
        return self.num_files()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal to the process group, as a terminal or systemd does; return the exit status."""
        os.killpg(self.process.pid, number)
        status = self.process.wait(120)
        self._log.close()
        return status

    def kill(self) -> None:
        """End what still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return count, p50, p95, p99 and maximum."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {"count": len(values), "p50": float(p50), "p95": float(p95), "p99": float(p99), "max": max(values)}


def growth(memory: Sequence[float]) -> dict[str, float]:
    """Compare the medians of memory in the second and the last quarter of the time; the first is warm-up."""
    size = max(1, len(memory) // 4)
    before, after = statistics.median(memory[size : 2 * size]), statistics.median(memory[-size:])
    return {"second_quarter_mb": before, "last_quarter_mb": after, "growth": after / before - 1}


def slope(seconds: Sequence[float], memory: Sequence[float]) -> float:
    """Return the slope of a straight line through memory after the first quarter of the samples, MB a minute."""
    start = len(memory) // 4
    fitted: Any = np.polyfit(np.asarray(seconds[start:]) / 60, memory[start:], 1)
    return float(fitted[0])
