"""Collect the folds of `vsn folds` that are tested, such as by person and by video, into one result.

    python benchmarks/folds.py results/gestures-folds-cpu.json person=runs/people video=runs/clips

Of each folder: top-1 over the videos of the tested folds, with its interval, of each fold and of each group. Folders tested
on the same videos are compared as `vsn compare` does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from common import describe_run
from vsn.runs.folds import load_folds
from vsn.runs.results import find_scores
from vsn.scores.compare import compare_scores
from vsn.scores.match import match_scores, reorder_scores
from vsn.scores.metrics import accuracy_by_group, summarize
from vsn.scores.scores import Scores, load_scores
from vsn.system.files import write_json

MOST_GROUPS = 20
"""More are only counted."""


def joined(folder: Path) -> Scores:
    """Return the scores of the folds that are tested, each video once."""
    tested = [folder / fold["run"] for fold in load_folds(folder)["folds"] if fold["top1"] is not None]
    parts = [load_scores(path) for path in find_scores(tested)]
    parts = [reorder_scores(part, part.video_ids.tolist(), parts[0].classes) for part in parts]
    groups = [part.stated_groups for part in parts if part.stated_groups is not None]
    return replace(
        parts[0],
        video_ids=np.concatenate([part.video_ids for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        stated_groups=np.concatenate(groups) if groups else None,
    )


def describe(folder: Path, scores: Scores) -> dict[str, Any]:
    folds, summary, groups = load_folds(folder), summarize(scores), accuracy_by_group(scores)
    return {
        "by": folds["by"],
        "recipe": folds["recipe"] | {"data": folds["recipe"]["data"] | {"root": ""}},
        "splits": folds["splits"],
        "num_folds": len(folds["folds"]),
        "num_tested": sum(fold["top1"] is not None for fold in folds["folds"]),
        "num_videos": summary.num_videos,
        "top1": summary.top1,
        "top1_interval": list(summary.top1_interval),
        "folds": folds["folds"],
        "num_groups": len(groups),
        "groups": [row._asdict() for row in groups] if len(groups) <= MOST_GROUPS else [],
    }


def paired_differences(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Compare every two on the videos that both have, as `vsn compare` does."""
    differences = {}
    for a, b in combinations(scores, 2):
        matched, left_out = match_scores([scores[a], scores[b]], [a, b], common=True)
        comparison = compare_scores(*matched)
        differences[f"{b} - {a}"] = {
            "num_videos": comparison.num_videos,
            "left_out": left_out,
            "top1": comparison.top1.difference,
            "interval": list(comparison.top1.interval or ()),
        }
    return differences


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", nargs="+", help="NAME=FOLDER of each")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    names = [text.partition("=")[0] for text in options.folders]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        parser.error(f"{', '.join(repeated)} is named more than once; give each folder a name of its own.")
    folders = {name: Path(folder) for name, _, folder in (text.partition("=") for text in options.folders)}
    scores = {name: joined(folder) for name, folder in folders.items()}
    rows = {name: describe(folder, scores[name]) for name, folder in folders.items()}
    for name, row in rows.items():
        print(
            f"{name}: top-1 {row['top1']:.1%} {row['top1_interval']}, {row['num_tested']} of {row['num_folds']} folds"
        )
    # The settings of the runs stand in the file: a name in place of each folder.
    command = [part.partition("=")[0] + "=DIR" if part in options.folders else part for part in given]
    write_json(
        options.out, {**describe_run(__file__, command), "rows": rows, "differences": paired_differences(scores)}
    )


if __name__ == "__main__":
    main()
