"""Measure the gain of reusing features between sliding windows: multiply-adds and time.

    python benchmarks/stream.py OUT.json [--models vsn_resnet50 vsn_resnet18] [--strides 1 2 4] [--seconds 60]

Networks of random weights, with shuffles and shifts in different stages, score windows that slide by one frame or more:
with the features of a frame kept, and with every window computed by the network's forward. Both alternate in every round.
The difference between their scores is recorded too.
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
from torch.utils.flop_counter import FlopCounterMode

from common import describe_run
from tables import stream_table
from vsn.bench.results import paired_ratio, spread
from vsn.bench.rounds import time_rounds
from vsn.bench.runtimes import describe_device
from vsn.config import ClipSpec, EvalConfig, ModelConfig, Recipe
from vsn.inference.predict import RunPredictor
from vsn.inference.predictor import Predictor
from vsn.models import build_model
from vsn.stream.scorer import WindowScorer
from vsn.system.allocator import keep_freed_memory
from vsn.system.files import write_json

PLACEMENTS: dict[str, dict[str, Any]] = {
    "shift and shuffle": {},
    "shuffle": {"shift": False},
    "shuffle in res4 and res5": {"shift": False, "places": ("res4", "res5")},
    "shuffle in res5": {"shift": False, "places": ("res5",)},
    "none (TSN)": {},
}
CHECKED_WINDOWS = 4
CPU = torch.device("cpu")


def make_predictor(name: str, placement: str, *, size: int, num_frames: int, seed: int) -> Predictor:
    """Return a predictor of random weights on square frames."""
    if placement.startswith("none"):
        name = name.replace("vsn_", "tsn_", 1)
    config = ModelConfig(name=name, num_classes=174, num_frames=num_frames, **PLACEMENTS[placement])
    torch.manual_seed(seed)
    recipe = Recipe(model=config, clip=ClipSpec(short_side=size, crop_size=size), eval=EvalConfig(protocol="center"))
    classes = tuple(str(number) for number in range(config.num_classes))
    return RunPredictor(build_model(config), recipe, classes, device="cpu")


class Slide:
    """Score the next window at every call, cycling through a few frames."""

    def __init__(self, scorer: WindowScorer, images: np.ndarray, stride: int) -> None:
        self.scorer, self.images, self.stride, self.start = scorer, images, stride, 0

    def __call__(self) -> np.ndarray:
        numbers = range(self.start, self.start + self.scorer.num_frames)
        self.start += self.stride
        return self.scorer.score(numbers, [self.images[number % len(self.images)][None] for number in numbers])


def multiply_adds(call: Callable[[], object]) -> int:
    """Count the multiply-adds of convolutions and linear layers in one call."""
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return int(counter.get_total_flops()) // 2


def compare(predictor: Predictor, images: np.ndarray, stride: int) -> dict[str, Any]:
    """Compare scores with reuse to those of whole windows: by the same parts, and by the network's forward."""
    scorers = [WindowScorer(predictor), WindowScorer(predictor), WindowScorer(predictor, reuse=False)]
    slides = [Slide(scorer, images, stride) for scorer in scorers]
    equal, largest = True, 0.0
    for _ in range(CHECKED_WINDOWS):
        scorers[1].reset()
        kept, same_parts, forward = (slide() for slide in slides)
        equal &= bool(np.array_equal(kept, same_parts))
        largest = max(largest, float(np.abs(kept - forward).max() / np.abs(forward).max()))
    return {"bit_equal_to_the_same_parts": equal, "largest_difference_to_forward": largest}


def measure(
    predictor: Predictor,
    images: np.ndarray,
    stride: int,
    *,
    rounds: int,
    seconds: float,
    seed: int,
    title: str,
) -> dict[str, Any]:
    """Return multiply-adds and milliseconds per window, with and without reuse."""
    scorer = WindowScorer(predictor)
    calls = {
        "kept": Slide(scorer, images, stride),
        "whole": Slide(WindowScorer(predictor, reuse=False), images, stride),
    }
    for call in calls.values():  # warm-up; the first window has nothing to reuse
        for _ in range(2):
            call()
    counted = {name: multiply_adds(call) for name, call in calls.items()}
    times = time_rounds(calls, CPU, rounds=rounds, seconds=seconds, seed=seed, title=title)
    return {
        "stride": stride,
        "first_temporal": scorer.first_temporal,
        "multiply_adds": counted,
        "saved_multiply_adds": 1 - counted["kept"] / counted["whole"],
        "rounds": len(times["kept"]),
        "kept_ms": spread(times["kept"]),
        "whole_ms": spread(times["whole"]),
        "time_to_whole": paired_ratio(times["kept"], times["whole"]),
        **compare(predictor, images, stride),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()  # as the `vsn` command does
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=["vsn_resnet50", "vsn_resnet18"])
    parser.add_argument("--placements", nargs="+", default=list(PLACEMENTS), choices=list(PLACEMENTS))
    parser.add_argument("--strides", type=int, nargs="+", default=[1, 2, 4], help="frames between windows")
    parser.add_argument("--size", type=int, default=ClipSpec.crop_size)
    parser.add_argument("--num-frames", type=int, default=ModelConfig.num_frames)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60.0, help="maximum per row")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    given = list(sys.argv[2:] if arguments is None else arguments[1:])
    facts: dict[str, Any] = {
        **describe_run(__file__, [options.out.name, *given]),
        "device": describe_device(CPU),
        "settings": {"size": options.size, "num_frames": options.num_frames, "seed": options.seed},
        "rows": [],
    }
    images = np.random.default_rng(options.seed).integers(
        0, 256, (2 * options.num_frames, options.size, options.size, 3), dtype=np.uint8
    )
    for name in options.models:
        for placement in options.placements:
            predictor = make_predictor(
                name, placement, size=options.size, num_frames=options.num_frames, seed=options.seed
            )
            for stride in options.strides:
                row = measure(
                    predictor, images, stride, rounds=options.rounds, seconds=options.seconds, seed=options.seed,
                    title=f"{name}, {placement}",
                )  # fmt: skip
                facts["rows"].append({"model": name, "placement": placement, **row})
                write_json(options.out, facts)
    Console().print(stream_table(facts["rows"]), highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
