"""Compare one training in five ways: one process, two, killed and resumed, with a moving average, compiled.

    python benchmarks/training.py WORK results/NAME.json [--plot docs/training.png] [--epochs 9]

Each trains the demo's VSN on the embedded data set by `vsn train` (under torchrun for two processes; killed by SIGKILL at
random times and resumed), with one thread per process and without dropout, whose draws differ between one process and
two. The JSON has all metrics, the running loss every 20 steps, and the difference of each way from the first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.runs.run import is_finished, read_metrics
from vsn.system.allocator import keep_freed_memory
from vsn.system.files import write_json

SETTINGS = ["--model.dropout", "0", "--train.val-every", "1", "--train.device", "cpu"]
WAYS: dict[str, list[str]] = {
    "one process": [],
    "two processes": [],
    "killed and resumed": ["--train.save-minutes", "0.1"],
    "moving average": ["--train.ema", "0.99"],
    "compiled": ["--train.compile"],
}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def run_way(way: str, work: Path, root: Path, epochs: int, seed: int) -> tuple[Path, int]:
    """Train one way, unless an earlier run did; return the run folder and how often it was killed."""
    path = work / "runs" / way.replace(" ", "-")
    count = path.with_name(f"{path.name}-kills")
    kills = int(count.read_text()) if count.is_file() else 0
    arguments = ["train", "demo", "--data.root", str(root), "--out", str(path), *SETTINGS, *WAYS[way]]
    arguments += ["--train.epochs", str(epochs), "--train.seed", str(seed)]
    vsn = [sys.executable, "-m", "vsn"]
    if way == "two processes":
        vsn = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "vsn",
        ]
    draw = random.Random(seed)
    while not is_finished(path):
        resume = ["train", "--resume", str(path)] if (path / "state.pt").is_file() else arguments
        limit = draw.uniform(30, 60) if way == "killed and resumed" and kills < 5 else None
        try:
            subprocess.run([*vsn, *resume], env=ENVIRONMENT, check=True, timeout=limit)
        except subprocess.TimeoutExpired:  # run() has killed it
            kills += 1
            count.write_text(str(kills))
            if not (path / "state.pt").is_file():
                for left in path.glob("*"):
                    left.unlink()
    return path, kills


def describe(path: Path, first: Path) -> dict[str, Any]:
    """Return metrics and running loss of a run, and its difference from the first run."""
    events = EventAccumulator(str(path / "tensorboard")).Reload()
    # A step repeated after resuming has two values, of which the dict keeps the last.
    running = {point.step: point.value for point in events.Scalars("running_loss")}
    ours, theirs = load_file(path / "model.safetensors"), load_file(first / "model.safetensors")
    metrics, wanted = read_metrics(path), read_metrics(first)
    return {
        "metrics": metrics,
        "running_loss": [[step, round(value, 6)] for step, value in sorted(running.items())],
        "weights_equal_to_first": all(torch.equal(ours[name], theirs[name]) for name in theirs),
        "largest_relative_difference_of_training_loss": max(
            abs(a["train_loss"] / b["train_loss"] - 1) for a, b in zip(metrics, wanted, strict=True)
        ),
        "relative_difference_of_training_loss_in_epoch_1": abs(metrics[0]["train_loss"] / wanted[0]["train_loss"] - 1),
    }


def plot(facts: dict[str, Any], path: Path) -> None:
    """Plot the loss curves: training as lines, validation as points."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for number, (way, found) in enumerate(facts["ways"].items()):
        style = {"color": f"C{number}", "lw": 5.5 - 1.1 * number, "alpha": 0.75, "label": way}
        steps, losses = zip(*found["running_loss"], strict=True)
        left.plot(steps, losses, **style)
        right.plot(
            [m["epoch"] for m in found["metrics"]],
            [m["val_loss"] for m in found["metrics"]],
            marker="o",
            **style,
        )
    left.set(title="Mean training loss of the epoch so far", xlabel="step", ylabel="cross-entropy")
    right.set(title="Validation loss", xlabel="epoch")
    left.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    keep_freed_memory()  # as the `vsn` command does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    root = write_dataset(options.work / "videos", SynthSpec(seed=options.seed))
    facts: dict[str, Any] = {
        "command": f"python benchmarks/training.py WORK {options.output.name} --epochs {options.epochs}",
        "date": datetime.now(UTC).date().isoformat(),
        "seed": options.seed,
        "ways": {},
    }
    first = options.work / "runs" / "one-process"
    for way in WAYS:
        path, kills = run_way(way, options.work, root, options.epochs, options.seed)
        facts["versions"] = json.loads((path / "versions.json").read_text())
        facts["ways"][way] = {"settings": WAYS[way], "kills": kills} | describe(path, first)
        write_json(options.output, facts)
    if options.plot:
        plot(facts, options.plot)


if __name__ == "__main__":
    main()
