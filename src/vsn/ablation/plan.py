"""Plan the runs of an ablation: their order, which are done, and how long the rest takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from vsn.ablation.grid import Variant
from vsn.ablation.paper_tables import Table, TableNumber
from vsn.ablation.results import RunResult, TestOrder
from vsn.config import ConfigError, Recipe
from vsn.runs.run import is_finished, read_metrics

_NOT_INPUT = {"name", "num_classes", "block", "places", "dropout", "weights"}
"""Model settings that do not change the clips of a data set; neither do those that begin with "shift"."""


@dataclass(frozen=True)
class AblationSpec:
    """What to run: tables of the paper, a grid, or both, each with every seed."""

    tables: tuple[TableNumber, ...] = ()
    grid: Mapping[str, tuple[Any, ...]] | None = None
    """Full name of a setting -> its values; see `vsn.ablation.grid.parse_grid`."""
    backbones: tuple[str, ...] = ()
    """At most two, compared with the paper's ResNet-50 and ResNet-101; default the recipe's own."""
    seeds: tuple[int, ...] = (0,)
    shuffled: bool = False
    """Test every run also with its frames in random order."""

    def __post_init__(self) -> None:
        if not self.tables and not self.grid:
            raise ConfigError(
                "There is nothing to run: pass tables of the paper (--tables 7 8 9), or settings and their values "
                "(--grid model.block=compact,headtail)."
            )
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"--seeds must be one or more different numbers from 0, got {list(self.seeds)}.")

    @property
    def orders(self) -> tuple[TestOrder, ...]:
        """Orders of the frames to test with."""
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

    def is_done(self, results: Sequence[RunResult], orders: Sequence[TestOrder]) -> bool:
        """Return whether the results have this run, tested with each of ``orders``."""
        key = (self.variant.name, self.seed)
        return any((result["name"], result["seed"]) == key and set(orders) <= result.keys() for result in results)

    def estimate_seconds(self, results: Sequence[RunResult]) -> float | None:
        """Return the mean time of the finished runs of the same model, else of all; None without any."""
        timed = [result for result in results if result.get("seconds")]
        # Models differ in speed, so that another model's time is only a fallback.
        same_model = [result for result in timed if result["model"] == self.recipe.model.name]
        return mean(result["seconds"] for result in same_model or timed) if timed else None


def plan_runs(tables: Sequence[Table], seeds: Sequence[int], out: Path) -> list[PlannedRun]:
    """Return the runs of tables without repetitions, seed by seed; runs that share data sets are adjacent."""
    # Tables overlap (19 recipes for Tables 7, 8 and 9 together): equal names are equal recipes and one run.
    variants = {variant.name: variant for table in tables for row in table.rows for variant in row.variants}
    runs = []
    for seed in seeds:
        # The seed is the outer loop, so that an ablation that stops early has complete tables of some seeds.
        groups: dict[str, list[PlannedRun]] = {}
        for variant in variants.values():
            recipe = replace(variant.recipe, train=replace(variant.recipe.train, seed=seed))
            if uses_own_videos(recipe):
                recipe = replace(recipe, data=replace(recipe.data, root=str(out / f"videos-seed{seed}")))
            run = PlannedRun(variant, recipe, out / "runs" / f"{variant.name}-seed{seed}")
            groups.setdefault(data_key(recipe), []).append(run)
        runs += [run for group in groups.values() for run in group]
    return runs


def data_key(recipe: Recipe) -> str:
    """Return a key that is equal for recipes with the same clips, labels, augmentation and order of samples."""
    settings = recipe.to_dict()
    # num_frames, the modality and the extra input change the clips, the blocks do not. Validation follows `eval`.
    model = {k: v for k, v in settings["model"].items() if k not in _NOT_INPUT and not k.startswith("shift")}
    parts = [
        model,
        recipe.model.extra_input,
        settings["train"]["seed"],
        *(settings[k] for k in ("clip", "data", "augment", "eval")),
    ]
    return json.dumps(parts)


def uses_own_videos(recipe: Recipe) -> bool:
    """Return whether the ablation writes the videos itself: the embedded data set without a root."""
    return recipe.data.source == "synthetic" and not recipe.data.root


@dataclass(frozen=True)
class RunState:
    """How far a run is, as `vsn ablate --dry-run --json` prints it."""

    name: str
    seed: int
    state: Literal["done", "test", "begun", "to do"]
    """"test": trained but not tested."""
    epochs: int
    epochs_done: int
    seconds_left: float | None
    """None while no run has finished."""


def run_states(runs: Sequence[PlannedRun], results: Sequence[RunResult], orders: Sequence[TestOrder]) -> list[RunState]:
    """Return the state of each run, and the time it still takes as estimated from the finished ones."""
    states = []
    for run in runs:
        epochs = run.recipe.train.epochs
        # Lines without a training loss are validations within an epoch.
        epochs_done = sum("train_loss" in line for line in read_metrics(run.path))
        seconds = run.estimate_seconds(results)
        left = None if seconds is None else (1 - epochs_done / epochs) * seconds
        state: Literal["done", "test", "begun", "to do"] = "begun" if run.path.is_dir() else "to do"
        if run.is_done(results, orders):
            # The result counts: the run folder may be deleted after the test.
            state, epochs_done, left = "done", epochs, 0.0
        elif is_finished(run.path):
            state, left = "test", 0.0
        states.append(RunState(run.variant.name, run.seed, state, epochs, epochs_done, left))
    return states


def describe_states(states: Sequence[RunState]) -> str:
    """Format one line per run, then their sum."""
    lines = []
    for run in states:
        note = f" ({run.epochs_done} of {run.epochs} epochs done)" if run.state == "begun" else ""
        if run.seconds_left:
            note += f", about {run.seconds_left / 60:.1f} minutes"
        lines.append(f"{run.state:<6} {run.name}, seed {run.seed}{note}")
    left = [run.seconds_left for run in states if run.state != "done"]
    known = [seconds for seconds in left if seconds is not None]
    time = (
        f"about {sum(known) / 3600:.1f} hours" if len(known) == len(left) else "time unknown until a run has finished"
    )
    lines.append(f"{len(states) - len(left)} of {len(states)} runs done, {len(left)} left: {time}.")
    return "\n".join(lines)
