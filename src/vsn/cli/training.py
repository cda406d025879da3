"""`vsn train`: a recipe, what changes it, and a run folder."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from vsn.cli.settings import has_recipe, parse_command, parse_settings
from vsn.config.recipes import unused_settings


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train a model from a recipe, or continue a run.

    Any setting can be changed on the command line, for example `--data.root clips`,
    `--model.name tsm_resnet50`, `--train.epochs 10`. `vsn recipe show RECIPE` prints them all;
    `vsn train RECIPE --help` explains them.
    """

    recipe: Annotated[str, tyro.conf.Positional] = ""
    """A TOML file, or the name of a recipe that comes with vsn."""
    out: Path | None = None
    """The run folder to make; default runs/<recipe>-<model>-<time>."""
    init_from: Path | None = None
    """Start from the weights of this run (a folder, or a weights file of it): the backbone, and of the
    classifier the classes that have the same names. The same as `--model.weights RUN`."""
    resume: Path | None = None
    """Continue this run where it stopped, in the middle of an epoch too. Settings that change no result,
    such as `--data.num-workers`, may follow."""
    find_batch_size: bool = False
    """Do not train: find how many videos a step fit into memory here."""


def train_command(arguments: Sequence[str]) -> None:
    """Parse and run `vsn train`: first the recipe, then what changes it."""
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")
    command, rest = parse_command(TrainCommand, arguments, "vsn train")
    if command.resume:
        if has_recipe(command.recipe) or command.out or command.init_from or command.find_batch_size:
            raise ValueError(
                "--resume takes a run and continues it; no recipe, --out, --init-from or --find-batch-size goes with it."
            )
        from vsn.runs.run import is_finished, open_run  # torch comes after what is wrong without it
        from vsn.training.train import train

        run = open_run(command.resume)
        if is_finished(run.path):
            if rest:
                raise ValueError(
                    f"{run.path} has finished, so that {rest[0]} changes nothing. Train on from its weights in a run of its "
                    f"own: vsn train RECIPE --init-from {run.path}"
                )
            console.print(
                f"{run.path} has finished. Test it with: vsn eval {run.path}", highlight=False, soft_wrap=True
            )
            return
        train(parse_settings("", rest, arguments, "vsn train --resume RUN", run.recipe), run.path, resume=True)
        return
    if not has_recipe(command.recipe):
        raise ValueError(
            "vsn train needs a recipe, and settings follow it: vsn train demo --data.root videos. "
            "`vsn recipe list` names those there are."
        )
    if command.init_from:
        rest = _with_weights(rest, command.init_from)
    recipe = parse_settings(command.recipe, rest, arguments, "vsn train")
    if command.init_from:
        from vsn.training.start import check_is_run

        check_is_run(command.init_from)
    for note in unused_settings(recipe):
        console.print(f"[yellow]Note:[/yellow] {note}", highlight=False, soft_wrap=True)
    if command.find_batch_size:
        from vsn.training.batch_size import find_batch_size

        console.print(find_batch_size(recipe), highlight=False, soft_wrap=True)
        return
    from vsn.training.train import train

    stem = f"{Path(command.recipe).stem}-{recipe.model.name.replace('/', '-')}"
    train(recipe, command.out or Path("runs") / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}")


def _with_weights(rest: Sequence[str], run: Path) -> list[str]:
    """The settings on the command line, with ``model.weights`` set to a run."""
    if any(argument.partition("=")[0] == "--model.weights" for argument in rest):
        raise ValueError("--init-from RUN sets model.weights to the run; leave one of the two out.")
    return [*rest, "--model.weights", str(run)]
