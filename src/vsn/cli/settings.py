"""Command lines that end in the settings of a recipe: first the command's own options, then those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import tyro

from vsn.config import Recipe
from vsn.config.recipes import find_recipe, load_recipe

Command = TypeVar("Command")

_NO_RECIPE = ("", "[]")  # "[]" is what tyro makes of settings that come before the recipe


def parse_command(command_type: type[Command], arguments: Sequence[str], prog: str) -> tuple[Command, list[str]]:
    """The command's own options, and the arguments that are left: settings of the recipe."""
    if wants_help(arguments) and not any(not argument.startswith("-") for argument in arguments):
        tyro.cli(command_type, args=["--help"], prog=prog)
    return tyro.cli(
        command_type,
        args=[argument for argument in arguments if argument not in ("-h", "--help")],
        prog=prog,
        return_unknown_args=True,
    )


def parse_settings(
    recipe: str, rest: Sequence[str], arguments: Sequence[str], prog: str, default: Recipe | None = None
) -> Recipe:
    """The recipe of that name, or `default` (every default) for "", with the settings in `rest` changed."""
    named = has_recipe(recipe)
    default = load_recipe(find_recipe(recipe)) if named else default or Recipe()
    return tyro.cli(
        Recipe,
        default=default,
        args=[*rest, *(["--help"] if wants_help(arguments) else [])],
        prog=f"{prog} {recipe}" if named else prog,
        description="Settings of this recipe; each can be changed here.",
    )


def has_recipe(recipe: str) -> bool:
    """Whether a recipe was named at all."""
    return recipe not in _NO_RECIPE


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether help was asked for."""
    return any(argument in ("-h", "--help") for argument in arguments)
