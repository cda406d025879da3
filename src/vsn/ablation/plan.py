"""What an ablation has to run, in which order, what of it is done, and how long the rest will take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from vsn.ablation.grid import Variant
from vsn.ablation.paper_tables import Table, TableNumber
from vsn.config import ConfigError, FrameOrder, Recipe
from vsn.runs.run import is_finished, read_metrics

_NO_INPUT = {"name", "num_classes", "block", "places", "dropout", "weights"}
"""Settings of a model that its data sets do not depend on, beside those that begin with "shift"."""


@dataclass(frozen=True)
class AblationSpec:
    """What to run: tables of the paper, a grid, or both, over some seeds."""

    tables: tuple[TableNumber, ...] = ()
    grid: Mapping[str, tuple[Any, ...]] | None = None
    """Full name of a setting -> its values; see `vsn.ablation.grid.parse_grid`."""
    backbones: tuple[str, ...] = ()
    """Beside the paper's ResNet-50 and ResNet-101; none: the recipe's own."""
    seeds: tuple[int, ...] = (0,)
    shuffled: bool = False
    """Test every run with its frames shuffled too."""

    def __post_init__(self) -> None:
        if not self.tables and not self.grid:
            raise ConfigError(
                "There is nothing to run: name tables of the paper (--tables 7 8 9), or settings and their values "
                "(--grid model.block=compact,headtail)."
            )
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"--seeds are {list(self.seeds)}; give at least one, each once and 0 or more.")

    @property
    def orders(self) -> tuple[FrameOrder, ...]:
        """The orders of the frames to test with."""
        return ("forward", "shuffled") if self.shuffled else ("forward",)


@dataclass(frozen=True)
class PlannedRun:
    """One training of an ablation."""

    variant: Variant
    recipe: Recipe
    """The variant's, with its seed and the folder of its data."""
    path: Path

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.recipe.train.seed


def plan_runs(tables: Sequence[Table], seeds: Sequence[int], out: Path) -> list[PlannedRun]:
    """The runs of tables, each once, seed by seed; those that can share data sets one after the other."""
    variants = {variant.name: variant for table in tables for row in table.rows for variant in row.variants}
    runs = []
    for seed in seeds:
        groups: dict[str, list[PlannedRun]] = {}
        for variant in variants.values():
            recipe = replace(variant.recipe, train=replace(variant.recipe.train, seed=seed))
            if made_here(recipe):
                recipe = replace(recipe, data=replace(recipe.data, root=str(out / f"videos-seed{seed}")))
            run = PlannedRun(variant, recipe, out / "runs" / f"{variant.name}-seed{seed}")
            groups.setdefault(data_key(recipe), []).append(run)
        runs += [run for group in groups.values() for run in group]
    return runs


def data_key(recipe: Recipe) -> str:
    """Equal for recipes that are trained on the same data sets: clips, labels, augmentation and order of samples."""
    settings = recipe.to_dict()
    model = {k: v for k, v in settings["model"].items() if k not in _NO_INPUT and not k.startswith("shift")}
    parts = [model, settings["train"]["seed"], *(settings[k] for k in ("clip", "data", "augment", "eval"))]
    return json.dumps(parts)


def made_here(recipe: Recipe) -> bool:
    """Whether the ablation makes the data itself: the embedded set, when no root is named."""
    return recipe.data.source == "synthetic" and not recipe.data.root


def is_done(run: PlannedRun, results: Sequence[Mapping[str, Any]], orders: Sequence[str]) -> bool:
    """Whether a run was trained, and tested with its frames in each of `orders`."""
    return any(
        (result["name"], result["seed"]) == (run.variant.name, run.seed) and set(orders) <= result.keys()
        for result in results
    )


def plan_states(
    runs: Sequence[PlannedRun], results: Sequence[Mapping[str, Any]], orders: Sequence[str]
) -> list[dict[str, Any]]:
    """What of each run is done, and an estimate of its seconds from the runs that are finished.

    Returns:
        For each run its name, seed, epochs, epochs_done, state ("done", "test": trained but not tested,
        "begun" or "to do"), and seconds_left, None while no run has finished.
    """
    states = []
    for run in runs:
        epochs = run.recipe.train.epochs
        done = sum("train_loss" in line for line in read_metrics(run.path))
        if is_done(run, results, orders):
            state, share = "done", 0.0
        elif is_finished(run.path):
            state, share = "test", 0.0
        else:
            state, share = "begun" if run.path.is_dir() else "to do", 1 - done / epochs
        whole = estimate_seconds(run, results)
        states.append(
            {
                "name": run.variant.name,
                "seed": run.seed,
                "state": state,
                "epochs": epochs,
                "epochs_done": epochs if state == "done" else done,
                "seconds_left": 0.0 if share == 0 else None if whole is None else share * whole,
            }
        )
    return states


def estimate_seconds(run: PlannedRun, results: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds of a whole run: the mean of the finished runs of the same model, else of all; None without any."""
    timed = [result for result in results if result.get("seconds")]
    alike = [result for result in timed if result["model"] == run.recipe.model.name] or timed
    return mean(result["seconds"] for result in alike) if alike else None


def describe_states(states: Sequence[Mapping[str, Any]]) -> str:
    """A line a run, then their sum."""
    lines = []
    for state in states:
        note = f" ({state['epochs_done']} of {state['epochs']} epochs done)" if state["state"] == "begun" else ""
        if state["seconds_left"]:
            note += f", about {state['seconds_left'] / 60:.1f} minutes"
        lines.append(f"{state['state']:<6} {state['name']}, seed {state['seed']}{note}")
    left = [state["seconds_left"] for state in states if state["state"] != "done"]
    time = "how long is known once a run has finished" if None in left else f"about {sum(left) / 3600:.1f} hours"
    lines.append(f"{len(states) - len(left)} of {len(states)} runs done, {len(left)} left: {time}.")
    return "\n".join(lines)
