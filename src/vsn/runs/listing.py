"""Run folders found on disk, and what each holds: for the table of `vsn runs`."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from vsn.config import Recipe
from vsn.runs.results import EvalResult, ResultError, list_results
from vsn.runs.run import RunError, open_run, read_metrics

State = Literal["finished", "can be resumed", "damaged"]

_MARKS = ("recipe.toml", "classes.json", "metrics.jsonl", "model.safetensors", "state.pt")
"""A folder that holds one of these is a run, or was one."""
_DEPTH = 2


class RunsError(ValueError):
    """A place in which no runs can be looked for; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run folder says of itself. Of a damaged one, what can still be read."""

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
    """The epoch, from 1, in which the best validation was."""
    evaluations: tuple[EvalResult, ...]
    """The one to be quoted first: frames forward, the recipe's test split and protocol."""
    written: float
    """When a file of it was last written, seconds since 1970."""


def list_runs(folders: Sequence[Path]) -> list[RunSummary]:
    """Summaries of all runs in some folders: the folder itself, those in it, and those in these.

    Raises:
        RunsError: no such folder. A damaged run is none; it is listed with the reason.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise RunsError(
                f"{folder} is no folder. `vsn train` writes its runs into runs/; name another place: vsn runs FOLDER."
            )
        for path in _find(folder, _DEPTH):
            found.setdefault(path.resolve(), path)
    return [summarize_run(path) for path in found.values()]


def summarize_run(path: Path) -> RunSummary:
    """Read what a run folder says of itself; never raises for what is damaged in it."""
    reasons: list[str] = []
    recipe = _read_recipe(path, reasons)
    lines = _read_lines(path, reasons)
    damaged: list[ResultError] = []
    results = list_results(path, recipe=recipe, damaged=damaged)
    reasons += [f"eval/{error.path.name} cannot be read: {error.reason}" for error in damaged]
    done = max((line["epoch"] for line in lines if "train_loss" in line), default=0)
    epochs = recipe.train.epochs if recipe else 0
    finished = (path / "summary.json").is_file() or 0 < epochs <= done
    reasons += _wrong_files(path, done=done, finished=finished)
    validated = [line for line in lines if _is_number(line.get("val_top1"))]
    best = max(validated, key=_validation, default=None)
    return RunSummary(
        path=path,
        state="damaged" if reasons else "finished" if finished else "can be resumed",
        reason="; ".join(reason.rstrip(".") for reason in reasons),
        model=recipe.model.name if recipe else "",
        data=f"{Path(recipe.data.root).name} ({recipe.data.source})" if recipe else "",
        num_frames=recipe.model.num_frames if recipe else 0,
        epochs_done=done,
        epochs=epochs,
        last_val_top1=validated[-1]["val_top1"] if validated else None,
        best_val_top1=best["val_top1"] if best else None,
        best_epoch=best["epoch"] if best else None,
        evaluations=tuple(result for result in results if result.is_measured),
        written=max((file.stat().st_mtime for file in path.rglob("*") if file.is_file()), default=path.stat().st_mtime),
    )


def _find(folder: Path, depth: int) -> Iterator[Path]:
    """Runs at or below a folder; nothing is looked for within a run."""
    if any((folder / name).is_file() for name in _MARKS):
        yield folder
    elif depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.name.startswith("."):
                yield from _find(child, depth - 1)


def _read_recipe(path: Path, reasons: list[str]) -> Recipe | None:
    if not (path / "recipe.toml").is_file():
        reasons.append("it has no recipe.toml")
        return None
    try:
        return open_run(path).recipe
    except RunError as error:
        reasons.append(error.reason)
        return None


def _read_lines(path: Path, reasons: list[str]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl: of an epoch, with "train_loss", or of a validation within one, without."""
    try:
        lines = read_metrics(path)
    except (OSError, ValueError) as error:
        reasons.append(f"metrics.jsonl cannot be read: {error}")
        return []
    whole = [line for line in lines if isinstance(line, dict) and isinstance(line.get("epoch"), int)]
    if len(whole) < len(lines):
        reasons.append(f"{len(lines) - len(whole)} lines of metrics.jsonl name no epoch")
    return whole


def _wrong_files(path: Path, *, done: int, finished: bool) -> list[str]:
    """What keeps a run from being used, or from being resumed."""
    wrong = []
    weights = path / "model.safetensors"
    try:
        with safe_open(weights, framework="np"):  # its head states its length, which is compared
            pass
    except FileNotFoundError:
        if done or finished:
            wrong.append("model.safetensors is missing")
    except (OSError, SafetensorError) as error:
        wrong.append(f"model.safetensors is damaged: {error}")
    states = [path / name for name in ("state.pt", "state-before.pt") if (path / name).is_file()]
    if not finished and not states:
        wrong.append("it has not finished, and state.pt, with which to resume it, is missing")
    elif not finished and not any(map(zipfile.is_zipfile, states)):
        wrong.append("it has not finished, and state.pt, with which to resume it, is damaged")
    return wrong


def _validation(line: dict[str, Any]) -> tuple[float, float]:
    """The greater the better: top-1, of the same the smaller loss, as training chooses its best weights."""
    loss = line.get("val_loss")
    return line["val_top1"], -float(loss) if loss is not None and _is_number(loss) else -math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
