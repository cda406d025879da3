"""Define and read `ablation.json`, the results of an ablation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from vsn.runs.run import RunError, is_number

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
    data_hash: NotRequired[str]
    """Of the training, validation and test videos (`vsn.runs.videos.hash_data`); none where the ablation wrote them."""
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
    problem = f"it lacks {', '.join(sorted(absent))}" if absent else _problem_of(ablation["runs"])
    if problem:
        raise RunError(f"{path} is not the {FILE} of an ablation: {problem}.")
    return ablation


def _problem_of(runs: Any) -> str:
    """Say what is wrong with the runs of a file that was edited; "" if nothing is."""
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        return "its runs are not a list of objects"
    seen = set()
    for number, run in enumerate(runs, 1):
        absent = {"name", "seed", "settings", "model", "forward"} - run.keys()
        if absent:
            return f"run {number} lacks {', '.join(sorted(absent))}"
        for order in {"forward", "shuffled"} & run.keys():
            if not isinstance(run[order], dict) or not is_number(run[order].get("top1")):
                return f"top1 of run {number} with its frames {order} is no number"
        key = (str(run["name"]), run["seed"])
        if key in seen:
            return f"it has {key[0]!r} with seed {key[1]!r} twice"
        seen.add(key)
    return ""


def check_same_videos(runs: Sequence[RunResult]) -> None:
    """Raise `RunError` where runs that share the settings of the data were trained or tested on different videos."""
    first_of: dict[str, RunResult] = {}
    for run in runs:
        first = first_of.setdefault(data_settings(run["settings"]), run)
        one, other = (
            f"{run['name']} with seed {run['seed']} on {run['forward']['num_videos']} of "
            f"{run['forward'].get('root') or 'the data set'}"
            for run in (first, run)
        )
        # Early versions recorded no hashes.
        for what, (before, now) in (
            ("tested on different videos or labels", (one["forward"].get("videos_hash") for one in (first, run))),
            ("trained or tested on different videos, labels or files", (one.get("data_hash") for one in (first, run))),
        ):
            if before and now and before != now:
                raise RunError(
                    f"The runs were {what}: {one}, and {other}. Means of both would be of no data set; keep them in two "
                    "folders (--out)."
                )


def data_settings(settings: Mapping[str, Any]) -> str:
    """Return a key of those changed settings by which runs of one ablation have other data."""
    return json.dumps({key: value for key, value in sorted(settings.items()) if key.startswith("data.")})
