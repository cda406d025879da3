"""`vsn recipe`: the recipes that come with the package."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import tyro

from vsn.recipes import dump_recipe, load_recipe

recipe_app = tyro.extras.SubcommandApp()


@recipe_app.command(name="list")
def recipe_list() -> None:
    """Name the recipes that come with vsn."""
    for path in sorted(recipe_folder().glob("*.toml")):
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        print(f"{path.stem:<24} {first}")


@recipe_app.command(name="show")
def recipe_show(recipe: Annotated[str, tyro.conf.Positional]) -> None:
    """Print a recipe complete, with every default.

    Args:
        recipe: a TOML file, or the name of a recipe that comes with vsn.
    """
    print(dump_recipe(load_recipe(find_recipe(recipe))), end="")


def recipe_folder() -> Path:
    """Where the recipes are: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parents[1] / "recipe_files"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def find_recipe(name: str) -> Path:
    """The file of a recipe given as a path or as the name of one that comes with vsn."""
    path, own = Path(name), recipe_folder() / f"{name}.toml"
    if path.is_file():
        return path
    if not own.is_file():
        names = [recipe.stem for recipe in recipe_folder().glob("*.toml")]
        near = difflib.get_close_matches(path.stem, names, n=1)
        advice = (
            f"Did you mean {near[0]!r}?"
            if near
            else "`vsn recipe list` names the recipes that come with vsn."
        )
        raise ValueError(f"No recipe at {name!r}, a file or a name. {advice}")
    return own
