"""Measure training steps of TSN, TSM, VSN and VSN without shift against a bare ResNet on the same number of images.

    python benchmarks/training_speed.py results/training-speed-cpu.json [--backbone resnet50] [--videos 2] [--rounds 12]

A step is forward, backward and the optimizer's update, of clips in memory. The bare network takes the clips' frames as
normalized images. Networks take turns, so that a slow phase of the machine affects all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common import describe_run
from vsn.bench.results import paired_ratio, spread
from vsn.bench.rounds import time_rounds
from vsn.config import Recipe
from vsn.config.recipes import find_recipe, load_recipe
from vsn.inference.forward import autocast
from vsn.models.backbones import build_backbone
from vsn.system.allocator import keep_freed_memory
from vsn.system.files import write_json
from vsn.training.batch_size import TrialStep
from vsn.training.memory import to_channels_last

MODELS: dict[str, dict[str, Any]] = {
    "tsn": {"name": "tsn"},
    "tsm": {"name": "tsm"},
    "shuffle alone": {"name": "vsn", "shift": False},
    "vsn": {"name": "vsn"},
}
CPU = torch.device("cpu")


def bare_step(recipe: Recipe, backbone: str, num_images: int) -> Callable[[], None]:
    """Return a training step of the backbone with its own classifier, on images."""
    model = build_backbone(backbone).train()
    to_channels_last(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.train.lr)  # as the recipe has it
    size = recipe.clip.crop_size
    images = torch.zeros(num_images, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(num_images, dtype=torch.int64)

    def step() -> None:
        with autocast(CPU, recipe.train.precision):
            logits = model(images)
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    keep_freed_memory()  # as the `vsn` command does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--videos", type=int, default=2, help="videos of eight frames a step")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    options = parser.parse_args()
    torch.manual_seed(0)
    base = load_recipe(find_recipe("finetune"))
    base = replace(base, clip=replace(base.clip, crop_size=options.size))
    facts = {
        **describe_run(__file__, [options.output.name, *sys.argv[2:]]),
        "seed": 0,
        "threads": torch.get_num_threads(),
    }
    facts["rows"] = rows = []
    for precision in options.precisions:
        train = replace(base.train, precision=precision, device="cpu", partial_bn=False, freeze=())
        recipe = replace(base, train=train)
        calls = {"bare": bare_step(recipe, options.backbone, 8 * options.videos)}
        for name, settings in MODELS.items():
            named = settings | {"name": f"{settings['name']}_{options.backbone}"}
            model = replace(base.model, weights="none", num_frames=8, **named)
            step = TrialStep(replace(recipe, model=model), 1000, CPU)
            calls[name] = lambda step=step: step(options.videos)
        for call in calls.values():
            call()
        times = time_rounds(calls, CPU, rounds=options.rounds, seconds=900, seed=0, title=precision)
        for name, found in times.items():
            # Speed, not time: below 1 is slower than the bare network.
            speed = paired_ratio(times["bare"], found)
            rows.append({"model": name, "precision": precision, "step_ms": spread(found), "speed_to_bare": speed})
            print(
                f"{precision} {name:14} {rows[-1]['step_ms']['median']:7.0f} ms  {speed['ratio']:.3f} {speed['interval']}"
            )
        write_json(options.output, facts)


if __name__ == "__main__":
    main()
