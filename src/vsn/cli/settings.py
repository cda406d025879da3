"""Parse commands whose own options are followed by settings of a recipe, as in ``vsn train demo --train.epochs 3``.

Parsing takes two steps, because the recipe holds the defaults of the settings: first the command's own options, with
the recipe's name among them, then the remaining arguments against that recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Annotated, TypeVar

import tyro
from rich.console import Console

from vsn.config import ConfigError, Recipe
from vsn.config.recipes import OTHER_NAMES, find_recipe, load_recipe, unused_settings
from vsn.system.numbers import counted
from vsn.system.terminal import print_line

command_line: ContextVar[str] = ContextVar("command_line", default="vsn")
"""The command as typed, which `vsn bench` and `vsn ablate` record in their results."""


@dataclasses.dataclass(frozen=True)
class RecipeSettings:
    """The arguments that remain after a command's own options."""

    prog: str
    arguments: tuple[str, ...]
    show_help: bool

    def apply_to(self, recipe: str, default: Recipe | None = None) -> Recipe:
        """Change settings of the named recipe; of ``default``, or of a recipe of defaults, if no recipe is named.

        Raises:
            ConfigError: no such recipe; or a setting under the name that another program gives it.
        """
        # tyro offers names that look alike, and nothing for --train.learning-rate.
        for argument in self.arguments:
            option = argument.partition("=")[0]
            key = option.removeprefix("--").rpartition(".")[2].replace("-", "_")
            if option.startswith("--") and key in OTHER_NAMES:
                raise ConfigError(f"Unknown setting {option}; did you mean --{OTHER_NAMES[key].replace('_', '-')}?")
        return tyro.cli(
            Recipe,
            default=load_recipe(find_recipe(recipe)) if recipe else default or Recipe(),
            args=[*self.arguments, *(["--help"] if self.show_help else [])],
            prog=f"{self.prog} {recipe}".rstrip(),
            description="Settings of this recipe; each can be changed here.",
        )

    def choose(self, console: Console, *, with_time: bool = True) -> tuple[str, Recipe]:
        """Choose a recipe for the user's own data set, by its size and the device, and change settings of it.

        Returns its name and the recipe; prints the choice, the reason, and with ``with_time`` how long the training takes.

        Raises:
            ConfigError: as `apply_to`; or the data cannot be read.
        """
        # The data and the device are settings too, the same for every recipe.
        given = self.apply_to("")
        if not given.data.root:
            raise ConfigError(
                f"{self.prog} needs your videos: {self.prog} --data.root clips, with one folder per class in it. With a "
                "recipe it trains that instead; `vsn recipe list` lists them."
            )
        from vsn.system.distributed import pick_device
        from vsn.training.choose import choose_recipe

        choice = choose_recipe(given.data, gpu=pick_device(given.train.device).type != "cpu")
        recipe = self.apply_to("", choice.recipe)
        reason, minutes = choice.reason, choice.expected_minutes(recipe)
        if with_time and minutes is not None:
            reason += f"; {recipe.train.epochs} epochs of them take about {counted(minutes, 'minute')} on one CPU core"
        print_line(console, f"Recipe {choice.name}: {reason}. `vsn recipe list` lists others.")
        return choice.name, recipe


@dataclasses.dataclass(frozen=True)
class RecipeCommand:
    """A command's own options, as fields."""

    recipe: Annotated[str, tyro.conf.Positional] = ""
    """A TOML file, or the name of a recipe that comes with vsn (`vsn recipe list`)."""

    def run(self, settings: RecipeSettings) -> None:
        """Run the command; ``settings`` change its recipe."""
        raise NotImplementedError


Command = TypeVar("Command", bound=RecipeCommand)


def parse_recipe_command(
    command_type: type[Command], arguments: Sequence[str], prog: str
) -> tuple[Command, RecipeSettings]:
    """Split arguments into a command's own options and settings of its recipe."""
    # tyro would act on --help at once, before it knows the recipe.
    own = [argument for argument in arguments if argument not in ("-h", "--help")]
    show_help = len(own) < len(arguments)
    # Without a recipe --help explains the command; with one, `apply_to` explains the settings of that recipe.
    if show_help and all(argument.startswith("-") for argument in own):
        tyro.cli(command_type, args=["--help"], prog=prog)
    # For example "demo --out runs/a --train.epochs 3" into Command("demo", out="runs/a") and "--train.epochs 3".
    # A mistyped own option ends up in the rest too, and is refused when the settings are parsed.
    command, rest = tyro.cli(command_type, args=own, prog=prog, return_unknown_args=True)
    if command.recipe == "[]":  # what tyro makes of the missing positional when unknown arguments come first
        command = dataclasses.replace(command, recipe="")
    return command, RecipeSettings(prog, tuple(rest), show_help)


def print_unused_settings(recipe: Recipe, console: Console) -> None:
    """Print a note on each setting that was changed and has no effect."""
    for note in unused_settings(recipe):
        print_line(console, f"Note: {note}")
