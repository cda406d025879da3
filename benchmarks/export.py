"""Measure the cost of shuffle and shift in exported models: latency relative to TSN, in ONNX Runtime and OpenVINO.

    python benchmarks/export.py results/NAME.json [--backbone resnet50] [--rounds 15] [--threads 2]

The models are exported as by `vsn export` and run on one clip, alternating, so that a busy machine slows all of them. A
ratio is the median over rounds of a model's time to TSN's in the same round. bf16 is OpenVINO's hint on the fp32 file.
int8 ranges are calibrated on noise: only the speed is measured.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import describe_run
from vsn.bench.results import paired_ratio, spread
from vsn.bench.rounds import time_rounds
from vsn.config import ExportConfig
from vsn.export.check import generated_clips
from vsn.export.form import ExportForm
from vsn.export.write import quantize_onnx, trace, write_onnx
from vsn.inference.exported import Run, open_onnx, open_openvino
from vsn.inference.exported_metadata import ExportError, import_package
from vsn.models import VideoClassifier, create_model
from vsn.system.allocator import keep_freed_memory
from vsn.system.files import write_json

MODELS: dict[str, dict[str, Any]] = {
    "tsn": {"name": "tsn"},
    "shuffle alone": {"name": "vsn", "shift": False},
    "tsm": {"name": "tsm"},
    "vsn": {"name": "vsn"},
}
NUM_RANGES = 4
"""Calibration clips."""
RUNTIMES = ("onnxruntime fp32", "onnxruntime int8", "openvino fp32", "openvino bf16")


def build(model: str, backbone: str, num_frames: int) -> VideoClassifier:
    torch.manual_seed(0)
    settings = MODELS[model] | {"name": f"{MODELS[model]['name']}_{backbone}"}
    return create_model(**settings, num_classes=174, num_frames=num_frames).eval()


def export_all(folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    files = {}
    clip = torch.zeros(2, options.num_frames, 3, options.size, options.size, dtype=torch.uint8)
    for name in MODELS:
        exported = ExportForm(build(name, options.backbone, options.num_frames))
        shape = (1, options.num_frames, 3, options.size, options.size)
        files[name] = folder / f"{len(files)}.onnx"
        write_onnx(trace(exported, clip, any_size=False), files[name], None, opset=ExportConfig.opset)
        small = files[name].with_suffix(".int8.onnx")
        shutil.copyfile(files[name], small)
        quantize_onnx(small, [generated_clips(shape, seed=seed) for seed in range(NUM_RANGES)], None)
        print(f"exported {name}", file=sys.stderr)
    return files


def open_all(runtime: str, files: dict[str, Path], threads: int) -> dict[str, Callable[[Any], object]]:
    opened: dict[str, Run] = {}
    for name, path in files.items():
        if runtime.startswith("onnx"):
            opened[name] = open_onnx(path.with_suffix(".int8.onnx") if runtime.endswith("int8") else path, threads)
        else:
            opened[name] = open_openvino(path, threads, "bf16" if runtime.endswith("bf16") else "fp32")
    return {name: lambda clip, run=run: run(clip, "logits") for name, run in opened.items()}


def measure(
    calls: dict[str, Callable[[Any], object]], clip: np.ndarray, rounds: int, *, base: str = "tsn"
) -> dict[str, Any]:
    """Measure the latency of each, alternating, and its ratio to the base in the same round."""
    bound = {name: partial(call, clip) for name, call in calls.items()}
    for call in [*bound.values(), *bound.values()]:  # warm-up: the first passes set up kernels and caches
        call()
    # The pause lets the threads of one runtime, which spin for a while after a call, stop before the next.
    times = time_rounds(bound, torch.device("cpu"), rounds=rounds, pause=0.02)
    return {
        name: {"latency_ms": spread(values), f"to_{base}": paired_ratio(values, times[base])}
        for name, values in times.items()
    }


def main() -> None:
    keep_freed_memory()  # as the `vsn` command does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for package in ("onnxruntime", "openvino"):
        import_package(package, "This benchmark")
    facts: dict[str, Any] = {
        **describe_run(__file__, [options.output.name, *sys.argv[2:]]),
        "runtimes": {},
        "left_out": {},
    }
    for name in ("onnx", "onnxruntime", "openvino"):
        facts["versions"][name] = import_package(name, "This benchmark").__version__
    clip = generated_clips((1, options.num_frames, 3, options.size, options.size))
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(Path(folder), options)
        for runtime in RUNTIMES:
            try:
                calls = open_all(runtime, files, options.threads)
            except ExportError as error:  # such as a CPU without bf16
                facts["left_out"][runtime] = str(error)
                write_json(options.output, facts)
                continue
            facts["runtimes"][runtime] = measure(calls, clip, options.rounds)
            for name, figures in facts["runtimes"][runtime].items():
                latency, ratio = figures["latency_ms"]["median"], figures["to_tsn"]["ratio"]
                print(f"{runtime:18} {name:15} {latency:8.1f} ms  {ratio:.2f} of TSN")
            write_json(options.output, facts)


if __name__ == "__main__":
    main()
