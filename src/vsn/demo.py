"""Train and compare TSN, TSM and VSN on the embedded data set, and write a report: `vsn demo`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from vsn.config import BenchConfig, Recipe
from vsn.data.dataset import VideoDataset
from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.data.open import open_datasets, open_split
from vsn.inference.evaluate import evaluate_split
from vsn.models import build_model
from vsn.models.measure import count_multiply_adds, count_parameters, latency_ms, time_call_ms
from vsn.report import read_runs, write_page
from vsn.report.illustrate import best_and_worst
from vsn.runs.checkpoint import load_model
from vsn.runs.metadata import versions
from vsn.runs.run import Run, is_finished
from vsn.system.distributed import pick_device
from vsn.system.files import atomic_write, write_json
from vsn.system.load import CpuMeter
from vsn.system.numbers import decimal, percent, percent_range, short_count
from vsn.system.terminal import make_table
from vsn.training.train import train_or_reuse

NAMES = ("tsn", "tsm", "vsn")
NUM_STRIPS = 12
LATENCY_ROUNDS = 40
"""So many take about `vsn.system.load.MIN_SECONDS`, below which the load is not known and latencies are stated."""
QUICK_GROUPS = ("horizontal", "vertical", "appear")
"""The groups of classes that are learned first."""


@dataclass(frozen=True)
class DemoRow:
    """A row of the demo's table; field names are keys of `table.json`."""

    model: str
    params: int
    multiply_adds: int
    top1: float
    top1_interval: tuple[float, float]
    """95% confidence interval."""
    top1_shuffled: float
    """With the frames in random order."""
    latency_ratio: float | None = None
    """To TSN, measured alternately when all networks are trained; None before."""


def run_demo(
    out: Path,
    recipe: Recipe,
    *,
    quick: bool = False,
    seed: int = 0,
    spec: SynthSpec | None = None,
    console: Console | None = None,
) -> list[DemoRow]:
    """Write the embedded data set, train and test the three networks, and write the table and the report.

    Args:
        out: folder for ``videos/``, ``runs/{tsn,tsm,vsn}``, ``table.json`` and ``report.html``. An interrupted
            demo continues there.
        recipe: settings of all three; the name of its model is replaced.
        quick: fewer classes, videos and epochs.
        seed: of the data set and of the training.
        spec: replaces the default or quick data set.
        console: where to print; default standard output.
    """
    console = console or Console()
    started = time.perf_counter()
    # Quick: motions that a network learns in few epochs, so that the result already shows the difference.
    default = SynthSpec(seed=seed)
    if quick:
        default = replace(default, groups=QUICK_GROUPS, num_train_per_class=35, num_val_per_class=5)
        recipe = replace(recipe, train=replace(recipe.train, epochs=6))
    spec = spec or default
    console.print(describe_demo(spec), highlight=False)
    clock = _Clock(console, recipe, spec, unfinished=[name for name in NAMES if not is_finished(out / "runs" / name)])
    root = str(write_dataset(out / "videos", spec))
    recipe = replace(recipe, train=replace(recipe.train, seed=seed), data=replace(recipe.data, root=root))
    datasets = open_datasets(recipe, console)  # decoded once for the three
    clock.videos_written()
    runs: list[Run] = []
    rows: list[DemoRow] = []
    for name in NAMES:
        model = replace(recipe.model, name=f"{name}_{recipe.model.backbone}")
        console.print(f"[bold]{name.upper()}[/bold] ({model.name})")
        of_model, path = replace(recipe, model=model), out / "runs" / name
        runs.append(train_or_reuse(of_model, path, datasets=datasets, console=console, command="vsn demo"))
        rows.append(test_run(runs[-1]))
        if name != NAMES[-1]:
            print_table(rows, console)
        clock.trained(name)
    rows = with_latency(rows, runs)
    seconds = time.perf_counter() - started
    table = {
        "columns": [name for name in asdict(rows[0]) if getattr(rows[0], name) is not None],
        "rows": [asdict(row) for row in rows],
        "quick": quick,
        "seed": seed,
        "seconds": seconds,
        "date": date.today().isoformat(),
        "versions": versions(),
    }
    write_json(out / "table.json", table)
    # The report needs pictures of the test set, and the videos on which the networks differ most.
    test_set = open_split(recipe, "test", classes=runs[0].classes)
    report_runs = read_runs([run.path for run in runs], recipe.data.test_split)
    page = write_page(
        report_runs,
        out / "report.html",
        title="Video shuffle on videos that differ only in the order of their frames",
        table=out / "table.json",
        strips=_write_strips(out / "strips.npz", test_set),
        examples=best_and_worst(report_runs, num_videos=2, device=recipe.train.device),
    )
    print_table(rows, console)
    latency = (
        "of one clip, relative to TSN's"
        if rows[0].latency_ratio is not None
        else "not measured, because other programs used the processor (`vsn bench` measures it)"
    )
    console.print(
        f"shuffled: top-1 with the frames in random order. latency: {latency}.\n"
        f"{seconds / 60:.1f} minutes. Open {page}",
        highlight=False,
    )
    return rows


def shorten(recipe: Recipe) -> Recipe:
    """Return the recipe of the embedded data set with about 40% of its computation: five minutes on two old cores.

    Smaller frames and a higher learning rate reach VSN 92% and TSM 72% in 7 epochs; in 6 epochs VSN reaches only 70%,
    and in 8 epochs 94%, as with the recipe's 9 epochs of 64x64 pixels.
    """
    clip = replace(recipe.clip, short_side=48, crop_size=48)
    return replace(recipe, clip=clip, train=replace(recipe.train, epochs=7, lr=3e-3, val_every=7))


def describe_demo(spec: SynthSpec) -> str:
    """Say in one sentence what the demo will show."""
    bound = len(spec.groups) / len(spec.classes)
    return (
        f"You will see three networks of equal cost learn {len(spec.classes)} kinds of motion that differ only in the order "
        f"of the frames: TSN averages frames, so that only chance makes it right, for at most about {percent(bound)} of the "
        "videos; TSM and VSN mix frames, and can tell the motions apart."
    )


class _Clock:
    """Print how long the demo will take: from a few steps of training at first, then from the work that is done.

    Work is counted in videos trained on.
    """

    # A video is written and decoded once, for about three times the cost of training on it, and tested twice at a third.
    VIDEO, TEST = 3.0, 2 / 3

    def __init__(self, console: Console, recipe: Recipe, spec: SynthSpec, *, unfinished: Sequence[str]) -> None:
        num_classes = len(spec.classes)
        num_train = num_classes * spec.num_train_per_class
        self._console, self._unfinished = console, unfinished
        num_others = num_classes * (spec.num_val_per_class + spec.num_test_per_class)
        self._videos = self.VIDEO * (num_train + num_others)
        self._network = num_train * recipe.train.epochs + self.TEST * num_classes * spec.num_test_per_class
        self._done = 0.0
        self._left = self._videos + len(unfinished) * self._network
        self._started = time.perf_counter()
        if unfinished:
            self._print(self._left * _seconds_per_video(recipe, num_classes), "on this machine")

    def videos_written(self) -> None:
        self._finish(self._videos)

    def trained(self, name: str) -> None:
        """Count a network that was not finished before."""
        if name in self._unfinished:
            self._finish(self._network)

    def _finish(self, work: float) -> None:
        self._done, self._left = self._done + work, self._left - work
        if self._left > 1:
            self._print(self._left * (time.perf_counter() - self._started) / self._done, "left")

    def _print(self, seconds: float, what: str) -> None:
        self._console.print(f"About {decimal(seconds / 60, 1)} minutes {what}.", highlight=False)


def _seconds_per_video(recipe: Recipe, num_classes: int) -> float:
    """Time a few steps of training on a clip of zeros, and return the seconds per video."""
    device, size = pick_device(recipe.train.device), recipe.clip.crop_size
    model = build_model(replace(recipe.model, num_classes=num_classes)).to(device).train()
    # Short steps, of which some are not interrupted where other programs run.
    clip = torch.zeros(4, recipe.model.num_frames, 3, size, size, dtype=torch.uint8, device=device)

    def step() -> None:
        model(clip).sum().backward()
        model.zero_grad()

    # The first steps set up kernels and caches.
    return min(time_call_ms(step, device) for _ in range(8)) / 1000 / len(clip)


def test_run(run: Run) -> DemoRow:
    """Test a run with its frames in order and shuffled, and count its cost."""
    # Shuffled frames show what a network knows of their order: without it TSN loses nothing.
    forward, shuffled = (
        evaluate_split(run.path, config=replace(run.recipe.eval, order=order), num_workers=0, progress=False)
        for order in ("forward", "shuffled")
    )
    # Every video of the embedded data set has a label.
    assert forward.top1 is not None
    assert forward.top1_interval is not None
    assert shuffled.top1 is not None
    return DemoRow(
        model=run.path.name.upper(),
        params=count_parameters(load_model(run)),
        multiply_adds=count_multiply_adds(run.recipe.model, size=run.recipe.clip.crop_size),
        top1=forward.top1,
        top1_interval=forward.top1_interval,
        top1_shuffled=shuffled.top1,
    )


def with_latency(rows: list[DemoRow], runs: list[Run]) -> list[DemoRow]:
    """Add the latencies, of all networks in turn; none where other programs use the processor."""
    config, size = runs[0].recipe.model, runs[0].recipe.clip.crop_size
    clip = torch.zeros(1, config.num_frames, 3, size, size, dtype=torch.uint8)
    meter = CpuMeter()
    latencies = list(latency_ms({run.path.name: load_model(run) for run in runs}, clip, rounds=LATENCY_ROUNDS).values())
    load = meter.read()
    if load is not None and load.taken(torch.get_num_threads()) > BenchConfig.max_busy:
        return rows
    return [replace(row, latency_ratio=latency / latencies[0]) for row, latency in zip(rows, latencies, strict=True)]


def print_table(rows: list[DemoRow], console: Console) -> None:
    """Print the demo's table."""
    columns = ("model", "params", "mult-adds", "top-1", "95% interval", "shuffled", "latency")
    table = make_table(columns, title="The embedded data set: classes differ only in the order of the frames")
    for row in rows:
        table.add_row(
            row.model,
            short_count(row.params),
            short_count(row.multiply_adds),
            percent(row.top1),
            percent_range(row.top1_interval),
            percent(row.top1_shuffled),
            "-" if row.latency_ratio is None else decimal(row.latency_ratio, 2),
        )
    console.print(table)


def _write_strips(path: Path, dataset: VideoDataset) -> Path:
    """Write the sampled frames of some test videos, spread evenly over the classes, for the report."""
    # Records are sorted by class, so that equal steps reach all classes.
    chosen = np.linspace(0, len(dataset) - 1, NUM_STRIPS).round().astype(int)
    samples = [dataset[int(index)] for index in chosen]
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary,
            frames=np.stack([sample.clip.permute(0, 2, 3, 1).numpy() for sample in samples]),
            video_ids=np.array([dataset.records[int(index)].video_id for index in chosen]),
            labels=np.array([int(sample.target) for sample in samples]),
        )
    return path
