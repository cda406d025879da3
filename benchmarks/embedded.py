"""The paper's Tables 7, 8 and 9 on the embedded data set: one JSON for results/.

    python benchmarks/embedded.py WORK results/NAME.json [--seeds 0 1 2] [--only demo|last]

Trains every row with the demo's recipe (same data, epochs and seed; only the placement of the
temporal operations differs), tests it with its frames in order and shuffled, and writes the JSON
anew after each run, so that a stopped measurement continues where it was. --only demo takes TSN, TSM
and VSN alone; --only last one placement for each number of blocks (the last stages) instead of all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from vsn.cli import find_recipe
from vsn.config import STAGES, FrameOrder, ModelConfig, Recipe
from vsn.data.synthetic import SynthSpec, write_dataset
from vsn.engine.checkpoint import load_model, open_run, read_metrics, versions
from vsn.engine.evaluate import score_videos, test_dataset
from vsn.engine.scores import summarise
from vsn.engine.train import open_datasets, train
from vsn.files import write_json
from vsn.recipes import load_recipe


def rows(base: ModelConfig, *, only: str) -> dict[str, ModelConfig]:
    """Name of each measured row -> its model."""
    backbone = base.name.partition("_")[2]
    tsn, tsm, vsn = (replace(base, name=f"{prefix}_{backbone}") for prefix in ("tsn", "tsm", "vsn"))
    models = {"tsn": tsn, "tsm": tsm, "vsn": vsn}
    if only == "demo":
        return models
    models["vsn headtail"] = replace(vsn, block="headtail")
    models["shuffle res2+res3+res4+res5, no shift"] = replace(vsn, shift=False)
    for count in (1, 2, 3):
        placements = list(itertools.combinations(STAGES, count))
        for places in placements if only == "all" else placements[-1:]:
            models[f"shuffle {'+'.join(places)}, no shift"] = replace(vsn, places=places, shift=False)
    return models


def measure(
    name: str, model: ModelConfig, recipe: Recipe, work: Path, datasets: Any, test: Any
) -> dict[str, Any]:
    """Train one row, or take it from an earlier call, and test it."""
    path = work / "runs" / f"{name.replace(' ', '-').replace(',', '')}-seed{recipe.train.seed}"
    if not (path / "metrics.jsonl").is_file() or len(read_metrics(path)) < recipe.train.epochs:
        train(replace(recipe, model=model), path, resume=(path / "state.pt").is_file(), datasets=datasets)
    network = load_model(open_run(path))
    result: dict[str, Any] = {"row": name, "seed": recipe.train.seed}
    orders: tuple[FrameOrder, ...] = ("forward", "shuffled")
    for order in orders:
        test.order = order
        summary = summarise(score_videos(network, test, batch_size=recipe.eval.batch_size))
        result[order] = {key: summary[key] for key in ("top1", "top1_interval", "num_videos")}
        if order == "forward":
            result["per_class"] = summary["per_class"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", choices=["demo", "last", "all"], default="all")
    arguments = parser.parse_args()
    done = json.loads(arguments.output.read_text())["rows"] if arguments.output.is_file() else []
    for seed in arguments.seeds:
        recipe = load_recipe(find_recipe("demo"))
        root = write_dataset(arguments.work / f"videos-seed{seed}", SynthSpec(seed=seed))
        recipe = replace(
            recipe, train=replace(recipe.train, seed=seed), data=replace(recipe.data, root=str(root))
        )
        datasets = open_datasets(recipe, Console())
        test = test_dataset(recipe, "test", recipe.eval, classes=datasets[0].classes)
        for name, model in rows(recipe.model, only=arguments.only).items():
            if any(row["row"] == name and row["seed"] == seed for row in done):
                continue
            done.append(measure(name, model, recipe, arguments.work, datasets, test))
            print(f"{name}, seed {seed}: {done[-1]['forward']['top1']:.1%}", flush=True)
            facts = {
                "command": "python benchmarks/embedded.py " + " ".join(sys.argv[3:]),
                "date": datetime.now(UTC).date().isoformat(),
                "versions": versions(),
                "recipe": replace(recipe, data=replace(recipe.data, root="")).to_dict(),
                "rows": done,
            }
            write_json(arguments.output, facts)


if __name__ == "__main__":
    main()
