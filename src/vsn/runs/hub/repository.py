"""Write a run as a folder for the hub, without its private parts, and read such a folder back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from vsn.config import Recipe
from vsn.config.recipes import dump_recipe, with_recorded_settings
from vsn.data.processor import Processor
from vsn.models.weights_file import write_weights
from vsn.runs.checkpoint import load_weights
from vsn.runs.hub.card import write_card
from vsn.runs.results import BadVideoEntry, EvalResult, list_results
from vsn.runs.run import RunError, WeightsKind, open_run, weights_file, weights_hash
from vsn.system.files import file_sha256, write_json, write_text

FORMAT_VERSION = 1
CONFIG = "config.json"
_COPIED = ("classes.json", "versions.json", "metrics.jsonl", "summary.json", "converted.json")
FILES = [
    CONFIG, "README.md", "recipe.toml", "preprocessing.json", "model.safetensors", *_COPIED, "eval/*.json",
]  # fmt: skip
"""Patterns of the files of a repository; others in it are not downloaded."""


class HubError(ValueError):
    """A repository that cannot be downloaded or uploaded; the message says what to do."""


def write_repository(run_dir: Path, folder: Path, *, weights: WeightsKind, license: str | None, repo: str) -> None:
    """Write weights, settings, class names, results and model card of a run to a new folder.

    Private parts stay behind: paths of data and starting weights, the state for resuming, the scores of each video.
    """
    run = open_run(run_dir)
    if not weights_file(run, weights).is_file():
        raise RunError(f"{run_dir} has no {weights_file(run, weights).name}. Train it, or name its other weights.")
    folder.mkdir(parents=True, exist_ok=True)
    # Everything below is written from this recipe; the run's own may name private folders.
    recipe = public_recipe(run.recipe)
    write_text(folder / "recipe.toml", dump_recipe(recipe))
    Processor(recipe).save(folder / "preprocessing.json")
    write_json(folder / CONFIG, describe_run(recipe, run.classes))
    for name in _COPIED:
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, folder / name)
    # A published run is final: without a summary, `vsn runs` would call it resumable and damaged.
    if not (folder / "summary.json").exists():
        write_json(folder / "summary.json", {"note": "published before training finished"})
    # Read even where the file is only copied: damaged weights must not be published.
    tensors = load_weights(run, weights)
    if recipe.model == run.recipe.model:
        shutil.copyfile(weights_file(run, weights), folder / "model.safetensors")
    else:
        # The file repeats the model's settings, here with the path of the starting weights: write it with the public ones.
        write_weights(folder / "model.safetensors", tensors, recipe.model, classes=run.classes)
    # Only results of exactly these weights; others are of the run's other weights, or from before it was resumed. And of
    # the data and the average of the recipe, which the card states.
    tested_hash = weights_hash(run, weights)
    results = [
        result
        for result in list_results(run.path, damaged=[])
        if result.weights_hash == tested_hash and result.is_measured and result.is_own
    ]
    # The published file may differ from the run's, see above, and results state the hash of what is published.
    published_hash = file_sha256(folder / "model.safetensors")
    published: dict[Path, EvalResult] = {}
    for result in results:
        # File names only; and the repository has one set of weights, which are its last.
        bad = [BadVideoEntry(path=PurePath(v["path"]).name, reason=v["reason"]) for v in result.bad_videos or ()]
        public = replace(result, bad_videos=tuple(bad), weights="last", weights_hash=published_hash, root=None)
        # The best weights may be the last ones, and both may have been tested.
        published.setdefault(public.file_in(folder), public)
    for public in published.values():
        public.save(folder, None)
    card = write_card(
        recipe,
        run.classes,
        list(published.values()),
        versions=_read_json(run.path / "versions.json") or {},
        converted=_read_json(run.path / "converted.json"),
        license=license,
        repo=repo,
    )
    write_text(folder / "README.md", card)


def public_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe without file paths: only the last name of the data's root and of the starting weights stays."""
    data = replace(recipe.data, root=PurePath(recipe.data.root).name, annotations="", videos="", flow="")
    weights = PurePath(recipe.model.weights).name or "none"
    return replace(recipe, data=data, model=replace(recipe.model, weights=weights))


def describe_run(recipe: Recipe, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return what ``config.json`` holds: enough to build the model and to feed it."""
    settings = recipe.to_dict()
    return {
        "library_name": "vsn",
        "format_version": FORMAT_VERSION,
        "model": settings["model"],
        "clip": settings["clip"],
        "eval": settings["eval"],
        "task": recipe.data.task,
        "classes": list(classes),
    }


def check_repository(folder: Path, name: str) -> None:
    """Raise `HubError` unless a folder is a run whose ``config.json``, if it has one, agrees with its recipe; then it also
    has weights."""
    if (folder / CONFIG).is_file() and not (folder / "recipe.toml").is_file():
        raise HubError(f"{name} has a {CONFIG} and no recipe.toml; vsn did not write this repository.")
    # Without a network old versions of the client return what a download that was cut has left.
    if (folder / CONFIG).is_file() and not (folder / "model.safetensors").is_file():
        raise HubError(
            f"{name} has no model.safetensors: its download was not finished. Download it again, with a network."
        )
    run = open_run(folder)
    # Users edit config.json, which other tools show, and expect that it has an effect.
    stated, expected = _read_json(folder / CONFIG), describe_run(run.recipe, run.classes)
    if stated is not None:
        stated = with_recorded_settings(stated)
    if different := [key for key in expected if stated is not None and stated.get(key) != expected[key]]:
        raise HubError(
            f"{name}: {CONFIG} differs in {different[0]!r} from recipe.toml and classes.json, which build the model. "
            "Correct them, or write the folder again with save_pretrained."
        )


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
