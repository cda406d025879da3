"""Run one part of `gpu_suite.py`: measure within a time limit and write one JSON.

python benchmarks/gpu_parts.py PART --out FILE.json --seconds 60 [--tiny]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from ops import measure_operations, networks
from vsn.bench.results import BenchError, spread
from vsn.bench.run import run_bench
from vsn.bench.runtimes import describe_device
from vsn.bench.subjects import read_subjects
from vsn.bench.tables import PAPER_TABLE_6
from vsn.config import BenchConfig, Recipe
from vsn.config.recipes import find_recipe, load_recipe
from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.data.flow.compute import flow_method
from vsn.models.measure import count_multiply_adds, time_call_ms
from vsn.runs.metadata import versions
from vsn.runs.run import open_run, read_metrics
from vsn.system.files import write_json
from vsn.training.batch_size import TrialStep
from vsn.training.memory import is_out_of_memory
from vsn.training.train import TrainingStopped, train

ROOT = Path(__file__).resolve().parents[1]
SETUP_SECONDS = 25.0
"""Seconds of a part that pass before the first measurement."""
PEAK_TFLOPS: dict[str, dict[str, float]] = {
    "H200": {"bf16": 989, "tf32": 494},
    "H100 PCIe": {"bf16": 756, "tf32": 378},
    "H100": {"bf16": 989, "tf32": 494},
    "A100": {"bf16": 312, "tf32": 156},
    "L40S": {"bf16": 362, "tf32": 183},
    "RTX 4090": {"bf16": 165, "tf32": 82.6},
    "A10": {"bf16": 125, "tf32": 62.5},
    "V100": {"fp16": 125},
    "T4": {"fp16": 65},
    "P100": {"fp32": 9.3, "fp16": 18.7},
}
"""Part of the card's name -> dense TFLOPS by its vendor; the first match counts."""


@dataclass(frozen=True)
class Task:
    """Device, time and size of a part."""

    device: torch.device
    seconds: float
    tiny: bool
    work: Path
    save: Callable[[dict[str, Any]], None]
    """Writes the results so far, because the process may be stopped at any time."""

    @property
    def backbone(self) -> str:
        return "resnet14_tiny" if self.tiny else "resnet50"

    @property
    def size(self) -> int:
        return 32 if self.tiny else 224


def peak_flops(gpu: str | None, dtype: str) -> float | None:
    """Return the card's peak in FLOP per second; fp32 is computed in TF32 if the card has it."""
    by_dtype = next((peaks for name, peaks in PEAK_TFLOPS.items() if gpu and name in gpu), {})
    value = by_dtype.get("tf32", by_dtype.get("fp32")) if dtype == "fp32" else by_dtype.get(dtype)
    return None if value is None else 1e12 * value


# --- parts -----------------------------------------------------------------------------------------


def tests(task: Task) -> dict[str, Any]:
    """Run `pytest -m gpu`; return the number of tests passed, skipped and failed, with reasons."""
    report = task.work / "tests.xml"
    chosen = ["-k", "operations and contiguous"] if task.tiny else []
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "tests/test_gpu.py",
        f"--junitxml={report}",
        *chosen,
    ]
    process = subprocess.Popen(
        [*command, "-p", "no:cacheprovider"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:  # pytest then reports what it has
        output = _interrupt_until_it_ends(process)
    if not report.is_file():
        raise RuntimeError(f"pytest wrote no report: {output[-3000:]}")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    outcomes: dict[str, list[str]] = {"passed": [], "skipped": [], "failed": []}
    reasons: dict[str, str] = {}
    for case in cases:
        bad = [node for kind in ("failure", "error") for node in case.findall(kind)]
        skipped = case.find("skipped")
        name = str(case.get("name"))
        outcomes["failed" if bad else "skipped" if skipped is not None else "passed"].append(name)
        if bad:
            reasons[name] = (bad[0].text or "")[-2000:]
        elif skipped is not None:
            reasons[name] = str(skipped.get("message"))
    return {
        "counts": {key: len(names) for key, names in outcomes.items()},
        "failed": outcomes["failed"],
        "reasons": reasons,
    }


def _interrupt_until_it_ends(process: subprocess.Popen[str]) -> str:
    """Send SIGINT every second, because a test that trains takes one as its own; return the output."""
    while True:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=1)[0]


def operations(task: Task) -> dict[str, Any]:
    """Compare shuffle and shift with a copy of the same bytes."""
    rows = measure_operations(
        device=task.device,
        batches=(1,) if task.tiny else (1, 16),
        modes=("eager",) if task.tiny else ("eager", "compile"),
        seconds=task.seconds,
        backbone=task.backbone,
        size=task.size,
        rounds=3 if task.tiny else 20,
    )
    return {"rows": rows}


def table6(task: Task) -> dict[str, Any]:
    """Measure the models of the paper's Table 6 on this card, in fp32 and bf16."""
    names = [f"{kind}_{task.backbone}" for kind in ("tsn", "vsn")] if task.tiny else list(PAPER_TABLE_6)
    config = bench_config(task, task.seconds / 2)
    available = [name for name in names if is_model(name, config)]
    missing = [name for name in names if name not in available]
    return run_bench(available, config, progress=False).to_json() | {"missing": missing}


def bench_networks(task: Task) -> dict[str, Any]:
    """Measure TSN, TSM, VSN without shift and VSN in bf16: eager in both memory formats, then TSN and VSN compiled."""
    four = networks(task.backbone, size=task.size)
    config = replace(bench_config(task, task.seconds / 6), formats=("contiguous", "channels-last"), dtypes=("bf16",))
    facts = {"eager": run_bench(four, config, progress=False).to_json()}
    task.save(facts)
    if not task.tiny:
        compiled = replace(config, modes=("compile",), formats=("channels-last",))
        try:
            facts["compile"] = run_bench([four[0], four[-1]], compiled, progress=False).to_json()
        except KeyboardInterrupt:
            facts["compile"] = {"error": "no time was left"}
    return facts


def training_speed(task: Task) -> dict[str, Any]:
    """Measure videos per second of training steps on clips in memory, and the share of the card's peak FLOPS."""
    rows: list[dict[str, Any]] = []
    gpu = torch.cuda.get_device_name(task.device) if task.device.type == "cuda" else None
    ways = [("bf16", False)] if task.tiny else [("bf16", False), ("fp32", False), ("bf16", True)]
    cases = [(kind, *way) for way in ways for kind in ("tsn", "tsm", "vsn")]
    batch, end = (2 if task.tiny else 64), time.perf_counter() + task.seconds
    for number, (kind, precision, compiled) in enumerate(cases):
        part = (end - time.perf_counter()) / (len(cases) - number)
        row: dict[str, Any] = {
            "model": f"{kind}_{task.backbone}",
            "precision": precision,
            "compiled": compiled,
        }
        try:
            figures = _training_steps(task, row, batch, part, gpu) if part > 0 else {"error": "no time was left"}
        except KeyboardInterrupt:
            figures, end = {"error": "no time was left"}, 0.0
        except Exception as error:
            figures = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        rows.append(row | figures)
        task.save({"size": task.size, "rows": rows})
    return {"size": task.size, "rows": rows}


def _training_steps(task: Task, row: dict[str, Any], batch: int, seconds: float, gpu: str | None) -> dict[str, Any]:
    base = load_recipe(find_recipe("finetune"))
    model = replace(base.model, name=row["model"], num_classes=174, weights="none")
    recipe = replace(
        base,
        model=model,
        clip=replace(base.clip, crop_size=task.size),
        train=replace(base.train, precision=row["precision"], device=str(task.device), partial_bn=False, freeze=()),
    )
    if gpu:
        torch.backends.cudnn.benchmark = True  # as in training
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(task.device)
    step = TrialStep(recipe, 174, task.device)
    if row["compiled"]:
        step.model.compile(dynamic=False)
    while True:
        try:
            for _ in range(3):
                step(batch)
            break
        except (RuntimeError, torch.OutOfMemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            batch //= 2
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begin < seconds / 2 and len(times) < 50):
        times.append(time_call_ms(lambda: step(batch), task.device))
    rate = spread([1000 * batch / value for value in times])
    # A multiply-add is two operations, and the backward pass costs twice the forward pass.
    needed = 3 * 2 * count_multiply_adds(model, size=task.size)
    peak = peak_flops(gpu, row["precision"])
    return {
        "batch_size": batch,
        "steps": len(times),
        "videos_per_second": rate,
        "tflops": rate["median"] * needed / 1e12,
        "share_of_peak": rate["median"] * needed / peak if peak else None,
        "peak_bytes": torch.cuda.max_memory_allocated(task.device) if gpu else None,
    }


def flow(task: Task) -> dict[str, Any]:
    """Measure TV-L1 fields per second at 340x256 pixels on this device and on the CPU, and their mean difference."""
    height, width = (32, 48) if task.tiny else (256, 340)
    generator = np.random.default_rng(0)
    waves = generator.normal(0, 1, (33 if not task.tiny else 3, height // 8, width // 8 + 8))
    frames = torch.nn.functional.interpolate(torch.from_numpy(waves)[:, None], size=(height, width), mode="bicubic")
    video = (128 + 40 * frames[:, 0]).clamp(0, 255).byte().numpy()
    few = video[:3]
    rows, fields = [], {}
    for name, given in (("cpu", few), (task.device.type, video)):
        compute = flow_method("tvl1", name)
        fields[name] = compute(few)
        rates: list[float] = []
        begin = time.perf_counter()
        while len(rates) < 3 or (time.perf_counter() - begin < task.seconds / 4 and len(rates) < 20):
            start = time.perf_counter()
            compute(given)
            rates.append((len(given) - 1) / (time.perf_counter() - start))
        rows.append({"device": name, "pairs_at_once": len(given) - 1, "fields_per_second": spread(rates)})
    apart = float(np.linalg.norm(fields["cpu"] - fields[task.device.type], axis=-1).mean())
    return {"size": [height, width], "rows": rows, "mean_pixels_apart": apart}


def training(task: Task) -> dict[str, Any]:
    """Train the demo's VSN on the embedded data set at 224 pixels with ResNet-50, to check that it learns."""
    groups = ("horizontal", "vertical")
    spec = SynthSpec(groups=groups, num_train_per_class=1 if task.tiny else 60, num_val_per_class=1,
                     num_test_per_class=1 if task.tiny else 10)  # fmt: skip
    spec = replace(spec, num_val_per_class=spec.num_test_per_class)
    root = write_dataset(task.work / "videos", spec, progress=False)
    recipe = load_recipe(find_recipe("demo"))
    recipe = replace(
        recipe,
        model=replace(recipe.model, name=f"vsn_{'resnet14_tiny' if task.tiny else 'resnet50'}"),
        clip=replace(recipe.clip, short_side=task.size, crop_size=task.size),
        data=replace(recipe.data, root=str(root), num_workers=0 if task.tiny else min(8, os.cpu_count() or 1)),
        train=replace(
            recipe.train, device=str(task.device), precision="fp32" if task.tiny else "bf16",
            epochs=1 if task.tiny else 30, lr=5e-4, val_every=1, trackers=(),
        ),
    )  # fmt: skip
    return _train_for(recipe, task.work / "run", task.seconds)


def _train_for(recipe: Recipe, path: Path, seconds: float) -> dict[str, Any]:
    """Train for all epochs or until a SIGINT after the given seconds; return the metrics so far."""
    stopped = False
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, max(5.0, seconds))
    try:
        train(recipe, path, console=Console(stderr=True))
    except TrainingStopped as error:
        if not error.place:  # it diverged, or there is no memory
            raise
        stopped = True
    except KeyboardInterrupt:  # before the first step
        stopped = True
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
    lines = read_metrics(path) if (path / "metrics.jsonl").is_file() else []
    settings = replace(recipe, data=replace(recipe.data, root="")).to_dict()
    facts = {"recipe": settings, "stopped_by_time": stopped, "epochs": len(lines), "metrics": lines}
    # Twice the accuracy of chance can be had from single frames.
    best = max((line["val_top1"] for line in lines), default=0.0)
    if len(lines) >= 5 and best <= 2 / len(open_run(path).classes):
        facts["failed"] = [f"it does not learn: top-1 {best:.1%} after {len(lines)} epochs"]
    return facts


PARTS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "tests": tests,
    "operations": operations,
    "table6": table6,
    "networks": bench_networks,
    "training_speed": training_speed,
    "flow": flow,
    "training": training,
}


def bench_config(task: Task, seconds: float) -> BenchConfig:
    """Return the settings of Table 6, with these seconds for latency and for throughput each."""
    config = BenchConfig(dtypes=("fp32", "bf16"), size=task.size, seconds=max(1.0, seconds), device=str(task.device))
    return replace(config, batches=3, batch_size=2, dtypes=("fp32",), warmup=1) if task.tiny else config


def is_model(name: str, config: BenchConfig) -> bool:
    try:
        return bool(read_subjects([name], config))
    except BenchError:
        return False


def errors_of(facts: Any) -> list[str]:
    """Return the errors of rows at any depth, except those that lacked time."""
    if isinstance(facts, list):
        return [error for one in facts for error in errors_of(one)]
    if not isinstance(facts, dict):
        return []
    own = [facts["error"]] if isinstance(facts.get("error"), str) else []
    own += facts["errors"].values() if isinstance(facts.get("errors"), dict) else []
    below = [error for value in facts.values() for error in errors_of(value)]
    return [error for error in (*own, *below) if not error.startswith("no time")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("This needs a CUDA device. --tiny runs everything on a CPU.")
    device = torch.device("cpu" if options.tiny else "cuda")
    described = {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "device": describe_device(device),
    }

    def save(facts: dict[str, Any]) -> None:
        write_json(options.out, {"part": options.part, **described, **facts})

    with tempfile.TemporaryDirectory(prefix="vsn-gpu-") as work:
        # The rest is for setup: imports, autotuning of kernels, compilation.
        left = max(5.0, 0.7 * (options.seconds - SETUP_SECONDS))
        facts = PARTS[options.part](Task(device, left, options.tiny, Path(work), save))
    facts["failed"] = [*facts.get("failed", []), *errors_of(facts)]
    save(facts)
    if facts["failed"]:
        raise SystemExit(f"failed: {', '.join(facts['failed'])}")


if __name__ == "__main__":
    main()
