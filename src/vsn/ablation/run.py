"""Run an ablation: train and test every recipe of the paper's tables, or of a grid, with several seeds.

The output folder has ``ablation.json``, written after each run, ``runs/<name>-seed<seed>/``, and for the embedded data
set ``videos-seed<seed>/``. The same call continues where it stopped; a call with more seeds or tables adds to them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console

from vsn.ablation.grid import changed_settings
from vsn.ablation.paper_tables import Table, figures_of, format_table, make_tables
from vsn.ablation.plan import AblationSpec, PlannedRun, RunState, data_key, plan_runs, run_states, uses_own_videos
from vsn.ablation.results import (
    FILE,
    Ablation,
    RunResult,
    TestOrder,
    check_same_videos,
    data_settings,
    load_ablation,
)
from vsn.config import ConfigError, Recipe
from vsn.config.recipes import recorded_recipe
from vsn.data.background import read_labeled
from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.data.open import open_datasets, split_to_test
from vsn.inference.evaluate import evaluate_run
from vsn.models import build_model
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.runs.checkpoint import load_model
from vsn.runs.metadata import versions
from vsn.runs.run import RESUMABLE_SETTINGS, Run, RunError, flat_settings
from vsn.runs.videos import hash_data
from vsn.scores.facts import hash_labels
from vsn.system.distributed import Distributed
from vsn.system.files import write_json
from vsn.system.lock import lock_folder
from vsn.system.numbers import percent
from vsn.system.terminal import print_line
from vsn.training.job import check_job
from vsn.training.train import train_or_reuse


def ablate(
    base: Recipe,
    spec: AblationSpec,
    out: Path,
    *,
    command: str = "",
    synth: SynthSpec | None = None,
    console: Console | None = None,
) -> Ablation:
    """Train and test the runs of an ablation that are not done; return the content of `ablation.json`.

    Under `torchrun` every process calls it; rank 0 writes and prints.

    Args:
        base: the settings that all runs share. The embedded data set without a root is written to ``out``, one
            for each seed; other data is the same for all seeds.
        spec: what to run.
        out: the folder.
        command: the command line, for the file.
        synth: replaces the default embedded data set; its seed is that of the run.
        console: where to print; default standard error.

    Raises:
        ConfigError, RunError, VideoError: checked before the first run as far as possible.
        LockError: another process writes into the folder.
        TrainingStopped: Ctrl-C, SIGTERM or a loss that is not finite. Finished runs are kept.
    """
    distributed = Distributed(base.train.device)
    console = (console or Console(stderr=True)) if distributed.is_rank0 else Console(quiet=True)
    with contextlib.ExitStack() as stack:
        # Another command, with other seeds say, would write its own `ablation.json` over this one.
        if distributed.is_rank0:
            stack.enter_context(lock_folder(out))
        # The file may have results of earlier calls: other tables, other seeds. They stay, and are not run again.
        ablation = distributed.broadcast_from_rank0(lambda: open_ablation(base, spec, out, command))
        all_tables, missing = _tables_of(ablation)
        if 5 not in spec.tables:  # an earlier call has the reason
            missing = ablation.get("missing", {}) | missing
        tables, _ = make_tables(base, spec.tables, spec.grid or {}, ablation["backbones"])
        runs = plan_runs(tables, spec.seeds, out)
        _check_runs(runs, missing, distributed)
        data_hashes = distributed.broadcast_from_rank0(lambda: _check_data(base, runs, ablation["runs"], out))
        # Stored flow may be missing, which only Table 5 needs: the others are still run.
        flow_only = _run_names(t for t in tables if t.key == "5") - _run_names(t for t in tables if t.key != "5")

        def save() -> None:
            _update_figures(ablation, all_tables, missing)
            if distributed.is_rank0:
                write_json(out / FILE, ablation)

        pending = [run for run in runs if not run.is_done(ablation["runs"], spec.orders)]
        for _, grouped in itertools.groupby(pending, key=lambda run: data_key(run.recipe)):
            first, *_ = group = list(grouped)
            if uses_own_videos(first.variant.recipe):
                spec_of_seed, root = replace(synth or SynthSpec(), seed=first.seed), first.recipe.data.root
                distributed.broadcast_from_rank0(functools.partial(write_dataset, root, spec_of_seed))
            problem = None
            try:
                datasets = open_datasets(first.recipe, console)
            except ValueError as error:
                problem = error
            # Flow may be missing on the disk of one machine only.
            if problem := next(filter(None, distributed.all_gather(problem)), None):
                if not {run.variant.name for run in group} <= flow_only:
                    raise problem
                missing["5"] = str(problem)
                print_line(console, f"Skipped {', '.join(run.path.name for run in group)}: {problem}")
                continue
            for run in group:
                print_line(console, f"[{1 + runs.index(run)}/{len(runs)}] {run.variant.name}, seed {run.seed}")
                trained = train_or_reuse(run.recipe, run.path, datasets=datasets, console=console, command="vsn ablate")
                # Rank 0 wrote the run folder; the broadcast is also a barrier.
                result = distributed.broadcast_from_rank0(functools.partial(_describe_run, base, run, trained))
                if data_hash := data_hashes.get(data_settings(result["settings"])):
                    result["data_hash"] = data_hash
                _test(run, result, spec.orders, progress=distributed.is_rank0)
                # Replace a result that was tested with fewer orders of the frames.
                ablation["runs"] = [
                    r for r in ablation["runs"] if (r["name"], r["seed"]) != (run.variant.name, run.seed)
                ]
                ablation["runs"].append(result)
                save()  # after every run: a kill loses at most the current one, which resumes from its state
                print_line(console, f"top-1 {percent(result['forward']['top1'])}")
            del datasets  # free the decoded videos before decoding those of the next group
        save()
        return ablation


def plan_ablation(base: Recipe, spec: AblationSpec, out: Path) -> tuple[list[RunState], dict[str, str]]:
    """Return the state of every run that `ablate` would do, and the reason by key for tables that cannot be run.

    Raises:
        ConfigError, RunError: `ablate` would refuse the settings or the folder.
    """
    ablation = open_ablation(base, spec, out)
    tables, missing = make_tables(base, spec.tables, spec.grid or {}, ablation["backbones"])
    runs = plan_runs(tables, spec.seeds, out)
    _check_runs(runs, missing, Distributed(base.train.device))
    _check_data(base, runs, ablation["runs"], out)
    return run_states(runs, ablation["runs"], spec.orders), missing


def open_ablation(base: Recipe, spec: AblationSpec, out: Path, command: str = "") -> Ablation:
    """Return what `ablation.json` has, with the tables, grid and seeds of ``spec`` added; nothing is written.

    Raises:
        RunError: the folder has an ablation of another recipe, or an unreadable file.
    """
    ablation: Ablation = {
        "commands": [], "date": "", "versions": {}, "recipe": {}, "tables": [], "grid": {}, "backbones": [], "seeds": [],
        "runs": [], "missing": {}, "figures": {},
    }  # fmt: skip
    if (out / FILE).is_file():
        ablation = load_ablation(out / FILE)
        stored = recorded_recipe(ablation["recipe"], str(out / FILE))
        # Rows of one table must share every setting that affects results; the seed is that of each run.
        # The place of the data too where it names a row: of a grid of data sets.
        kept = RESUMABLE_SETTINGS - {*ablation["grid"], *(spec.grid or {})} | {"train.seed"}
        if changed := [key for key in changed_settings(stored, base) if key not in kept]:
            key = changed[0]
            raise RunError(
                f"{out} has an ablation of another recipe: {key} was {flat_settings(stored)[key]!r} and is "
                f"{flat_settings(base)[key]!r} now. Choose another folder with --out."
            )
    # A union of what was run before and what is asked for now; `dict.fromkeys` keeps the order.
    commands = [*ablation["commands"], *([command] if command else [])]
    ablation["commands"] = list(dict.fromkeys(commands))
    ablation["date"] = datetime.now(UTC).date().isoformat()
    ablation["versions"] = versions()
    ablation["recipe"] = base.to_dict()
    ablation["tables"] = sorted({*ablation["tables"], *spec.tables})
    ablation["grid"] = {key: list(values) for key, values in (spec.grid or ablation["grid"]).items()}
    ablation["backbones"] = list(spec.backbones or ablation["backbones"])
    ablation["seeds"] = sorted({*ablation["seeds"], *spec.seeds})
    return ablation


def merge_ablations(folders: Sequence[Path], out: Path) -> Ablation:
    """Merge the seeds, tables or grid values that several machines ran of one ablation into `out / ablation.json`.

    Of a run that several folders have, the first counts. The run folders are not copied.

    Raises:
        RunError: a folder has no `ablation.json`, or one of another recipe, with a grid of other settings, or tested on
            other videos; or ``out`` has one.
    """
    if (out / FILE).exists():
        raise RunError(f"{out / FILE} exists; choose another folder with --out.")
    merged, *others = (load_ablation(folder / FILE) for folder in folders)
    base, with_grid = recorded_recipe(merged["recipe"]), folders[0]
    for folder, other in zip(folders[1:], others, strict=True):
        recipe = recorded_recipe(other["recipe"], str(folder / FILE))
        kept = RESUMABLE_SETTINGS - {*merged["grid"], *other["grid"]} | {"train.seed"}
        differing = set(changed_settings(recipe, base)) - kept
        differing |= {"backbones"} if other["backbones"] != merged["backbones"] else set()
        if other["grid"] and not merged["grid"]:
            merged["grid"], with_grid = {key: [] for key in other["grid"]}, folder
        different_grid = other["grid"] and list(other["grid"]) != list(merged["grid"])
        if differing or different_grid:
            first, what = (folders[0], sorted(differing)) if differing else (with_grid, ["grid"])
            raise RunError(
                f"{folder} and {first} differ in {', '.join(what)}; only parts of one ablation can be merged."
            )
        # Two grids must have the same settings. Their values may differ: they become rows of one table.
        for key, values in merged["grid"].items():
            values += [value for value in other["grid"].get(key, []) if value not in values]
        check_same_videos([*merged["runs"], *other["runs"]])
        known = {(run["name"], run["seed"]) for run in merged["runs"]}
        merged["runs"] += [run for run in other["runs"] if (run["name"], run["seed"]) not in known]
        merged["commands"] = list(dict.fromkeys([*merged["commands"], *other["commands"]]))
        merged["tables"] = sorted({*merged["tables"], *other["tables"]})
        merged["seeds"] = sorted({*merged["seeds"], *other["seeds"]})
    _update_figures(merged, *_tables_of(merged))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FILE, merged)
    return merged


def format_tables(ablation: Ablation) -> str:
    """Format all tables as Markdown, then the tables that are missing."""
    tables, _ = _tables_of(ablation)
    recipe, seeds = recorded_recipe(ablation["recipe"]), ablation["seeds"]
    source = "the embedded data set" if recipe.data.source == "synthetic" else recipe.data.root or recipe.data.source
    data = [source]
    if ablation["runs"]:
        counts = sorted({run["forward"]["num_videos"] for run in ablation["runs"]})
        number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        data.append(f"{number} videos of split {ablation['runs'][0]['forward']['split']}")
    parts = []
    for table in tables:
        facts = ", ".join([*data, *_facts_of(table), f"seeds {', '.join(map(str, seeds))}"])
        parts.append(format_table(table, ablation["runs"], len(seeds), facts))
    parts += [f"Table {key} is missing: {reason}" for key, reason in ablation.get("missing", {}).items()]
    return "\n\n".join(parts)


def _facts_of(table: Table) -> list[str]:
    """Return how the rows of a table were trained and tested, with all values of what differs between them."""
    recipes = [variant.recipe for row in table.rows for variant in row.variants]

    def values(of: Callable[[Recipe], object]) -> str:
        return " or ".join(dict.fromkeys(str(of(recipe)) for recipe in recipes))

    return [
        f"protocol {values(lambda recipe: recipe.eval.protocol)}",
        values(lambda recipe: recipe.model.backbone or recipe.model.name),
        f"T = {values(lambda recipe: recipe.model.num_frames)}",
        f"{values(lambda recipe: recipe.train.epochs)} epochs",
    ]


def _tables_of(ablation: Ablation) -> tuple[list[Table], dict[str, str]]:
    # JSON has lists where settings have tuples.
    grid = {
        key: [tuple(value) if isinstance(value, list) else value for value in values]
        for key, values in ablation["grid"].items()
    }
    return make_tables(recorded_recipe(ablation["recipe"]), ablation["tables"], grid, ablation["backbones"])


def _update_figures(ablation: Ablation, tables: Sequence[Table], missing: Mapping[str, str]) -> None:
    """Compute the figures of the tables from the runs so far."""
    ablation["missing"], ablation["figures"] = dict(missing), {}
    for table in tables:
        ablation["figures"][table.key] = [
            {
                "labels": list(row.labels),
                "paper": {"kinetics": row.paper[0], "something-v1": row.paper[1]} if row.paper else None,
                "ours": asdict(ours) if (ours := figures_of(row, ablation["runs"], len(ablation["seeds"]))) else None,
            }
            for row in table.rows
        ]


def _check_runs(runs: Sequence[PlannedRun], missing: Mapping[str, str], distributed: Distributed) -> None:
    """Refuse recipes that cannot be built or trained here before the first run, not after many hours."""
    if not runs:
        raise ConfigError(f"There is nothing to run. {' '.join(missing.values())}")
    # Seeds change nothing that is checked: one run per recipe is enough.
    for run in {run.variant.name: run for run in runs}.values():
        check_job(run.recipe, distributed)
        with torch.device("meta"):  # checks shapes without memory for weights
            build_model(replace(run.recipe.model, num_classes=run.recipe.model.num_classes or 1))


def _check_data(base: Recipe, runs: Sequence[PlannedRun], results: Sequence[RunResult], out: Path) -> dict[str, str]:
    """Refuse test videos without labels, and others than those of the results that are there, before the first run.

    Returns:
        `RunResult.data_hash` by `data_settings`.

    Raises:
        ConfigError, RunError: see above; or the data cannot be read.
    """
    trained_on = {data_settings(one["settings"]): one["data_hash"] for one in results if one.get("data_hash")}
    data_hashes: dict[str, str] = {}
    hashes = {data_settings(one["settings"]): one["forward"] for one in results if one["forward"].get("videos_hash")}
    checked: set[str] = set()
    for run in runs:
        config, key = run.recipe.data, data_settings(changed_settings(base, run.variant.recipe))
        if key in checked or uses_own_videos(run.variant.recipe):
            continue
        checked.add(key)
        split = split_to_test(run.recipe)
        records = read_labeled(config, split)
        names = {r.video_id: [records.classes[label] for label in r.labels] for r in records.records}
        if unlabeled := [name for name, of_video in names.items() if not (of_video or records.multi_label)]:
            raise ConfigError(
                f"{config.root}: {len(unlabeled)} of {len(names)} videos of the split {split!r} have no label, for example "
                f"{unlabeled[0]!r}; every run is tested on it. Set data.test_split to a split with labels, such as "
                f"{config.val_split!r}."
            )
        before = hashes.get(key)
        if before is not None and before["videos_hash"] != hash_labels(names):
            raise RunError(
                f"{out} has runs that were tested on {before['num_videos']} videos of {before.get('root')}; the split "
                f"{split!r} of {config.root} has {len(names)}, with other names or labels. Restore the data, or choose "
                "another folder with --out."
            )
        others = (read_labeled(config, name) for name in (config.train_split, config.val_split))
        data_hashes[key] = hash_data(*others, records)
        if trained_on.get(key, data_hashes[key]) != data_hashes[key]:
            raise RunError(
                f"{out} has runs that were trained or tested on other videos, labels or files than {config.root} has now. "
                "Restore the data, or choose another folder with --out."
            )
    return data_hashes


def _test(planned: PlannedRun, result: RunResult, orders: Sequence[TestOrder], *, progress: bool) -> None:
    """Test a run with its frames in each order, and add the tests to its result."""
    recipe = planned.recipe
    for order in orders:
        config = replace(recipe.eval, order=order)
        tested = evaluate_run(planned.path, config=config, root=recipe.data.root, progress=progress)
        result["seconds"] += tested["seconds"]
        # Accuracies per class are kept for one order only: they are most of the file.
        left_out = {"order", "weights", "seconds"} | ({"per_class"} if order == "shuffled" else set())
        result[order] = {key: value for key, value in tested.items() if key not in left_out}


def _describe_run(base: Recipe, planned: PlannedRun, run: Run) -> RunResult:
    """Return the settings, costs and hardware of a trained run, without the tests."""
    hardware = json.loads((run.path / "versions.json").read_text(encoding="utf-8"))
    summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    return {
        "name": planned.variant.name,
        "seed": planned.seed,
        "settings": changed_settings(base, planned.variant.recipe),
        "model": planned.recipe.model.name,
        "parameters": count_parameters(load_model(run)),
        "multiply_adds": count_multiply_adds(run.recipe.model, size=planned.recipe.clip.crop_size),
        "epochs": summary["epoch"],
        "seconds": summary["seconds"],
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": {key: hardware.get(key) for key in ("torch", "processor", "gpu", "num_threads")},
        "forward": {},
    }


def _run_names(tables: Iterable[Table]) -> set[str]:
    return {variant.name for table in tables for row in table.rows for variant in row.variants}
