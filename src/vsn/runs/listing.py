"""List run folders on disk, and summarize how far each has come: for the table of `vsn runs`."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from vsn.config import Recipe
from vsn.runs.folds import is_folds
from vsn.runs.results import EvalResult, ResultError, list_results
from vsn.runs.run import STATE_FILES, RunError, is_finished, is_number, open_run, read_metrics
from vsn.system.lock import is_locked

State = Literal["finished", "training now", "can be resumed", "damaged"]

_RUN_FILES = ("recipe.toml", "classes.json", "metrics.jsonl", "model.safetensors", "state.pt")
"""A folder with one of these is a run, possibly a damaged one."""
_DEPTH = 2


class RunsError(ValueError):
    """A folder in which no runs can be listed; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The state of a run folder; of a damaged one, what can still be read."""

    path: Path
    state: State
    reason: str
    """Why it is damaged; empty for the others."""
    model: str
    data: str
    """The data set's folder, and how it is read."""
    num_frames: int
    """T; 0: not known."""
    epochs_done: int
    epochs: int
    """Of the recipe; 0: not known."""
    last_val_top1: float | None
    best_val_top1: float | None
    best_epoch: int | None
    """The epoch, from 1, with the best validation."""
    evaluations: tuple[EvalResult, ...]
    """The main one first: frames forward, the recipe's test split and protocol."""
    written: float
    """When a file of it was last written, in seconds since 1970."""


def list_runs(folders: Sequence[Path]) -> list[RunSummary]:
    """Summarize all runs in some folders, two levels deep. A damaged run is listed with the reason.

    Raises:
        RunsError: a folder does not exist.
    """
    # Folders may overlap (runs and runs/demo), and links may lead to the same run.
    paths: dict[Path, Path] = {}  # by resolved path, so that a run reached twice is listed once
    for folder in folders:
        if not folder.is_dir():
            raise RunsError(
                f"{folder} is not a folder. `vsn train` writes runs into runs/; for others: vsn runs FOLDER."
            )
        for path in _find_runs(folder, _DEPTH):
            paths.setdefault(path.resolve(), path)
    return [summarize_run(path) for path in paths.values()]


def _find_runs(folder: Path, depth: int) -> Iterator[Path]:
    """Yield runs at or below a folder; a run folder is searched for other runs only if it holds those of folds."""
    is_run = any((folder / name).is_file() for name in _RUN_FILES)
    if is_run:
        yield folder
    if (not is_run or is_folds(folder)) and depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.name.startswith("."):
                yield from _find_runs(child, depth - 1)


def summarize_run(path: Path) -> RunSummary:
    """Read the state of a run folder; damaged files never raise, they become the ``reason``."""
    reasons: list[str] = []
    recipe: Recipe | None = None
    metrics: list[dict[str, float]] = []
    damaged: list[ResultError] = []
    if (path / "recipe.toml").is_file():
        try:
            recipe = open_run(path).recipe
        except RunError as error:
            reasons.append(error.reason)
    else:
        reasons.append("it has no recipe.toml")
    try:
        metrics = read_metrics(path)
    except RunError as error:
        reasons.append(error.reason)
    results = list_results(path, recipe=recipe, damaged=damaged)
    reasons += [f"eval/{error.path.name} cannot be read: {error.reason}" for error in damaged]
    epochs_done = max((int(line["epoch"]) for line in metrics if "train_loss" in line), default=0)
    epochs = recipe.train.epochs if recipe else 0
    # A crash between the last epoch and summary.json leaves a run with nothing more to train.
    finished = is_finished(path) or 0 < epochs <= epochs_done or is_folds(path)
    # A process writes into it now, and what is missing is about to be written.
    training = is_locked(path)
    # The folder of folds has no weights of its own.
    if not training and not is_folds(path):
        reasons += _damaged_files(path, epochs_done=epochs_done, finished=finished)
    validated = [line for line in metrics if is_number(line.get("val_top1"))]
    best = max(validated, key=_validation_rank, default=None)
    return RunSummary(
        path=path,
        state=_state(damaged=bool(reasons), training=training, finished=finished),
        reason="; ".join(reason.rstrip(".") for reason in reasons),
        model=recipe.model.name if recipe else "",
        data=f"{Path(recipe.data.root).name} ({recipe.data.source})" if recipe else "",
        num_frames=recipe.model.num_frames if recipe else 0,
        epochs_done=epochs_done,
        epochs=epochs,
        last_val_top1=validated[-1]["val_top1"] if validated else None,
        best_val_top1=best["val_top1"] if best else None,
        # A validation within an epoch has a fractional epoch: 1.25 is in epoch 2.
        best_epoch=math.ceil(best["epoch"]) if best else None,
        evaluations=tuple(result for result in results if result.is_measured),
        # The newest file, because the folder's own time changes only when files are added.
        written=max(map(_written, path.rglob("*")), default=0.0) or path.stat().st_mtime,
    )


def _written(file: Path) -> float:
    """Return when a file was written; 0.0 for a folder, and for a temporary file that a training renamed meanwhile."""
    try:
        return 0.0 if file.is_dir() else file.stat().st_mtime
    except OSError:
        return 0.0


def _state(*, damaged: bool, training: bool, finished: bool) -> State:
    if damaged:
        return "damaged"
    # Resuming a finished run for more epochs trains it again.
    return "training now" if training else "finished" if finished else "can be resumed"


def _damaged_files(path: Path, *, epochs_done: int, finished: bool) -> Iterator[str]:
    """Yield what keeps a run from being used or resumed."""
    try:
        # Reading the header is enough: it states the file's length, which safetensors compares.
        with safe_open(path / "model.safetensors", framework="np"):
            pass
    except FileNotFoundError:
        if epochs_done or finished:
            yield "model.safetensors is missing"
    except (OSError, SafetensorError) as error:
        yield f"model.safetensors is damaged: {error}"
    if finished:
        return
    # torch.save writes a zip archive; checking its directory is fast and detects a cut file.
    states = [file for name in STATE_FILES if (file := path / name).is_file()]
    if not any(map(zipfile.is_zipfile, states)):
        yield f"training has not finished, and state.pt, needed to resume, is {'damaged' if states else 'missing'}"


def _validation_rank(line: dict[str, float]) -> tuple[float, float]:
    """Higher top-1, then lower loss: the rule by which training keeps its best weights."""
    loss = line.get("val_loss")
    return line["val_top1"], -loss if is_number(loss) else -math.inf
