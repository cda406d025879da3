"""`vsn recipe`: list and print the recipes that come with the package."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Annotated

import tyro

from vsn.config.recipes import dump_recipe, find_recipe, load_recipe, recipe_folder

_DATA = r"paper-(something-v\d|kinetics|moments)"
GROUPS = (
    ("Demo and practice", ""),
    ("Published peers, on the embedded data set", r"demo-"),
    ("The paper's results", rf"{_DATA}-r\d+(-ts[nm].*)?$"),
    ("The paper's results with optical flow", rf"{_DATA}-flow-\d+x\d-r\d"),
    ("The paper's ablations", r"ablation-"),
    ("Published peers, on the data sets of the paper's tables", r"paper-"),
)
"""Headings of `vsn recipe list`, and a pattern that the names of their recipes begin with; "" takes the rest."""


def list_recipes() -> None:
    """List the recipes that come with vsn."""
    paths = sorted(recipe_folder().glob("*.toml"), key=lambda path: path.stem)
    # Groups follow from names, so that a new recipe file appears without a change here.
    members: dict[str, list[Path]] = {heading: [] for heading, _ in GROUPS}
    default = GROUPS[0][0]
    for path in paths:
        heading = next((name for name, pattern in GROUPS if pattern and re.match(pattern, path.stem)), default)
        members[heading].append(path)
    for heading, group in members.items():
        print(heading)
        width = max(len(path.stem) for path in group) + 2
        for path in group:
            title = path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
            print(f"  {path.stem:<{width}}{title}")


def show_recipe(recipe: Annotated[str, tyro.conf.Positional]) -> None:
    """Print a complete recipe: its header, the settings it inherits, and every default.

    Args:
        recipe: a TOML file, or the name of a recipe that comes with vsn.
    """
    path = find_recipe(recipe)
    complete = dump_recipe(load_recipe(path))
    # The header states command, hours and expected accuracy.
    header = list(itertools.takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines()))
    print("\n".join([*header, *([""] if header else []), complete]), end="")
