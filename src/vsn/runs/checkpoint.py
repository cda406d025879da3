"""Save and load the weights and the resumable state of a run; every file is written atomically."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vsn.config import ModelConfig
from vsn.config.errors import one_line
from vsn.models import VideoClassifier, build_model
from vsn.models.weights_file import (
    NotFiniteError,
    check_class_order,
    check_finite,
    read_pickled,
    read_weights,
    write_weights,
)
from vsn.runs.folds import is_folds
from vsn.runs.run import STATE_FILES, WEIGHTS_FILES, Run, RunError, WeightsKind, weights_file
from vsn.system.files import atomic_write, remove_temporary_files


def load_model(run: Run, kind: WeightsKind = "last") -> VideoClassifier:
    """Rebuild a run's model, in evaluation mode, from its own recipe and its last or best weights.

    Raises:
        RunError: no weights yet, or weights that do not fit the recipe.
    """
    path = weights_file(run, kind)
    if not path.is_file():
        if is_folds(run.path):
            raise RunError(
                f"{run.path} is a folder of folds, which has scores and no weights: each fold has its own. Name a fold, "
                f"such as {run.path / 'fold-1'}."
            )
        if kind == "best" and weights_file(run, "last").is_file():
            raise RunError(f"{run.path} has no best weights ({path.name}); use its last ones (--weights last).")
        raise RunError(f"{run.path} has no weights yet ({path.name}); its training has not finished an epoch.")
    _check_stored_model(path, run.recipe.model)
    try:
        check_class_order(path, run.classes)
    except ValueError as error:
        raise RunError(str(error)) from None
    # From the run's own recipe, never from the folder's name: users rename folders.
    model = build_model(run.recipe.model)
    weights = load_weights(run, kind)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:  # torch's, for missing names and other shapes
        raise RunError(f"{path} does not fit its recipe: {error}") from error
    return model.eval()


def load_weights(run: Run, kind: WeightsKind = "last") -> dict[str, Tensor]:
    """Read the last or the best weights of a run.

    Raises:
        RunError: the file cannot be read, its content has another checksum than it states, or a weight is not finite.
    """
    path, other = weights_file(run, kind), weights_file(run, "last" if kind == "best" else "best")
    try:
        return read_weights(path)
    except NotFiniteError as error:
        raise RunError(
            f"{path} cannot be used: {error}. The training diverged. Use {other.name} (--weights "
            f"{'last' if kind == 'best' else 'best'}), or train a new run with a lower train.lr."
        ) from error
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}. Copy it again, use {other.name}, or train a new run.") from error


def _check_stored_model(path: Path, config: ModelConfig) -> None:
    """Raise `RunError` unless the model settings stored with the weights equal those of the recipe."""
    try:
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {}).get("model", "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    # T, placement and shift change no tensor's shape, so load_state_dict would accept any of them and the
    # model would be silently wrong. Through JSON, because tuples are lists in the file.
    now = json.loads(json.dumps(asdict(config)))
    for key in stored.keys() & now.keys() - {"weights", "dropout"}:  # the two that inference does not use
        if stored[key] != now[key]:
            raise RunError(
                f"{path} was trained with model.{key} = {stored[key]!r}, but recipe.toml says {now[key]!r}. "
                "Restore that setting in recipe.toml, or train a model with the new value."
            )


def save_weights(run: Run, model: VideoClassifier, kind: WeightsKind = "last") -> None:
    """Write the weights, with the model's settings and a checksum."""
    with _atomic_write(weights_file(run, kind)) as temporary:
        write_weights(temporary, model.state_dict(), run.recipe.model, classes=run.classes)


def save_checkpoint(run: Run, state: dict[str, Any]) -> None:
    """Write what resuming needs to ``state.pt``, and keep the previous one as ``state-before.pt``."""
    path, previous = (run.path / name for name in STATE_FILES)
    with _atomic_write(path) as temporary:
        torch.save(state, temporary)
        # On disk before the old one is moved, or a power cut could lose both.
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        if path.exists():
            path.replace(previous)


def load_checkpoint(run: Run) -> tuple[dict[str, Any], str]:
    """Read what `save_checkpoint` wrote.

    Returns:
        The state, and a note for the user when ``state.pt`` is missing or damaged and the previous one was read.

    Raises:
        RunError: there is nothing to resume from, or both files are damaged.
    """
    # Two generations: a crash while writing the last one leaves the previous one intact.
    last, previous = (run.path / name for name in STATE_FILES)
    if not last.is_file() and not previous.is_file():
        raise RunError(f"{run.path} has nothing to resume from ({last.name} is missing); train a new run.")
    problems: list[str] = []
    for path in (last, previous):
        if not path.is_file():
            # Between moving the old file and renaming the new one, state.pt does not exist for a moment.
            problems.append(f"{path.name} is missing")
            continue
        try:
            with zipfile.ZipFile(path) as archive:  # torch.save writes checksums, but torch.load ignores them
                if archive.testzip():
                    raise ValueError("wrong checksum")
            state: dict[str, Any] = read_pickled(path)
            check_finite(state["model"])
        except Exception as error:  # zipfile raises many types for a damaged file
            problems.append(f"{path.name} is damaged ({one_line(error)})")
            continue
        return state, f"{problems[0]}; resuming from {previous.name}, the state saved before it." if problems else ""
    raise RunError(f"{run.path} cannot be resumed: {' and '.join(problems)}. Train a new run.")


def clear_leftovers(run: Run) -> None:
    """Delete the temporary files of `atomic_write` that a killed process left behind."""
    remove_temporary_files(run.path / name for name in ("state.pt", *WEIGHTS_FILES.values(), "metrics.jsonl"))


@contextlib.contextmanager
def _atomic_write(path: Path) -> Iterator[Path]:
    """`atomic_write` whose error says which version of the file is left."""
    try:
        with atomic_write(path) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:  # torch raises RuntimeError on a full disk
        kept = f"the previous {path.name} is still there" if path.exists() else "there is no earlier version"
        # Of a full disk torch and safetensors have no error number.
        may_be_full = getattr(error, "errno", None) in (None, errno.ENOSPC, errno.EDQUOT)
        raise RunError(
            f"{path} cannot be written ({error}); {kept}.{' Is the disk full?' if may_be_full else ''}"
        ) from error
