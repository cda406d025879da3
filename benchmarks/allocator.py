"""Measure the gain of keeping freed memory in the process, as the command does: steps with and without.

    python benchmarks/allocator.py OUT.json [--rounds 5] [--steps 10]

Each process trains a model on noise, or runs it on clips, and reports seconds and page faults per step. Processes of
both kinds alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from common import describe_run
from vsn.bench.results import paired_ratio
from vsn.config import ModelConfig
from vsn.models import build_model
from vsn.system.allocator import keep_freed_memory
from vsn.system.files import write_json
from vsn.training.memory import to_channels_last

CASES = {
    "train tsn_resnet26_thin": ("tsn_resnet26_thin", 16, 64),
    "train vsn_resnet26_thin": ("vsn_resnet26_thin", 16, 64),
    "train vsn_resnet50": ("vsn_resnet50", 4, 112),
    "infer tsn_resnet50": ("tsn_resnet50", 1, 224),
    "infer vsn_resnet50": ("vsn_resnet50", 1, 224),
}
"""Case -> model, clips per step, pixels."""


def measure(case: str, steps: int) -> dict[str, float]:
    """Measure seconds and page faults per step, in this process."""
    name, batch, size = CASES[case]
    torch.manual_seed(0)
    model = build_model(ModelConfig(name=name, num_classes=20))
    to_channels_last(model)
    clip = torch.randint(0, 256, (batch, 8, 3, size, size), dtype=torch.uint8)
    labels = torch.randint(0, 20, (batch,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    training = case.startswith("train")
    model.train(training)

    def step() -> None:
        with torch.set_grad_enabled(training):
            scores = model(clip)
        if training:
            functional.cross_entropy(scores, labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    for _ in range(3):
        step()
    faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    for _ in range(steps):
        step()
    seconds = (time.perf_counter() - start) / steps
    return {
        "seconds": seconds,
        "page_faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / steps,
    }


def measure_in_process(case: str, steps: int, kept: bool) -> dict[str, float]:
    """Measure in a new process, because the allocator is configured once per process."""
    command = [sys.executable, __file__, "-", "--case", case, "--steps", str(steps)]
    figures: dict[str, float] = json.loads(subprocess.check_output([*command, "--keep"] if kept else command))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--case", default="", help="internal: the case of this process")
    parser.add_argument("--keep", action="store_true", help="internal: keep freed memory in this process")
    options = parser.parse_args()
    if options.case:
        if options.keep and not keep_freed_memory():
            raise SystemExit("--keep needs glibc.")
        print(json.dumps(measure(options.case, options.steps)))
        return
    order = random.Random(0)
    taken: dict[tuple[str, bool], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        turns = [(case, kept) for case in options.cases for kept in (False, True)]
        for case, kept in order.sample(turns, len(turns)):
            taken.setdefault((case, kept), []).append(measure_in_process(case, options.steps, kept))
    rows: list[dict[str, Any]] = []
    for case in options.cases:
        given_back, kept_ = ([figures["seconds"] for figures in taken[case, kept]] for kept in (False, True))
        rows.append(
            {
                "case": case,
                "seconds": {"given_back": given_back, "kept": kept_},
                "page_faults_a_step": {
                    name: median(figures["page_faults"] for figures in taken[case, kept])
                    for name, kept in (("given_back", False), ("kept", True))
                },
                "time_to_given_back": paired_ratio(kept_, given_back),
            }
        )
        print(case, f"{rows[-1]['time_to_given_back']['ratio']:.2f}", rows[-1]["page_faults_a_step"])
    facts = {
        **describe_run(__file__, [options.out.name, *sys.argv[2:]]),
        "seed": 0,
        "rows": rows,
    }
    write_json(options.out, facts)


if __name__ == "__main__":
    main()
