"""Measure the cost of video shuffle and temporal shift, as operations and within networks.

    python benchmarks/ops.py OUT.json [--parts operations networks] [--modes eager compile] [--minutes 10]

An operation moves every value once, to a new tensor, so one read and one write are the minimum. Each is measured in
alternation with `torch.Tensor.clone` of the same bytes, and its share of that bandwidth is reported: at the shapes within
ResNet-50, forward, and forward with backward (a second clone, of the gradient), in both memory formats. Networks (TSN, TSM,
VSN without shift, VSN) are measured as by `vsn bench`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

from common import describe_run
from vsn.bench.results import paired_ratio, spread
from vsn.bench.rounds import time_rounds
from vsn.bench.run import run_bench
from vsn.bench.runtimes import DTYPES, describe_device
from vsn.bench.subjects import Subject
from vsn.bench.tables import print_table
from vsn.config import BenchConfig, ModelConfig
from vsn.models import build_model
from vsn.models.layers import ShiftConv2d, ShuffleConv2d
from vsn.ops import temporal_shift, video_shuffle
from vsn.system.allocator import keep_freed_memory
from vsn.system.distributed import pick_device
from vsn.system.files import write_json

FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
NETWORKS = ("TSN", "TSM", "VSN, shuffle only", "VSN")


class Place(NamedTuple):
    """Position of an operation in a network: its name and the shape (C, H, W) of a frame there."""

    operation: str
    shape: tuple[int, int, int]


class Case(NamedTuple):
    """One measurement of an operation."""

    place: Place
    batch: int
    dtype: str
    format: str
    direction: str
    mode: str


# --- operations ------------------------------------------------------------------------------------


def places_in(config: ModelConfig, size: int) -> Counter[Place]:
    """Count the places of operations in a network, by a forward pass on the meta device."""
    places: Counter[Place] = Counter()
    with torch.device("meta"):
        model = build_model(config).eval()

    def note(operation: str, module: nn.Module, args: tuple[Tensor]) -> None:
        places[Place(operation, tuple(args[0].shape[1:]))] += 1

    for module in model.modules():
        if isinstance(module, ShuffleConv2d | ShiftConv2d):
            operation = "video_shuffle" if isinstance(module, ShuffleConv2d) else "temporal_shift"
            module.register_forward_pre_hook(partial(note, operation))
    with torch.inference_mode():
        model(torch.zeros(1, config.num_frames, config.clip_channels, size, size, device="meta"))
    return places


def list_cases(
    places: Sequence[Place], batches: Sequence[int], dtypes: Sequence[str], modes: Sequence[str]
) -> list[Case]:
    """Return all combinations; compiled, which takes seconds per case, only the largest shape of each operation."""
    largest = {max((p for p in places if p.operation == name), key=lambda p: torch.Size(p.shape).numel())
               for name in {place.operation for place in places}}  # fmt: skip
    return [
        Case(place, batch, dtype, form, direction, mode)
        for mode in modes
        for place in places
        if mode == "eager" or place in largest
        for batch in batches
        for dtype in dtypes
        for form in FORMATS
        for direction in ("forward", "forward and backward")
    ]


def make_calls(case: Case, num_frames: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return the operation, and the copies of the same bytes as its reference."""
    dtype, form = DTYPES[case.dtype], FORMATS[case.format]
    shape = (case.batch * num_frames, *case.place.shape)
    backward = case.direction != "forward"
    # Drawn on the device: billions of numbers would take minutes on a CPU.
    generator = torch.Generator(device).manual_seed(0)
    frames, gradient = (
        torch.randn(shape, generator=generator, device=device).to(dtype).contiguous(memory_format=form)
        for _ in range(2)
    )
    frames.requires_grad_(backward)
    function = {"video_shuffle": video_shuffle, "temporal_shift": temporal_shift}[case.place.operation]
    if case.mode == "compile":
        function = torch.compile(function, fullgraph=True, dynamic=False)

    def run() -> None:
        out = function(frames, num_frames)
        if backward:
            torch.autograd.grad(out, frames, gradient)

    def copy() -> None:
        # Both stay in memory, as a result and its gradient do.
        copies = [frames.detach().clone()]
        if backward:
            copies.append(gradient.clone())

    return {"operation": run, "copy": copy}


def measure_case(
    case: Case, num_frames: int, device: torch.device, *, rounds: int, seconds: float, min_ms: float
) -> dict[str, Any]:
    """Measure microseconds of operation and copies, alternating, each repeated to fill a few milliseconds."""
    calls = make_calls(case, num_frames, device)
    repeats = {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        once = min(time_rounds({name: call}, device, rounds=3, progress=False)[name])
        repeats[name] = max(1, min(1000, int(min_ms / max(once, 1e-4))))
    repeated = {name: partial(repeat, call, repeats[name]) for name, call in calls.items()}
    times = time_rounds(repeated, device, rounds=rounds, seconds=seconds, progress=False)
    each = {name: [1000 * value / repeats[name] for value in values] for name, values in times.items()}
    values = case.batch * num_frames * torch.Size(case.place.shape).numel()
    moved = 2 * values * DTYPES[case.dtype].itemsize * (2 if case.direction != "forward" else 1)
    operation, copy = spread(each["operation"]), spread(each["copy"])
    return {
        "operation": case.place.operation,
        "shape": [case.batch * num_frames, *case.place.shape],
        **{key: getattr(case, key) for key in ("batch", "dtype", "format", "direction", "mode")},
        "rounds": len(each["copy"]),
        "microseconds": operation,
        "copy_microseconds": copy,
        "bytes_moved_at_least": moved,
        "gigabytes_per_second": moved / operation["median"] / 1e3,
        "copy_gigabytes_per_second": moved / copy["median"] / 1e3,
        "share_of_copy_bandwidth": paired_ratio(each["copy"], each["operation"]),
    }


def repeat(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def measure_operations(
    *,
    device: torch.device,
    batches: Sequence[int] = (1, 16),
    dtypes: Sequence[str] = ("fp32", "bf16"),
    modes: Sequence[str] = ("eager", "compile"),
    seconds: float,
    backbone: str = "resnet50",
    size: int = 224,
    rounds: int = 20,
) -> list[dict[str, Any]]:
    """Return rows of all cases, with an equal share of the time each; a failed or skipped case has its error."""
    config = ModelConfig(name=f"vsn_{backbone}", num_classes=174)
    places = places_in(config, size)
    cases = list_cases(list(places), batches, dtypes, modes)
    begin, rows = time.perf_counter(), []
    for number, case in enumerate(cases):
        left = seconds - (time.perf_counter() - begin)
        facts = case._asdict() | {"place": case.place._asdict(), "times_in_network": places[case.place]}
        if left <= 0:
            rows.append(facts | {"error": "no time left"})
            continue
        try:
            part = left / (len(cases) - number)
            row = measure_case(
                case,
                config.num_frames,
                device,
                rounds=rounds,
                seconds=0.6 * part,
                min_ms=min(4.0, 20 * part),
            )
            rows.append(row | {"times_in_network": places[case.place]})
        except Exception as error:
            rows.append(facts | {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
    return rows


# --- networks --------------------------------------------------------------------------------------


def networks(backbone: str, *, size: int, num_frames: int = 8) -> list[Subject]:
    """Return the four networks whose differences are the cost of the operations."""
    base = ModelConfig(name=f"tsn_{backbone}", num_classes=174, num_frames=num_frames)
    configs = (
        base,
        replace(base, name=f"tsm_{backbone}"),
        replace(base, name=f"vsn_{backbone}", shift=False),
        replace(base, name=f"vsn_{backbone}"),
    )
    return [
        Subject(label=label, config=config, num_clips=1, size=size)
        for label, config in zip(NETWORKS, configs, strict=True)
    ]


def print_operations(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print per case: microseconds, GB/s, and the share of a copy's bandwidth."""
    for row in rows:
        if "error" in row:
            console.print(
                f"{row['place']} {row['mode']} {row['dtype']} {row['format']}: {row['error']}", soft_wrap=True
            )
            continue
        share = row["share_of_copy_bandwidth"]
        console.print(
            f"{row['operation']:14} {'x'.join(map(str, row['shape'])):16} {row['mode']:7} {row['dtype']} "
            f"{row['format']:13} {row['direction']:20} {row['microseconds']['median']:9.1f} us "
            f"{row['gigabytes_per_second']:7.1f} GB/s  {share['ratio']:.0%} of copy "
            f"({share['interval'][0]:.0%}-{share['interval'][1]:.0%})",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def main() -> None:
    keep_freed_memory()  # as the `vsn` command does
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", default=["operations", "networks"], choices=["operations", "networks"])
    parser.add_argument("--modes", nargs="+", default=["eager", "compile"], choices=["eager", "compile"])
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=list(DTYPES))
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS), help="of networks")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--minutes", type=float, default=10.0, help="of measurement, without compilation")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device, console = pick_device(options.device), Console()
    seconds = 60 * options.minutes / len(options.parts)
    facts: dict[str, Any] = {
        **describe_run(__file__, [options.out.name, *sys.argv[2:]]),
        "device": describe_device(device),
    }
    if "operations" in options.parts:
        facts["operations"] = measure_operations(
            device=device, batches=options.batches, dtypes=options.dtypes, modes=options.modes, seconds=seconds,
            backbone=options.backbone, size=options.size,
        )  # fmt: skip
        print_operations(facts["operations"], console)
        write_json(options.out, facts)
    if "networks" in options.parts:
        large = max(options.batches)
        config = BenchConfig(
            modes=tuple(options.modes), dtypes=tuple(options.dtypes), formats=tuple(options.formats),
            batch_size=large if large > 1 else 0, seconds=seconds / (2 if large > 1 else 1), device=options.device,
        )  # fmt: skip
        results = run_bench(networks(options.backbone, size=options.size), config)
        facts["networks"] = results.to_json()
        print_table(results, console)
        write_json(options.out, facts)


if __name__ == "__main__":
    main()
