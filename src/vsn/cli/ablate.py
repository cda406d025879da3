"""`vsn ablate`: the paper's ablations, or any grid of settings, as one table."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from vsn.cli.settings import has_recipe, parse_command, parse_settings
from vsn.config.recipes import unused_settings


@dataclasses.dataclass(frozen=True)
class AblateCommand:
    """Train and test a grid of recipes with several seeds; print one table.

    Settings of the recipe may follow and hold for all runs, for example `--train.epochs 3`. The same
    command goes on where it was stopped, in the middle of an epoch too; with more seeds or tables it adds
    to what is there.

    `vsn ablate demo --tables 7 8 9 --seeds 0 1 2 --shuffled` runs the paper's ablations on the embedded data
    set, `vsn ablate demo --grid model.block=compact,headtail model.num_frames=4,8` every combination.
    """

    recipe: Annotated[str, tyro.conf.Positional] = ""
    """A TOML file, or the name of a recipe that comes with vsn: what all runs share."""
    tables: tuple[Literal[5, 7, 8, 9], ...] = ()
    """Tables of the paper: 5 optical flow (it needs stored flow), 7 the block, 8 the number of shuffle blocks
    over all placements, 9 shift, shuffle and both."""
    grid: tuple[str, ...] = ()
    """SETTING=VALUE,VALUE ...: every combination; the items of a list stand with + between them, as in
    model.places=res5,res4+res5."""
    seeds: tuple[int, ...] = (0,)
    """Every recipe is trained with each."""
    backbones: tuple[str, ...] = ()
    """One or two, beside the paper's ResNet-50 and ResNet-101 (Tables 5 and 7); default the recipe's."""
    out: Path | None = None
    """The folder of the runs and of ablation.json, default runs/ablation-<recipe>."""
    shuffled: bool = False
    """Test every run with its frames shuffled too."""
    dry_run: bool = False
    """Do not train: print the runs to do and done, and how long it will take by those that are finished."""
    show: Path | None = None
    """Do not train: print the tables of this ablation.json."""
    merge: tuple[Path, ...] = ()
    """Do not train: join the ablation.json of these folders, in which several machines trained some of the seeds or
    tables each, into that of --out."""
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON: what ablation.json holds, or with --dry-run the runs."""


def ablate_command(arguments: Sequence[str]) -> None:
    """Parse and run `vsn ablate`: first the recipe and the grid, then what changes the recipe."""
    command, rest = parse_command(AblateCommand, arguments, "vsn ablate")
    if command.show or command.merge:
        if has_recipe(command.recipe) or rest:
            raise ValueError(
                "--show and --merge are about an ablation.json that is there; no recipe and no setting goes with them."
            )
        if command.merge and command.out is None:
            raise ValueError("--merge needs --out, the folder of the joined ablation.json.")
        from vsn.ablation.results import load_ablation
        from vsn.ablation.run import format_tables, merge_ablations

        shown = (
            merge_ablations(command.merge, command.out)
            if command.merge and command.out
            else load_ablation(command.show or Path())
        )
        print(_json(shown) if command.json_output else format_tables(shown))
        return
    if not has_recipe(command.recipe):
        raise ValueError(
            "vsn ablate needs a recipe: vsn ablate demo --tables 7 8 9. `vsn recipe list` names those there are."
        )
    recipe = parse_settings(command.recipe, rest, arguments, "vsn ablate")
    from vsn.ablation.grid import parse_grid
    from vsn.ablation.plan import AblationSpec, describe_states
    from vsn.ablation.run import ablate, format_tables, plan_ablation  # torch, which --help needs not

    out = command.out or Path("runs") / f"ablation-{Path(command.recipe).stem}"
    spec = AblationSpec(
        tables=command.tables,
        grid=parse_grid(command.grid),
        backbones=command.backbones,
        seeds=command.seeds,
        shuffled=command.shuffled,
    )
    if command.dry_run:
        states, missing = plan_ablation(recipe, spec, out)
        lines = [f"Table {key} is missing: {reason}" for key, reason in missing.items()]
        print(
            _json([dataclasses.asdict(state) for state in states])
            if command.json_output
            else "\n".join([describe_states(states), *lines])
        )
        return
    first = os.environ.get("RANK", "0") == "0"  # under torchrun the first process speaks
    console = Console(stderr=True, quiet=not first)
    for note in unused_settings(recipe):
        console.print(f"[yellow]Note:[/yellow] {note}", highlight=False, soft_wrap=True)
    facts = ablate(recipe, spec, out, command=shlex.join(["vsn", "ablate", *arguments]), console=console)
    if first:
        print(_json(facts) if command.json_output else format_tables(facts))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
