"""`vsn folds`: cross-validate a recipe, with whole groups held out."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from vsn.cli.settings import RecipeCommand, RecipeSettings, command_line, print_unused_settings
from vsn.system.files import to_json
from vsn.system.numbers import percent
from vsn.system.terminal import make_table

if TYPE_CHECKING:
    from vsn.runs.folds import Fold
    from vsn.scores.metrics import GroupAccuracy

GROUPS_SHOWN = 20
"""Groups that are printed, those with the lowest accuracy."""


@dataclasses.dataclass(frozen=True)
class FoldsCommand(RecipeCommand):
    """Train one run per fold, and score every video by the run that did not train on it.

    The videos of a group (a person, a place: the column `group` of a CSV list, or `data.group_pattern`) are in one
    fold, so that the accuracy is that on new groups. Settings of the recipe may follow. The same command resumes,
    in the middle of an epoch too. The folder then passes for a run in `vsn report`, `compare` and `calibrate`.
    """

    folds: int = 5
    """Number of folds, 2 or more, and at most the number of groups."""
    by: Literal["group", "video"] = "group"
    """Divide whole groups, or single videos: then the accuracy is that on new videos of the same people and places."""
    splits: tuple[str, ...] = ()
    """Splits whose videos are divided; default those for training and validation, or all where the data states none."""
    out: Path | None = None
    """Folder of the runs and of the joined scores; default runs/folds-<recipe>."""
    dry_run: bool = False
    """Do not train: list the folds, and those that are done."""
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON: the content of folds.json, or with --dry-run the folds."""

    def run(self, settings: RecipeSettings) -> None:
        """Train what is missing, join the scores, and print the accuracy overall and of each fold and group."""
        is_rank0 = os.environ.get("RANK", "0") == "0"  # under torchrun only rank 0 prints
        console = Console(stderr=True, quiet=not is_rank0)
        if self.recipe:
            name, recipe = self.recipe, settings.apply_to(self.recipe)
        else:
            name, recipe = settings.choose(console, with_time=False)  # of folds it is known after the first
        from vsn.folds import FoldSpec, cross_validate, out_of_fold, plan

        out = self.out or Path("runs") / f"folds-{Path(name).stem}"
        spec = FoldSpec(self.folds, self.by, self.splits)
        if self.dry_run:
            folds = plan(recipe, spec, out, console=console)
            if self.json_output:
                print(to_json(folds, indent=2))
            else:
                _print_folds(folds)
            return
        print_unused_settings(recipe, console)
        result = cross_validate(recipe, spec, out, command=command_line.get(), console=console)
        if not is_rank0:
            return
        if self.json_output:
            print(to_json(result, indent=2))
            return
        from vsn.cli.score_tables import print_results
        from vsn.scores.metrics import accuracy_by_group
        from vsn.scores.scores import load_scores

        joined = out_of_fold(out)
        print_results(out, [joined])
        _print_folds(result["folds"])
        _print_groups(accuracy_by_group(load_scores(joined.scores_file)))


def _print_folds(folds: list[Fold]) -> None:
    table = make_table(("fold", "held out", "videos", "top-1", "minutes"))
    for fold in folds:
        seconds = "" if fold["seconds"] is None else f"{fold['seconds'] / 60:.1f}"
        held = escape(", ".join(fold["groups"][:6]) + (", ..." if len(fold["groups"]) > 6 else ""))
        table.add_row(fold["run"], held, str(fold["num_videos"]), percent(fold["top1"]), seconds)
    Console().print(table)


def _print_groups(groups: list[GroupAccuracy]) -> None:
    if not groups:
        return
    cut = f" ({GROUPS_SHOWN} of {len(groups)})" if len(groups) > GROUPS_SHOWN else ""
    table = make_table(("group", "videos", "top-1"), title=f"hardest first{cut}")
    for group in groups[:GROUPS_SHOWN]:
        table.add_row(escape(group.group), str(group.num_videos), percent(group.top1))
    Console().print(table)
