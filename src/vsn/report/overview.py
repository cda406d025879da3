"""Describe in a few lines what a report is about: the data, what guessing would give, and each run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vsn.config import describe_model
from vsn.report.render import format_value, join_names, num_videos, percent
from vsn.report.results import Costs
from vsn.report.runs import ReportRun
from vsn.runs.folds import is_folds, load_folds
from vsn.runs.run import RunError
from vsn.runs.videos import read_videos
from vsn.system.numbers import counted


class RunFacts(NamedTuple):
    """What a run is, in one line, with the details of how it was trained and tested."""

    name: str
    model: str
    trained: str
    notes: tuple[str, ...] = ()


def data_facts(runs: Sequence[ReportRun]) -> list[tuple[str, str]]:
    """Return (term, text) about what all runs share: the data, and what guessing would give."""
    first = runs[0]
    sources = {(Path(run.recipe.data.root).name or run.recipe.data.root): None for run in runs if run.recipe.data.root}
    counts = [f"{len(first.classes):,} {'class' if len(first.classes) == 1 else 'classes'}", *_video_counts(first)]
    if tested := next((run.results["forward"] for run in runs if run.results), None):
        counts.append(f"tested on {tested.tested_videos}")
    facts = [("Data", ": ".join([*([join_names(list(sources))] if sources else []), ", ".join(counts)]))]
    if not any(run.is_multi_label for run in runs):
        facts.append(("Chance", f"{percent(1 / len(first.classes))} top-1, by guessing among {counts[0]}"))
    return facts


def _video_counts(run: ReportRun) -> list[str]:
    try:
        videos = read_videos(run.path)
    except RunError:  # a page about results does not need it
        videos = None
    listed = {"trained": videos["train"], "validated": videos["val"]} if videos else {}
    return [f"{word} on {num_videos(len(of_part))}" for word, of_part in listed.items() if of_part]


def run_facts(runs: Sequence[ReportRun], costs: Costs) -> list[RunFacts]:
    """Return one line for each run: its model, its cost, how and on what it was trained."""
    return [_of_run(run, costs) for run in runs]


def _of_run(run: ReportRun, costs: Costs) -> RunFacts:
    recipe, epochs = run.recipe, [line for line in run.metrics if "train_loss" in line]
    model = [f"{recipe.model.name}: {describe_model(recipe.model)}", f"{recipe.model.num_frames} frames"]
    if run.name in costs:
        parameters, operations = costs[run.name]
        model.append(f"{format_value(parameters, 'params')} parameters")
        model.append(f"{format_value(operations, 'multiply_adds')} multiply-adds")
    start = "from random weights" if recipe.model.weights == "none" else f"from {Path(recipe.model.weights).name}"
    trained = [start]
    if epochs:
        seconds = format_value(sum(float(line.get("seconds", 0)) for line in epochs), "seconds")
        of_all = "" if epochs[-1]["epoch"] >= recipe.train.epochs else f" of {recipe.train.epochs}"
        count = f"{epochs[-1]['epoch']:g}{of_all}"
        trained = [f"trained {start} for {count} {'epoch' if count == '1' else 'epochs'} in {seconds}"]
        device = run.versions.get("gpu", "None")
        trained[0] += f" on {device if device != 'None' else run.versions.get('processor', 'an unrecorded processor')}"
    elif is_folds(run.path):
        number = len(load_folds(run.path)["folds"])
        trained = [f"{number} runs trained {start} for {counted(recipe.train.epochs, 'epoch')} each, one per fold"]
    else:
        trained[0] += ", not trained yet"
    forward = run.results.get("forward")
    notes = []
    if run.weights == "best":
        notes.append("tested with its best weights, by validation")
    # Not in other lines: where it is not the recipe's.
    if forward is not None and not forward.is_own:
        notes.append(f"{forward.average} averaged, data in {forward.root}")
    return RunFacts(run.name, ", ".join(model), ", ".join(trained), tuple(notes))
