"""Compare our TV-L1 with OpenCV's, by speed and by error against known motion, and the layouts by size and speed.

    python benchmarks/flow.py WORK results/flow-cpu.json

Pairs of 340x256 pixels are generated: a texture in affine motion, and in front of it an ellipse of another texture with
another motion. Each round measures every method with 1 and 2 cores in random order; as in extraction, one process of one
thread per core. Rates are medians over rounds. Needs the extra vsn-video[flow].
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import describe_run
from vsn.data.flow.compute import flow_method
from vsn.data.flow.stored import open_flow, write_flow_file, write_flow_folder
from vsn.data.flow.values import flow_to_bytes
from vsn.system.files import write_json

HEIGHT, WIDTH = 256, 340
METHODS = ("tvl1", "tvl1-opencv")
LAYOUTS = ("file", "xy", "rg")

Pair = tuple[np.ndarray, np.ndarray, np.ndarray]


# --- frames whose motion is known ------------------------------------------------------------------


def texture(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return values in 0 to 255 at points: waves of 4 to 120 pixels, long ones stronger."""
    value = np.zeros_like(x)
    for length in np.geomspace(4, 120, 40):
        angle, phase = generator.uniform(0, 2 * np.pi, 2)
        value += length**0.5 * np.sin(2 * np.pi / length * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return np.clip(128 + 45 * value / value.std(), 0, 255)


def known_pair(seed: int, motion: float) -> Pair:
    """Return two noisy uint8 frames, and the motion of each pixel of the first, float `(H, W, 2)`."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH] - np.array([HEIGHT / 2, WIDTH / 2])[:, None, None]
    affine = np.eye(2) + generator.uniform(-0.015, 0.015, (2, 2))
    shift, apart = generator.uniform(-motion / 2, motion / 2, 2), generator.uniform(-motion, motion, 2)
    radii = generator.uniform(0.1, 0.25, 2) * (WIDTH, HEIGHT)
    back = np.linalg.inv(affine) @ np.stack([x - shift[0], y - shift[1]]).reshape(2, -1)
    frames = []
    for far_x, far_y, move in ((x, y, (0, 0)), (*back.reshape(2, *x.shape), apart)):
        far = texture(far_x, far_y, np.random.default_rng(10_000 + seed))
        near_x, near_y = x - move[0], y - move[1]
        near = texture(near_x, near_y, np.random.default_rng(20_000 + seed))
        within = (near_x / radii[0]) ** 2 + (near_y / radii[1]) ** 2 < 1
        noisy = np.where(within, near, far) + generator.normal(0, 1.5, x.shape)
        frames.append(np.clip(np.round(noisy), 0, 255).astype(np.uint8))
    truth = np.stack([affine[0, 0] * x + affine[0, 1] * y + shift[0] - x,
                      affine[1, 0] * x + affine[1, 1] * y + shift[1] - y], 2)  # fmt: skip
    truth[(x / radii[0]) ** 2 + (y / radii[1]) ** 2 < 1] = apart
    return frames[0], frames[1], truth


# --- methods ---------------------------------------------------------------------------------------


def start_worker() -> None:
    torch.set_num_threads(1)


def flows(method: str, pairs: list[Pair]) -> list[np.ndarray]:
    compute = flow_method(method)
    return [compute(np.stack(pair[:2]))[0] for pair in pairs]


def rate(method: str, pools: dict[int, ProcessPoolExecutor], cores: int, pairs: list[Pair]) -> float:
    """Return pixels per second over all cores, each of which computes `pairs`."""
    start = time.perf_counter()
    for job in [pools[cores].submit(flows, method, pairs) for _ in range(cores)]:
        job.result()
    return cores * len(pairs) * HEIGHT * WIDTH / (time.perf_counter() - start)


def measure_methods(pairs: list[Pair], *, rounds: int, seed: int) -> list[dict[str, Any]]:
    keys = list(itertools.product(METHODS, (1, 2)))
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in keys}
    pools = {cores: ProcessPoolExecutor(cores, get_context("spawn"), initializer=start_worker) for cores in (1, 2)}
    for method, cores in keys:  # warm-up: imports and the first call
        rate(method, pools, cores, pairs[:1])
    for number in range(rounds):
        order = list(keys)
        random.Random(seed + number).shuffle(order)
        for method, cores in order:
            rates[method, cores].append(rate(method, pools, cores, pairs))
            print(
                f"round {number + 1}, {method}, {cores} cores: {rates[method, cores][-1]:.0f} pixels/s",
                flush=True,
            )
    errors = {
        method: [
            float(np.linalg.norm(flow - pair[2], axis=2).mean())
            for flow, pair in zip(pools[1].submit(flows, method, pairs).result(), pairs, strict=True)
        ]
        for method in METHODS
    }
    for pool in pools.values():
        pool.shutdown()
    medians = {key: statistics.median(values) for key, values in rates.items()}
    return [
        {
            "method": method,
            "cores": cores,
            "pixels_per_second": [round(value) for value in rates[method, cores]],
            "median": round(medians[method, cores]),
            "pairs_per_second": round(medians[method, cores] / (HEIGHT * WIDTH), 2),
            "times_opencv": round(medians[method, cores] / medians["tvl1-opencv", cores], 2),
            "end_point_error": round(statistics.mean(errors[method]), 4),
            "end_point_errors": [round(error, 4) for error in errors[method]],
        }
        for method, cores in keys
    ]


# --- layouts ---------------------------------------------------------------------------------------


def measure_layouts(work: Path, *, num_fields: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    """Measure bytes per field, and fields per second of reading 8 stacks of 5, as in training, from the page cache."""
    truth = known_pair(0, 8.0)[2]
    fields = [flow_to_bytes(np.roll(truth, 3 * i, 1), 20.0) for i in range(num_fields)]
    places = {layout: work / f"layouts-{os.getpid()}" / layout for layout in LAYOUTS}
    places["file"] = places["file"].with_suffix(".vsnflow")
    write_flow_file(places["file"], fields, video_id="v")
    for layout in ("xy", "rg"):
        write_flow_folder(places[layout], fields, layout=layout)
    indices = [start + i for start in np.linspace(0, num_fields - 5, 8).astype(int) for i in range(5)]
    rates: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    for number in range(rounds + 1):
        order = list(LAYOUTS)
        random.Random(seed + number).shuffle(order)
        for layout in order:
            start = time.perf_counter()
            for _ in range(10):
                open_flow(places[layout]).frames_at(indices)
            if number:  # the first round fills the page cache
                rates[layout].append(10 * len(indices) / (time.perf_counter() - start))
    rows = []
    for layout, place in places.items():
        files = [place] if place.is_file() else list(place.iterdir())
        rows.append({
            "layout": layout,
            "files_a_video": len(files),
            "bytes_a_field": round(sum(file.stat().st_size for file in files) / num_fields),
            "fields_per_second": [round(value, 1) for value in rates[layout]],
            "median": round(statistics.median(rates[layout]), 1),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load_before = os.getloadavg()
    pairs = [known_pair(options.seed + i, (3.0, 8.0)[i % 2]) for i in range(options.pairs)]
    result = {
        **describe_run(__file__, ["WORK", f"results/{options.out.name}", *sys.argv[3:]]),
        "seed": options.seed,
        "load_before": load_before,
        "size": [HEIGHT, WIDTH],
        "rows": measure_methods(pairs, rounds=options.rounds, seed=options.seed),
        "layouts": measure_layouts(options.work, num_fields=100, rounds=options.rounds, seed=options.seed),
        "load_after": os.getloadavg(),
    }  # fmt: skip
    result["versions"]["opencv-contrib-python-headless"] = version("opencv-contrib-python-headless")
    write_json(options.out, result)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
