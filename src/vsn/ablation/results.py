"""Define and read `ablation.json`, the results of an ablation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from vsn.runs.run import RunError

FILE = "ablation.json"
TestOrder = Literal["forward", "shuffled"]
Measures = dict[str, Any]
"""What `vsn.runs.results.EvalResult.to_json` returns."""


class RunResult(TypedDict):
    """A run that was trained and tested."""

    name: str
    """Of its `vsn.ablation.grid.Variant`."""
    seed: int
    settings: Measures
    """Settings changed in the base recipe, by full name."""
    model: str
    parameters: int
    multiply_adds: int
    epochs: int
    seconds: float
    """Of training and testing."""
    date: str
    hardware: Measures
    forward: Measures
    shuffled: NotRequired[Measures]


class RowFigures(TypedDict):
    """The figures of a table row; ``ours`` has the fields of `vsn.ablation.paper_tables.Figures`."""

    labels: list[str]
    paper: dict[str, float] | None
    ours: Measures | None


class Ablation(TypedDict):
    """The content of `ablation.json`."""

    commands: list[str]
    date: str
    versions: Measures
    recipe: dict[str, Any]
    """The base recipe."""
    tables: list[int]
    grid: dict[str, list[Any]]
    backbones: list[str]
    seeds: list[int]
    runs: list[RunResult]
    missing: dict[str, str]
    """Key of each table that cannot be run -> the reason."""
    figures: dict[str, list[RowFigures]]
    """By the key of the table."""


def load_ablation(path: Path) -> Ablation:
    """Read an `ablation.json`; raises `RunError` if it is not one."""
    try:
        ablation: Ablation = json.loads(path.read_text(encoding="utf-8"))
        absent = {"recipe", "tables", "grid", "backbones", "seeds", "runs", "commands"} - ablation.keys()
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist; `vsn ablate RECIPE --out DIR` writes DIR/{FILE}.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise RunError(f"{path} is not the {FILE} of an ablation: {error}.") from error
    if absent:
        raise RunError(f"{path} is not the {FILE} of an ablation: it lacks {', '.join(sorted(absent))}.")
    return ablation


def check_same_videos(runs: Sequence[RunResult]) -> None:
    """Raise `RunError` where runs that share the settings of the data were tested on different videos or labels."""
    first_of: dict[str, RunResult] = {}
    for run in runs:
        first = first_of.setdefault(data_settings(run["settings"]), run)
        before, now = (one["forward"].get("videos_hash") for one in (first, run))  # early versions recorded none
        if before and now and before != now:
            one, other = (
                f"{run['name']} with seed {run['seed']} on {run['forward']['num_videos']} of "
                f"{run['forward'].get('root') or 'the data set'}"
                for run in (first, run)
            )
            raise RunError(
                f"The runs were tested on different videos or labels: {one}, and {other}. Means of both would be of no data "
                "set; keep them in two folders (--out)."
            )


def data_settings(settings: Mapping[str, Any]) -> str:
    """Return a key of those changed settings by which runs of one ablation have other data."""
    return json.dumps({key: value for key, value in sorted(settings.items()) if key.startswith("data.")})
