"""Measure what threads beyond a quota of CPU time cost: one video by one thread and by two, with the time of one CPU.

    python benchmarks/quota.py OUT.json [--rounds 12]

Needs Linux and root, which makes a control group for it. Two processes take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from common import describe_run
from vsn.bench.results import paired_ratio
from vsn.models import create_model
from vsn.system.files import write_json

MODEL = "vsn_resnet50"
THREADS = (1, 2)


def answer() -> None:
    """Time one forward pass for each line of the standard input, after a first one."""
    model = create_model(MODEL, num_classes=400).eval()
    clip = torch.randint(0, 256, (1, 8, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        model(clip)
        print("ready", flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            model(clip)
            print(time.perf_counter() - start, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    root = Path("/sys/fs/cgroup")
    has_version_1 = (root / "cpu/cpu.cfs_quota_us").is_file()
    # Each process has a group: time that one leaves unused is not the other's.
    groups = [root / ("cpu" if has_version_1 else "") / f"vsn-quota-{os.getpid()}-{threads}" for threads in THREADS]
    workers: list[subprocess.Popen[str]] = []
    try:
        for threads, group in zip(THREADS, groups, strict=True):
            group.mkdir()
            (group / ("cpu.cfs_quota_us" if has_version_1 else "cpu.max")).write_text("100000")
            workers.append(
                subprocess.Popen(
                    [sys.executable, __file__, "--answer"],
                    env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            (group / "cgroup.procs").write_text(str(workers[-1].pid))
            assert workers[-1].stdout.readline() == "ready\n"
        seconds: list[list[float]] = [[], []]
        for _ in range(options.rounds):
            for worker, measured in zip(workers, seconds, strict=True):
                time.sleep(0.2)  # a new period of the quota
                print(file=worker.stdin, flush=True)
                measured.append(float(worker.stdout.readline()))
    finally:
        for worker in workers:
            worker.communicate()
        time.sleep(0.5)  # the kernel takes a while to forget the last process
        for group in groups:
            group.rmdir()
    ratio = paired_ratio(seconds[1], seconds[0])
    print(f"two threads take {ratio['ratio']:.2f} times as long as one {ratio['interval']}")
    write_json(
        options.out,
        {
            **describe_run(__file__, [options.out.name, *sys.argv[2:]]),
            "model": MODEL,
            "cpus": os.cpu_count(),
            "quota": 1,
            "seconds": dict(zip(map(str, THREADS), seconds, strict=True)),
            "time_to_one_thread": ratio,
        },
    )


if __name__ == "__main__":
    answer() if sys.argv[1:] == ["--answer"] else main()
