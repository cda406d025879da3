"""Describe a folder of cross-validation: how the videos are divided into folds, and what the runs of the folds gave.

Such a folder has ``folds.json`` (`Folds`), ``folds.csv`` (each video with its fold), a list ``fold-K.csv`` and a run folder
``fold-K`` of each fold. When all folds are tested it becomes a run folder without weights: ``recipe.toml`` reads
``folds.csv``, and ``eval/`` has the scores of every video by the run that did not train on it, as split `OUT_OF_FOLD`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from vsn.runs.run import RunError

FOLDS_FILE, FOLDS_LIST = "folds.json", "folds.csv"
OUT_OF_FOLD = "out-of-fold"
"""Name of the split that holds every video, each scored by the run that did not train on it."""
DividedBy = Literal["group", "video"]


class Fold(TypedDict):
    """One fold; the figures are None until its run is tested."""

    run: str
    """Name of its run folder and, with ".csv", of its list."""
    groups: list[str]
    """Groups that are held out; empty where videos are divided one by one."""
    num_videos: int
    """Videos that are held out."""
    top1: float | None
    """On these videos, a share of 1."""
    seconds: float | None
    """Of training and testing."""


class Folds(TypedDict):
    """The content of `folds.json`."""

    commands: list[str]
    date: str
    versions: dict[str, Any]
    recipe: dict[str, Any]
    """All settings that the folds share."""
    by: DividedBy
    splits: list[str]
    """Splits of the data set whose videos are divided."""
    videos_hash: str
    """Of the videos, their labels and groups."""
    files_hash: NotRequired[str]
    """Of the sizes of the files; absent in older folders."""
    folds: list[Fold]


def is_folds(path: Path) -> bool:
    """Return whether a folder is one of cross-validation."""
    return (path / FOLDS_FILE).is_file()


def load_folds(path: Path) -> Folds:
    """Read the `folds.json` of a folder. Raises `RunError` if it is not one."""
    file = path / FOLDS_FILE
    try:
        folds: Folds = json.loads(file.read_text(encoding="utf-8"))
        absent = Folds.__annotations__.keys() - {"files_hash"} - folds.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{file} cannot be read: {error}. Delete the folder, or restore the file.") from error
    if absent:
        raise RunError(f"{file} lacks {', '.join(sorted(absent))}; `vsn folds` writes it. Delete the folder.")
    return folds
