"""An ablation: every recipe of the paper's tables, or of a grid, trained with several seeds and tested; one JSON.

The folder holds ``ablation.json``, written anew after each run, ``runs/<name>-seed<seed>/``, and for the
embedded data set ``videos-seed<seed>/``. The same call goes on where it stopped; another call on the same
folder, with more seeds or tables, adds to it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vsn.ablation.grid import settings_that_differ
from vsn.ablation.paper_tables import Table, figures_of, format_table, make_tables
from vsn.ablation.plan import (
    AblationSpec,
    PlannedRun,
    data_key,
    is_done,
    made_here,
    plan_runs,
    plan_states,
)
from vsn.config import ConfigError, FrameOrder, Recipe
from vsn.config.recipes import recipe_from_dict
from vsn.data.dataset import VideoDataset
from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.data.open import open_datasets
from vsn.inference.evaluate import evaluate_run
from vsn.models import build_model
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.runs.checkpoint import load_model
from vsn.runs.metadata import versions
from vsn.runs.run import RESUMABLE_SETTINGS, Run, RunError, check_resumable, is_finished, open_run
from vsn.system.distributed import Distributed
from vsn.system.files import write_json
from vsn.training.job import check_job
from vsn.training.train import TrainingStopped, train

FILE = "ablation.json"


def ablate(
    base: Recipe,
    spec: AblationSpec,
    out: Path,
    *,
    command: str = "",
    synth: SynthSpec | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train and test what is not yet done of an ablation; return what `ablation.json` then holds.

    Under `torchrun` every process calls it; the first one writes and talks.

    Args:
        base: the settings all runs share. The embedded data set without a root is made in ``out``, one
            for each seed; any other data is the same for all seeds.
        spec: what to run.
        out: the folder.
        command: what was typed, for the file.
        synth: the embedded data set, instead of the usual one; its seed is that of the run.
        console: where to report; default standard error.

    Raises:
        ConfigError, RunError, VideoError: what is wrong and what to do; most of it before any run begins.
        TrainingStopped: Ctrl-C, SIGTERM or a loss that is not finite. Finished runs are kept.
    """
    distributed = Distributed(base.train.device)
    console = (console or Console(stderr=True)) if distributed.is_rank0 else Console(quiet=True)
    facts = distributed.broadcast_from_rank0(lambda: start_facts(base, spec, out, command))
    tables, missing = _tables_of(facts)
    if 5 not in spec.tables:  # why it was left out of an earlier call
        missing = facts.get("missing", {}) | missing
    asked, _ = make_tables(base, spec.tables, spec.grid or {}, facts["backbones"])
    runs = plan_runs(asked, spec.seeds, out)
    _check_plan(runs, missing, distributed)
    only_flow = _names(asked, {"5"}) - _names(asked, {table.key for table in asked} - {"5"})
    opened: tuple[str, tuple[VideoDataset, VideoDataset] | None] = ("", None)
    for number, run in enumerate(runs, 1):
        if is_done(run, facts["runs"], spec.orders):
            continue
        console.print(f"[{number}/{len(runs)}] {run.variant.name}, seed {run.seed}", markup=False, highlight=False)
        if opened[0] != data_key(run.recipe):
            opened = ("", None)  # what is in memory goes before the next comes
            try:
                opened = (data_key(run.recipe), _open(run, synth, distributed, console))
            except ValueError as error:
                if run.variant.name not in only_flow:
                    raise
                missing["5"] = str(error)
                opened = (data_key(run.recipe), None)
        if opened[1] is None:
            console.print(f"left out: {missing['5']}", markup=False, highlight=False, soft_wrap=True)
            continue
        result = _measure(base, run, spec.orders, opened[1], distributed, console)
        facts["runs"] = [r for r in facts["runs"] if (r["name"], r["seed"]) != (run.variant.name, run.seed)]
        facts["runs"].append(result)
        _finish_facts(facts, tables, missing)
        if distributed.is_rank0:
            write_json(out / FILE, facts)
        console.print(f"top-1 {result['forward']['top1']:.1%}", highlight=False)
    _finish_facts(facts, tables, missing)
    if distributed.is_rank0:
        write_json(out / FILE, facts)
    return facts


def plan_ablation(base: Recipe, spec: AblationSpec, out: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What `ablate` would do: the state of every run (see `plan_states`), and tables that cannot be made.

    Raises:
        ConfigError, RunError: what `ablate` would refuse of the settings and the folder.
    """
    facts = start_facts(base, spec, out)
    tables, missing = make_tables(base, spec.tables, spec.grid or {}, facts["backbones"])
    runs = plan_runs(tables, spec.seeds, out)
    _check_plan(runs, missing, Distributed(base.train.device))
    return plan_states(runs, facts["runs"], spec.orders), missing


def start_facts(base: Recipe, spec: AblationSpec, out: Path, command: str = "") -> dict[str, Any]:
    """The facts of an ablation before its next run: what its file holds, and what is asked for on top.

    Raises:
        RunError: the folder holds an ablation of another recipe, or something that is none.
    """
    facts: dict[str, Any] = {
        "commands": [],
        "tables": [],
        "grid": {},
        "backbones": [],
        "seeds": [],
        "runs": [],
    }
    if (out / FILE).is_file():
        facts = load_ablation(out / FILE)
        former, now = recipe_from_dict(facts["recipe"], str(out / FILE)), base
        differing = [key for key in settings_that_differ(former, now) if key not in RESUMABLE_SETTINGS | {"train.seed"}]
        if differing:
            table, _, key = differing[0].partition(".")
            was, is_now = (getattr(getattr(recipe, table), key) for recipe in (former, now))
            raise RunError(
                f"{out} holds an ablation of another recipe: {differing[0]} was {was!r} and is {is_now!r} now. "
                "Runs are compared under the same settings; choose another folder with --out."
            )
    facts |= {
        "commands": list(dict.fromkeys([*facts["commands"], *([command] if command else [])])),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "recipe": base.to_dict(),
        "tables": sorted({*facts["tables"], *spec.tables}),
        "grid": {key: list(values) for key, values in (spec.grid or facts["grid"]).items()},
        "backbones": list(spec.backbones or facts["backbones"]),
        "seeds": sorted({*facts["seeds"], *spec.seeds}),
    }
    return facts


def load_ablation(path: Path) -> dict[str, Any]:
    """Read an `ablation.json`. Raises `RunError` when it is none."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        absent = {"recipe", "tables", "grid", "backbones", "seeds", "runs", "commands"} - facts.keys()
    except FileNotFoundError as error:
        raise RunError(f"{path} is not there; `vsn ablate RECIPE --out DIR` writes DIR/{FILE}.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise RunError(f"{path} is not the {FILE} of an ablation: {error}.") from error
    if absent:
        raise RunError(f"{path} is not the {FILE} of an ablation: it has no {', '.join(sorted(absent))}.")
    return facts


def merge_ablations(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Join what several machines trained of one ablation, its seeds, tables or values of its grid, in `out / ablation.json`.

    Of a run that several folders hold, that of the first named counts. The runs' own folders stay where they are.

    Raises:
        RunError: a folder without an `ablation.json`, of another recipe or other settings in its grid than the first, or
            `out` holds one.
    """
    if (out / FILE).exists():
        raise RunError(f"{out / FILE} is there already; choose another folder with --out.")
    first, *others = (load_ablation(folder / FILE) for folder in folders)
    base = recipe_from_dict(first["recipe"])
    facts = dict(first)
    for folder, other in zip(folders[1:], others, strict=True):
        recipe = recipe_from_dict(other["recipe"], str(folder / FILE))
        differing = set(settings_that_differ(recipe, base)) - RESUMABLE_SETTINGS - {"train.seed"}
        differing |= {"backbones"} if other["backbones"] != first["backbones"] else set()
        differing |= {"grid"} if list(other["grid"]) != list(first["grid"]) else set()
        if differing:
            raise RunError(
                f"{folder} and {folders[0]} differ in {', '.join(sorted(differing))}; only parts of one ablation can be "
                "joined."
            )
        facts["grid"] = {
            key: [*values, *(value for value in other["grid"][key] if value not in values)]
            for key, values in facts["grid"].items()
        }
        known = {(run["name"], run["seed"]) for run in facts["runs"]}
        facts["runs"] = facts["runs"] + [r for r in other["runs"] if (r["name"], r["seed"]) not in known]
        for key in ("commands", "tables", "seeds"):
            facts[key] = list(dict.fromkeys([*facts[key], *other[key]]))
    facts["tables"], facts["seeds"] = sorted(facts["tables"]), sorted(facts["seeds"])
    _finish_facts(facts, *_tables_of(facts))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FILE, facts)
    return facts


def format_tables(facts: Mapping[str, Any]) -> str:
    """All tables of an `ablation.json` as Markdown, and what is missing of them."""
    tables, _ = _tables_of(facts)
    about = _describe(recipe_from_dict(facts["recipe"]), facts)
    parts = [format_table(table, facts["runs"], len(facts["seeds"]), about) for table in tables]
    parts += [f"Table {key} is missing: {reason}" for key, reason in facts.get("missing", {}).items()]
    return "\n\n".join(parts)


def _tables_of(facts: Mapping[str, Any]) -> tuple[list[Table], dict[str, str]]:
    base = recipe_from_dict(facts["recipe"])
    grid = {
        key: tuple(tuple(value) if isinstance(value, list) else value for value in values)
        for key, values in facts["grid"].items()
    }
    return make_tables(base, facts["tables"], grid, facts["backbones"])


def _check_plan(runs: Sequence[PlannedRun], missing: Mapping[str, str], distributed: Distributed) -> None:
    """Refuse what cannot be built or trained here before the first of many hours."""
    if not runs:
        raise ConfigError(f"There is nothing to run. {' '.join(missing.values())}")
    for run in {run.variant.name: run for run in runs}.values():
        check_job(run.recipe, distributed)
        with torch.device("meta"):
            build_model(replace(run.recipe.model, num_classes=run.recipe.model.num_classes or 1))


def _open(
    run: PlannedRun, synth: SynthSpec | None, distributed: Distributed, console: Console
) -> tuple[VideoDataset, VideoDataset]:
    """The data sets that a run shares with those after it; the embedded ones are made first."""
    if made_here(run.variant.recipe):
        spec = replace(synth or SynthSpec(), seed=run.seed)
        distributed.broadcast_from_rank0(lambda: write_dataset(run.recipe.data.root, spec))
    return open_datasets(run.recipe, console)


def _measure(
    base: Recipe,
    planned: PlannedRun,
    orders: Sequence[FrameOrder],
    datasets: tuple[VideoDataset, VideoDataset],
    distributed: Distributed,
    console: Console,
) -> dict[str, Any]:
    """Train a run, continue it, or take it as it is; test it."""
    run = _train(planned, datasets, distributed, console)
    recipe = planned.recipe
    # The first process wrote the run: asking it is also waiting for it.
    result = distributed.broadcast_from_rank0(lambda: _describe_run(base, planned, run))
    for order in orders:
        config = replace(recipe.eval, order=order)
        tested = evaluate_run(run.path, config=config, root=recipe.data.root, progress=distributed.is_rank0)
        result["seconds"] += tested["seconds"]
        left_out = {"order", "weights", "seconds"} | (set() if order == "forward" else {"per_class"})
        result[order] = {key: value for key, value in tested.items() if key not in left_out}
    return result


def _describe_run(base: Recipe, planned: PlannedRun, run: Run) -> dict[str, Any]:
    """What a trained run was: its settings, its cost, when and on what it was trained."""
    hardware = json.loads((run.path / "versions.json").read_text(encoding="utf-8"))
    summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    return {
        "name": planned.variant.name,
        "seed": planned.seed,
        "settings": settings_that_differ(base, planned.variant.recipe),
        "model": planned.recipe.model.name,
        "parameters": count_parameters(load_model(run)),
        "multiply_adds": count_multiply_adds(run.recipe.model, size=planned.recipe.clip.crop_size),
        "epochs": summary["epoch"],
        "seconds": summary["seconds"],
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": {key: hardware.get(key) for key in ("torch", "processor", "gpu", "num_threads")},
    }


def _train(
    planned: PlannedRun, datasets: tuple[VideoDataset, VideoDataset], distributed: Distributed, console: Console
) -> Run:
    path, recipe = planned.path, planned.recipe
    # The first process looks, and all do the same.
    begun, finished = distributed.broadcast_from_rank0(lambda: (_has_begun(path), is_finished(path)))
    if finished:
        run = open_run(path)
        check_resumable(run, recipe, datasets[0].classes)
        return run
    try:
        return train(recipe, path, resume=begun, console=console, datasets=datasets)
    except TrainingStopped as stopped:
        if not stopped.place:
            raise
        place = f"{stopped.place} of {planned.variant.name}, seed {planned.seed}"
        raise TrainingStopped(
            f"Stopped in {place}; the same `vsn ablate` command with the same --out continues from there", place=place
        ) from None


def _has_begun(path: Path) -> bool:
    """Whether there is something to go on from; what was killed before it had any is cleared away."""
    begun = any((path / name).is_file() for name in ("state.pt", "state-before.pt"))
    if path.is_dir() and not begun and not is_finished(path):
        shutil.rmtree(path)
    return begun


def _finish_facts(facts: dict[str, Any], tables: Sequence[Table], missing: Mapping[str, str]) -> None:
    """Put the figures of the tables, as the runs so far give them, into the facts."""
    facts["missing"] = dict(missing)
    facts["figures"] = {
        table.key: [
            {
                "labels": list(row.labels),
                "paper": row.paper and {"kinetics": row.paper[0], "something-v1": row.paper[1]},
                "ours": (own := figures_of(row, facts["runs"], len(facts["seeds"]))) and asdict(own),
            }
            for row in table.rows
        ]
        for table in tables
    }


def _describe(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    """Data, network and seeds in a few words."""
    source = recipe.data.root or recipe.data.source
    if recipe.data.source == "synthetic":
        source = "the embedded data set"
    parts = [source, f"protocol {recipe.eval.protocol}"]
    if facts["runs"]:
        tested = facts["runs"][0]["forward"]
        parts.insert(1, f"{tested['num_videos']} videos of split {tested['split']}")
    parts += [recipe.model.backbone, f"T = {recipe.model.num_frames}"]
    parts += [f"{recipe.train.epochs} epochs", f"seeds {', '.join(map(str, facts['seeds']))}"]
    return ", ".join(parts)


def _names(tables: Sequence[Table], keys: set[str]) -> set[str]:
    """Names of the runs in the tables of these keys."""
    return {variant.name for table in tables if table.key in keys for row in table.rows for variant in row.variants}
