"""`vsn recipe`: the recipes that come with the package."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Annotated

import tyro

from vsn.config.recipes import dump_recipe, find_recipe, load_recipe, recipe_folder

recipe_app = tyro.extras.SubcommandApp()


GROUPS = (
    ("Demo and practice", ""),
    ("Published peers, on the embedded data set", r"demo-"),
    ("The paper's results", r"paper-(?!.*-flow-)"),
    ("The paper's results with optical flow", r"paper-.*-flow-"),
    ("The paper's ablations", r"ablation-"),
)
"""Headings of `vsn recipe list`, and what the names of the recipes below them begin with, as patterns."""


@recipe_app.command(name="list")
def recipe_list() -> None:
    """Name the recipes that come with vsn."""
    files = sorted(recipe_folder().glob("*.toml"), key=lambda path: path.stem)
    patterns = [pattern for _, pattern in GROUPS if pattern]
    for heading, pattern in GROUPS:
        members = [
            path
            for path in files
            if (re.match(pattern, path.stem) if pattern else not any(re.match(p, path.stem) for p in patterns))
        ]
        if members:
            print(heading)
        width = max((len(path.stem) for path in members), default=0) + 2
        for path in members:
            print(f"  {path.stem:<{width}}{_title(path)}")


def _title(path: Path) -> str:
    """The first line of a recipe's header."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


@recipe_app.command(name="show")
def recipe_show(recipe: Annotated[str, tyro.conf.Positional]) -> None:
    """Print a recipe complete: its header, with what it builds on, and with every default.

    Args:
        recipe: a TOML file, or the name of a recipe that comes with vsn.
    """
    path = find_recipe(recipe)
    complete = dump_recipe(load_recipe(path))
    lines = path.read_text(encoding="utf-8").splitlines()
    header = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    print("\n".join([*header, *([""] if header else []), complete]), end="")
