"""`vsn recipe`: the recipes that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from vsn.recipes import dump_recipe, find_recipe, load_recipe, recipe_folder

recipe_app = tyro.extras.SubcommandApp()


GROUPS = (
    ("Demo and practice", ""),
    ("The paper's results", "paper-"),
    ("The paper's ablations", "ablation-"),
)
"""Headings of `vsn recipe list`, and how the names of the recipes below them begin."""


@recipe_app.command(name="list")
def recipe_list() -> None:
    """Name the recipes that come with vsn."""
    files = sorted(recipe_folder().glob("*.toml"), key=lambda path: path.stem)
    width = max(len(path.stem) for path in files) + 2
    grouped = {path for _, prefix in GROUPS if prefix for path in files if path.stem.startswith(prefix)}
    for heading, prefix in GROUPS:
        members = [path for path in files if path.stem.startswith(prefix) and (prefix or path not in grouped)]
        if members:
            print(heading)
        for path in members:
            print(f"  {path.stem:<{width}}{_title(path)}")


def _title(path: Path) -> str:
    """The first line of a recipe's header."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


@recipe_app.command(name="show")
def recipe_show(recipe: Annotated[str, tyro.conf.Positional]) -> None:
    """Print a recipe complete: with what it builds on, and with every default.

    Args:
        recipe: a TOML file, or the name of a recipe that comes with vsn.
    """
    print(dump_recipe(load_recipe(find_recipe(recipe))), end="")
