"""What it is worth that the command keeps the memory it frees: steps with and without, in processes that take turns.

    python benchmarks/allocator.py OUT.json [--rounds 5] [--steps 10]

Each process trains a model for some steps on noise, or runs it on clips, and says how long a step took and how many
pages the system had to hand out for it.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from vsn.bench.results import paired_ratio
from vsn.config import ModelConfig
from vsn.models import build_model
from vsn.runs.metadata import versions
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
"""What is done with a model, clips a step, pixels."""


def measure(case: str, steps: int) -> dict[str, float]:
    """Seconds and page faults of a step, in this process."""
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


def measure_apart(case: str, steps: int, kept: bool) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "-", "--case", case, "--steps", str(steps)]
    answer = subprocess.check_output([*command, "--keep"] if kept else command)
    found: dict[str, float] = json.loads(answer)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--case", default="", help="of a process: what it measures")
    parser.add_argument("--keep", action="store_true", help="of a process: keep freed memory")
    options = parser.parse_args()
    if options.case:
        if options.keep and not keep_freed_memory():
            raise SystemExit("there is no glibc to tell")
        print(json.dumps(measure(options.case, options.steps)))
        return
    order = random.Random(0)
    taken: dict[tuple[str, bool], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        turns = [(case, kept) for case in options.cases for kept in (False, True)]
        for case, kept in order.sample(turns, len(turns)):
            taken.setdefault((case, kept), []).append(measure_apart(case, options.steps, kept))
    rows: list[dict[str, Any]] = []
    for case in options.cases:
        given, kept_ = ([one["seconds"] for one in taken[case, kept]] for kept in (False, True))
        rows.append(
            {
                "case": case,
                "seconds": {"given_back": given, "kept": kept_},
                "page_faults_a_step": {
                    name: median(one["page_faults"] for one in taken[case, kept])
                    for name, kept in (("given_back", False), ("kept", True))
                },
                "time_to_given_back": paired_ratio(kept_, given),
            }
        )
        print(case, f"{rows[-1]['time_to_given_back']['ratio']:.2f}", rows[-1]["page_faults_a_step"])
    facts = {
        "command": shlex.join(["python", "benchmarks/allocator.py", options.out.name, *sys.argv[2:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "seed": 0,
        "rows": rows,
    }
    write_json(options.out, facts)


if __name__ == "__main__":
    main()
