"""Measure the latency of labeling one second of video on a CPU: PyTorch, ONNX Runtime, OpenVINO, with decoding.

    python benchmarks/cpu_inference.py WORK OUT.json [--models vsn_resnet50 vsn_resnet18] [--seconds 60]

The video is H.264, 640x480 pixels, 30 frames. Eight frames are decoded, resized and cropped to 224x224 as in evaluation,
and go through a network of random weights. Variants alternate in every round. ONNX Runtime and OpenVINO need the extra
vsn-video[export].
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from common import describe_run
from vsn.bench.results import paired_ratio, spread
from vsn.bench.rounds import time_rounds
from vsn.bench.runtimes import RUNTIMES, Infer, Variant, describe_device, list_variants
from vsn.bench.subjects import Subject, read_subjects
from vsn.config import BenchConfig, ClipSpec, EvalConfig, ModelConfig, Recipe
from vsn.data.embedded.scenes import CLASSES
from vsn.data.embedded.write import SynthSpec, render_video
from vsn.data.video import write_video
from vsn.inference.inputs import views_of_video
from vsn.system.allocator import keep_freed_memory
from vsn.system.files import write_json

VIDEO_SECONDS = 1.0
HEIGHT, WIDTH, RATE = 480, 640, 30
CPU = torch.device("cpu")


def write_one_second(path: Path, *, seed: int = 0) -> Path:
    """Write a video of the embedded data set, enlarged to the size of a webcam, with sensor noise."""
    frames, _ = render_video(CLASSES[0], seed, spec=SynthSpec(size=128))
    chosen = frames[np.linspace(0, len(frames) - 1, RATE).round().astype(int)]
    large = torch.nn.functional.interpolate(
        torch.from_numpy(chosen).permute(0, 3, 1, 2).float(), size=(WIDTH, WIDTH), mode="bilinear"
    )
    crop = large[:, :, :HEIGHT, :].permute(0, 2, 3, 1).numpy()
    noisy = crop + np.random.default_rng(seed).normal(0, 3, crop.shape)
    write_video(path, list(np.clip(noisy, 0, 255).astype(np.uint8)), frames_per_second=RATE)
    return path


def prepare(
    subject: Subject, variants: Sequence[Variant], seed: int, console: Console
) -> tuple[dict[str, Infer], dict[str, str]]:
    """Return a function per variant, and the error of each variant that fails."""
    model, clips = subject.build(seed), subject.clips(1, seed)
    working: dict[str, Infer] = {}
    failed: dict[str, str] = {}
    for variant in variants:
        console.print(f"preparing {subject.label}, {variant}", highlight=False)
        try:
            infer = RUNTIMES[variant.runtime](model, subject.config, clips, variant, CPU)
            for _ in range(2):
                infer(clips)
            working[str(variant)] = infer
        except Exception as error:
            failed[str(variant)] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return working, failed


def measure(
    subject: Subject, video: Path, config: BenchConfig, console: Console, *, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Return a row per variant: latency of the network, of decoding, and of both in sequence."""
    variants = list_variants(config)
    working, failed = prepare(subject, variants, config.seed, console)
    recipe = Recipe(
        model=subject.config,
        clip=ClipSpec(crop_size=subject.size, short_side=max(subject.size, round(subject.size * 256 / 224))),
        eval=EvalConfig(protocol="center"),
    )

    def decode() -> torch.Tensor:
        clips = torch.from_numpy(views_of_video(video, recipe, recipe.eval))
        return clips if clips.ndim == 5 else clips[None]

    clips = subject.clips(1, config.seed)
    calls: dict[str, Callable[[], object]] = {"decoding": decode}
    for name, infer in working.items():
        calls[f"{name}|network"] = lambda infer=infer: infer(clips)
        calls[f"{name}|whole"] = lambda infer=infer: infer(decode())
    # The pause lets the threads of one runtime, which spin for a while after a call, stop before the next.
    times = time_rounds(calls, CPU, rounds=rounds, seconds=seconds, seed=config.seed, title=subject.label, pause=0.02)
    base = str(variants[0])
    rows = []
    for variant in map(str, variants):
        row: dict[str, Any] = {"model": subject.label, "variant": variant}
        if variant in failed:
            rows.append(row | {"error": failed[variant]})
            continue
        network, whole = times[f"{variant}|network"], times[f"{variant}|whole"]
        row |= {
            "rounds": len(whole),
            "network_ms": spread(network),
            "decoding_ms": spread(times["decoding"]),
            "end_to_end_ms": spread(whole),
            "real_time": spread(whole)["p90"] < 1000 * VIDEO_SECONDS,
        }
        if base in working:  # speedup over PyTorch eager in fp32
            row["speed_to_first"] = paired_ratio(times[f"{base}|network"], network)
        rows.append(row)
    return rows


def print_rows(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in (
        "model",
        "variant",
        "network ms",
        "speed",
        "decoding ms",
        "end to end ms",
        "real time",
    ):
        table.add_column(column, justify="left" if column in ("model", "variant") else "right")
    for row in rows:
        if "error" in row:
            table.add_row(row["model"], row["variant"], "failed")
            continue
        speed = row.get("speed_to_first")
        table.add_row(
            row["model"], row["variant"], f"{row['network_ms']['median']:.1f}",
            f"{speed['ratio']:.2f}" if speed else "", f"{row['decoding_ms']['median']:.1f}",
            f"{row['end_to_end_ms']['median']:.1f}", "yes" if row["real_time"] else "no",
        )  # fmt: skip
    console.print(table)
    console.print("real time: the 90th percentile is below one second. speed: relative to the first line.")
    for row in rows:
        if "error" in row:
            console.print(f"{row['model']}, {row['variant']}: {row['error']}", highlight=False, soft_wrap=True)


def main() -> None:
    keep_freed_memory()  # as the `vsn` command does
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=["vsn_resnet50", "vsn_resnet18"])
    parser.add_argument("--runtimes", nargs="+", default=["torch", "onnxruntime", "openvino"])
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--modes", nargs="+", default=["eager", "compile"])
    parser.add_argument("--formats", nargs="+", default=["channels-last"])
    parser.add_argument("--size", type=int, default=ClipSpec.crop_size)
    parser.add_argument("--num-frames", type=int, default=ModelConfig.num_frames)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=90.0, help="per model, without preparation")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = BenchConfig(
        runtimes=tuple(options.runtimes), dtypes=tuple(options.dtypes), modes=tuple(options.modes),
        formats=tuple(options.formats), size=options.size, num_frames=options.num_frames, device="cpu",
        threads=options.threads, seed=options.seed,
    )  # fmt: skip
    if config.threads:
        torch.set_num_threads(config.threads)
    console = Console()
    video = write_one_second(options.work / "second.mp4", seed=options.seed)
    facts: dict[str, Any] = {
        **describe_run(__file__, ["WORK", options.out.name, *sys.argv[3:]]),
        "device": describe_device(CPU),
        "video": {"size": [HEIGHT, WIDTH], "frames_per_second": RATE, "seconds": VIDEO_SECONDS,
                  "bytes": video.stat().st_size},
        "rows": [],
    }  # fmt: skip
    for subject in read_subjects(options.models, config):
        rows = measure(subject, video, config, console, rounds=options.rounds, seconds=options.seconds)
        facts["rows"] += rows
        write_json(options.out, facts)
    print_rows(facts["rows"], console)


if __name__ == "__main__":
    main()
