"""Open, create and check a run folder: its recipe, class names, metrics and summary. Does not import torch.

A run folder holds:

- ``recipe.toml``: all settings; ``classes.json``: class names; ``versions.json``: library versions and hardware;
  ``preprocessing.json``: how a video becomes a clip;
- ``metrics.jsonl``: one line per epoch, and one per validation within an epoch;
- ``videos.json``: the videos it is trained and validated on; ``bad_videos.json``: those that could not be read;
- ``model.safetensors`` and ``best.safetensors``: the last and the best weights, in the backbone's own names;
- ``state.pt``: what resuming needs; ``state-before.pt``: the previous ``state.pt``;
- ``summary.json``: written when training is finished;
- ``converted.json``: of a converted checkpoint, where it is from; ``trackers.json``: the runs of trackers that it continues;
- ``eval/``: results (`vsn.runs.results`); ``tensorboard/``.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

from vsn.config import ConfigError, Recipe
from vsn.config.recipes import load_recipe
from vsn.system.files import file_sha256, to_json, write_json, write_text
from vsn.system.lock import LOCK_FILE

WeightsKind = Literal["last", "best"]
WEIGHTS_FILES: dict[WeightsKind, str] = {"last": "model.safetensors", "best": "best.safetensors"}
STATE_FILES = ("state.pt", "state-before.pt")
"""What a run resumes from: the last state, and the one saved before it."""

RESUMABLE_SETTINGS = frozenset({
    "data.root", "data.annotations", "data.videos", "data.allow_overlap", "data.num_workers", "data.cache",
    "data.bad_videos", "train.device", "train.save_minutes", "train.trackers", "train.compile",
    "train.checkpoint_activations", "eval.batch_size",
})  # fmt: skip
"""Settings that a resumed run may change: they change no weights beyond rounding."""


class RunError(ValueError):
    """A run folder that cannot be used; the message says what to do, ``reason`` only what is wrong."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


@dataclass(frozen=True)
class Run:
    """A run folder with its recipe and class names."""

    path: Path
    recipe: Recipe
    classes: tuple[str, ...]


def new_run(path: Path, recipe: Recipe, classes: tuple[str, ...], *, option: str = "--out") -> Run:
    """Check that a run can be created, and return it; `vsn.runs.metadata.write_run` then writes the folder.

    Raises:
        RunError: the folder is not empty or cannot be created.
        ConfigError: ``model.num_classes`` contradicts the data.
    """
    check_new(path, option)
    if recipe.model.num_classes not in (0, len(classes)):
        raise ConfigError(
            f"model.num_classes is {recipe.model.num_classes}, but the data has {len(classes)} classes. Set it to "
            f"{len(classes)}, or to 0 to take the number from the data."
        )
    # The run keeps the number of classes, so that its model is rebuilt without the data.
    return Run(path, replace(recipe, model=replace(recipe.model, num_classes=len(classes))), classes)


def check_new(path: Path, option: str = "--out") -> None:
    """Raise `RunError` unless the folder can be created, or exists and is empty; ``option`` is the one that names it."""
    # The nearest folder that exists decides whether the missing ones below it can be created.
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if existing != path.absolute() and not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise RunError(f"The run folder {path} cannot be created: {existing} is not a writable folder.")
    if path.exists() and (not path.is_dir() or any(file.name != LOCK_FILE for file in path.iterdir())):
        # Only the commands that train have --out, and --resume.
        if option != "--out":
            raise RunError(f"{path} exists and is not empty. Choose another folder with {option}.")
        hint = "Choose another folder with --out."
        if (path / "recipe.toml").is_file() and (path / "classes.json").is_file():
            hint = "Continue that run with --resume, or choose another folder with --out."
        raise RunError(f"{path} exists and is not empty. {hint}")


def check_resumable(run: Run, recipe: Recipe, classes: tuple[str, ...]) -> None:
    """Raise `RunError` when a resumed run would get other settings or other classes than it started with.

    Only `RESUMABLE_SETTINGS` may differ: where the data is and how it is read, the device, how often the run is saved.
    """
    trained, now = flat_settings(run.recipe), flat_settings(recipe)
    now["model.num_classes"] = len(run.classes)  # 0 in the recipe a user passes: taken from the data
    # Compared by full name, so that the error can name the setting that changed.
    changed = [key for key in trained if trained[key] != now[key] and key not in RESUMABLE_SETTINGS]
    if changed:
        key = changed[0]
        raise RunError(
            f"{run.path} was trained with other settings: {key} was {trained[key]!r} and is {now[key]!r} now. Restore it, "
            "choose another folder with --out (and --init-from to start from these weights), or delete the run. "
            f"A resumed run may change {', '.join(sorted(RESUMABLE_SETTINGS))}."
        )
    # The same number of classes in another order would train outputs for the wrong classes.
    if run.classes != classes:
        raise RunError(
            f"{run.path} was trained on the classes {_shorten(run.classes)}; the data now has {_shorten(classes)}. "
            "Restore the data, or train a new run."
        )


def _shorten(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:5])) + (f", ... ({len(names)})" if len(names) > 5 else "")


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """All settings of a recipe by full name, such as ``train.lr``."""
    return {f"{table}.{key}": value for table, part in recipe.to_dict().items() for key, value in part.items()}


def open_run(path: str | Path) -> Run:
    """Read the recipe and the class names of a run folder.

    Raises:
        RunError: no such folder, or not a run.
    """
    path = Path(path)
    # A frequent mistake: an exported model, which other commands take, in place of a run.
    if path.is_file():
        raise RunError(
            f"{path} is a file, not a run folder (made by `vsn train`). Pass exported files to `vsn predict` or `vsn serve`."
        )
    try:
        # Both files are needed to build the model: its settings, and the number and names of its outputs.
        classes = json.loads((path / "classes.json").read_text(encoding="utf-8"))
        # Videos, scores and results are matched by these names.
        is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if not is_list or not classes or len(set(classes)) < len(classes):
            raise ValueError(f"classes.json holds {str(classes)[:80]}; expected a list of different names")
        recipe = load_recipe(path / "recipe.toml", recorded=True)
        # Outputs without a name would be an IndexError, and names without an output would never be predicted.
        if recipe.model.num_classes not in (0, len(classes)):
            raise ValueError(
                f"classes.json lists {len(classes)} classes, and model.num_classes in recipe.toml is "
                f"{recipe.model.num_classes}; restore the one that was changed"
            )
        return Run(path, recipe, tuple(classes))
    except FileNotFoundError as error:
        # FileNotFoundError names the missing file; the folder itself is the more likely mistake.
        reason = f"it has no {Path(error.filename).name}" if path.is_dir() else "the folder does not exist"
        cause: Exception = error
    except (OSError, ValueError) as error:  # not JSON, not UTF-8, or a recipe that is refused
        reason, cause = str(error), error
    raise RunError(f"{path} is not a run folder (made by `vsn train`): {reason}", reason=reason) from cause


def weights_file(run: Run, kind: WeightsKind = "last") -> Path:
    """Return the path of the last or best weights, which may not exist yet."""
    return run.path / WEIGHTS_FILES[kind]


def weights_hash(run: Run, kind: WeightsKind = "last") -> str:
    """Return the SHA-256 of a weights file; results carry it to state which weights they are of."""
    return file_sha256(weights_file(run, kind))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return all lines of a run's ``metrics.jsonl``; empty before the first epoch.

    Raises:
        RunError: the file cannot be read, or a line is not a JSON object with a number ``epoch``.
    """
    file = path / "metrics.jsonl"
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{file} cannot be read: {error}", reason=f"{file.name} cannot be read: {error}") from error
    metrics: list[dict[str, float]] = []
    for number, line in enumerate(lines, start=1):
        # A blank line at the end is normal; a cut one is left by an editor or a full disk, as vsn writes atomically.
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            values = None
        if not isinstance(values, dict) or not is_number(values.get("epoch")):
            reason = f"{file.name}, line {number}, is {line[:80]!r}; expected a JSON object with a number 'epoch'"
            raise RunError(f"{path}: {reason}. Fix or delete that line.", reason=reason)
        metrics.append(values)
    return metrics


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def append_metrics(run: Run, line: dict[str, float]) -> None:
    """Append one line to ``metrics.jsonl`` atomically, unless the file has one of this kind and step.

    A run that resumes from the last saved state repeats the steps since; the first record of a step is kept.
    """

    def kind_and_step(metrics: dict[str, float]) -> tuple[bool, float]:
        return "train_loss" in metrics, metrics["step"]  # of an epoch, or of a validation within one

    if kind_and_step(line) not in map(kind_and_step, read_metrics(run.path)):
        file = run.path / "metrics.jsonl"
        logged = file.read_text(encoding="utf-8") if file.is_file() else ""
        # Rewritten as a whole: an appended line could be cut in half by a crash.
        write_text(file, f"{logged}{to_json(line)}\n")


def write_bad_videos(run: Run, bad: dict[str, str]) -> None:
    """Write ``bad_videos.json``: path -> reason for each video that could not be read."""
    write_json(run.path / "bad_videos.json", bad)


def write_summary(run: Run, summary: dict[str, Any]) -> None:
    """Mark a run as finished: ``summary.json`` holds its best validation, epochs and seconds."""
    write_json(run.path / "summary.json", summary)


def is_finished(path: Path) -> bool:
    """Return whether training of the run in this folder is finished."""
    return (path / "summary.json").is_file()
