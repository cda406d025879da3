"""`vsn demo`: the paper's claim on the embedded data set, in minutes, with a page to look at."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vsn.config import FrameOrder, Recipe
from vsn.data.dataset import VideoDataset
from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.data.open import open_datasets, open_split
from vsn.inference.evaluate import score_videos
from vsn.models.measure import count_multiply_adds, count_parameters, latency_ms
from vsn.report import read_runs, write_page
from vsn.report.illustrate import best_and_worst
from vsn.runs.checkpoint import load_model
from vsn.runs.metadata import versions
from vsn.runs.results import EvalResult
from vsn.runs.run import Run, check_resumable, is_finished, open_run, weights_hash
from vsn.system.files import atomic_write, write_json
from vsn.training.train import TrainingStopped, train

NAMES = ("tsn", "tsm", "vsn")
NUM_STRIPS = 12
QUICK_GROUPS = ("horizontal", "vertical", "appear")
"""What is learned first."""


def run_demo(
    out: Path,
    recipe: Recipe,
    *,
    quick: bool = False,
    seed: int = 0,
    spec: SynthSpec | None = None,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Make the embedded data set, train TSN, TSM and VSN on it, compare them, write report.html.

    Args:
        out: folder for ``videos/``, ``runs/{tsn,tsm,vsn}``, ``table.json`` and ``report.html``. An
            interrupted demo continues there; what is finished is kept.
        recipe: settings of all three; only the model's name differs.
        quick: fewer groups of classes, videos and epochs.
        seed: of the data set and of the training.
        spec: the data set, instead of the usual or the quick one.
        console: where to report; default standard output.

    Returns:
        The rows of the table: model, params, multiply_adds, top1 (with its interval),
        top1_shuffled, latency_ratio (to TSN, side by side).
    """
    console = console or Console()
    started = time.perf_counter()
    usual = SynthSpec(seed=seed)
    if quick:
        usual = replace(usual, groups=QUICK_GROUPS, num_train_per_class=35, num_val_per_class=5)
        recipe = replace(recipe, train=replace(recipe.train, epochs=6))
    recipe = replace(
        recipe,
        train=replace(recipe.train, seed=seed),
        data=replace(recipe.data, root=str(write_dataset(out / "videos", spec or usual))),
    )
    datasets = open_datasets(recipe, console)
    try:
        runs = [_trained(out / "runs" / name, name, recipe, datasets, console) for name in NAMES]
    except TrainingStopped as stopped:
        if not stopped.place:
            raise
        # Resuming one of the three runs with `vsn train` would leave out the comparison.
        raise TrainingStopped(
            f"Stopped in {stopped.place}; the same `vsn demo` command with the same --out continues from there",
            place=stopped.place,
        ) from None
    rows = compare(runs, console)
    seconds = time.perf_counter() - started
    facts = {
        "quick": quick,
        "seed": seed,
        "seconds": seconds,
        "date": date.today().isoformat(),
        "versions": versions(),
    }
    write_json(out / "table.json", {"columns": list(rows[0]), "rows": rows, **facts})
    strips = _write_strips(out / "strips.npz", open_split(recipe, "test", classes=runs[0].classes))
    tested = read_runs([run.path for run in runs], recipe.data.test_split)
    page = write_page(
        tested,
        out / "report.html",
        title="Video shuffle on videos that differ only in the order of their frames",
        table=out / "table.json",
        strips=strips,
        examples=best_and_worst(tested, num_videos=2, stage="res4", device=recipe.train.device),
    )
    print_table(rows, console)
    console.print(f"{seconds / 60:.1f} minutes. Look at {page}", highlight=False)
    return rows


def compare(runs: list[Run], console: Console) -> list[dict[str, Any]]:
    """Test runs with their frames in order and shuffled, and measure what they cost."""
    models = {run.recipe.model.name: load_model(run) for run in runs}
    recipe = runs[0].recipe
    dataset = open_split(recipe, recipe.data.test_split, classes=runs[0].classes)
    clip = torch.zeros(1, recipe.model.num_frames, 3, recipe.clip.crop_size, recipe.clip.crop_size, dtype=torch.uint8)
    latency = latency_ms(models, clip)
    first = next(iter(latency.values()))
    rows = []
    for run in runs:
        model = models[run.recipe.model.name]
        results: dict[FrameOrder, EvalResult] = {}
        orders: tuple[FrameOrder, ...] = ("forward", "shuffled")
        for order in orders:
            dataset.order = order
            scores = score_videos(model, dataset, batch_size=recipe.eval.batch_size)
            result = EvalResult.measure(
                scores,
                split=recipe.data.test_split,
                protocol=recipe.eval.protocol,
                order=order,
                weights_hash=weights_hash(run),
            )
            results[order] = result.save(run.path, scores)
        rows.append(
            {
                "model": run.path.name.upper(),
                "params": count_parameters(model),
                "multiply_adds": count_multiply_adds(run.recipe.model, size=recipe.clip.crop_size),
                "top1": results["forward"].top1,
                "top1_interval": results["forward"].top1_interval,
                "top1_shuffled": results["shuffled"].top1,
                "latency_ratio": latency[run.recipe.model.name] / first,
            }
        )
    return rows


def print_table(rows: list[dict[str, Any]], console: Console) -> None:
    """The demo's table on the terminal."""
    table = Table(title="The embedded data set: only the order of frames tells its classes apart")
    for column in ("model", "params", "mult-adds", "top-1", "95% interval", "shuffled", "latency"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        low, high = row["top1_interval"]
        table.add_row(
            row["model"],
            f"{row['params'] / 1e6:.2f}M",
            f"{row['multiply_adds'] / 1e6:.0f}M",
            f"{row['top1']:.1%}",
            f"{low:.1%}-{high:.1%}",
            f"{row['top1_shuffled']:.1%}",
            f"{row['latency_ratio']:.2f}",
        )
    console.print(table)
    console.print("shuffled: top-1 with the frames in random order. latency: of one clip, as a multiple of TSN's.")


def _trained(
    path: Path, name: str, recipe: Recipe, datasets: tuple[VideoDataset, VideoDataset], console: Console
) -> Run:
    """The run at ``path``, trained now, continued, or finished before with the same settings."""
    backbone = recipe.model.backbone
    recipe = replace(recipe, model=replace(recipe.model, name=f"{name}_{backbone}"))
    console.print(f"[bold]{name.upper()}[/bold] ({recipe.model.name})")
    if not (path / "state.pt").is_file():
        return train(recipe, path, console=console, datasets=datasets)
    run = open_run(path)
    check_resumable(run, recipe, datasets[0].classes)
    if is_finished(path):
        return run
    return train(recipe, path, resume=True, console=console, datasets=datasets)


def _write_strips(path: Path, dataset: VideoDataset) -> Path:
    """Sampled frames of some test videos, spread evenly over the classes, for the report."""
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
