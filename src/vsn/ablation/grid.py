"""The recipes of an ablation: settings changed by their full names, every combination of a grid, names of runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vsn.config import ConfigError, Recipe
from vsn.config.recipes import recipe_from_dict

Settings = Mapping[str, Any]
"""Full name of a setting, such as "model.block" -> its value."""

_LONGEST_NAME = 160
"""Characters of a run's name; file systems end at 255, and what is written beside needs some."""


@dataclass(frozen=True)
class Variant:
    """One recipe of an ablation; its name says in what it differs from the recipe the ablation starts from."""

    name: str
    recipe: Recipe


def make_variant(base: Recipe, settings: Settings, where: str = "vsn ablate") -> Variant:
    """The recipe `base` with settings changed.

    Two ways to the same recipe give the same name, so that what tables and grids share is one run.

    Raises:
        ConfigError: no such setting (the nearest one is offered), or a value that it or the recipe refuses.
    """
    values = base.to_dict()
    for key, value in settings.items():
        table, _, name = key.partition(".")
        values.setdefault(table, {})[name] = value
    recipe = recipe_from_dict(values, where)
    return Variant(run_name(settings_that_differ(base, recipe)), recipe)


def settings_that_differ(base: Recipe, recipe: Recipe) -> dict[str, Any]:
    """What `recipe` sets otherwise than `base`, by full name, in the order of the dataclasses."""
    former, now = base.to_dict(), recipe.to_dict()
    return {
        f"{table}.{key}": value
        for table, part in now.items()
        for key, value in part.items()
        if former[table][key] != value
    }


def run_name(differing: Settings) -> str:
    """A name fit for a folder; "recipe" where nothing differs.

    Characters that a folder cannot have, and length, cost a hash at the end, so that no two share a name.

    Example:
        >>> run_name({"model.block": "headtail", "model.places": ["res2", "res5"]})
        'block=headtail,places=res2+res5'
        >>> run_name({"train.lr": 0.1, "model.weights": "a/b.pt"})
        'train.lr=0.1,weights=a-b.pt-a11209dc'
    """
    whole = ",".join(f"{key.removeprefix('model.')}={value_text(value)}" for key, value in differing.items())
    name = re.sub(r"[^\w.,=+-]", "-", whole)[:_LONGEST_NAME]
    if name != whole:
        digest = hashlib.sha256(json.dumps(dict(differing)).encode()).hexdigest()[:8]
        return f"{name}-{digest}"
    return name or "recipe"


def value_text(value: Any) -> str:
    """A value as `--grid` takes it."""
    if isinstance(value, list | tuple):
        return "+".join(map(value_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Read ``SETTING=VALUE,VALUE`` texts: full name of a setting -> its values.

    The items of a setting that is a list stand with ``+`` between them: ``model.places=res5,res4+res5``.

    Raises:
        ConfigError: what is wrong with which text. Whether the setting exists, and whether it takes the
            value, is seen when the recipes are made.

    Example:
        >>> parse_grid(["model.num_frames=4,8", "model.places=res5,res4+res5"])
        {'model.num_frames': (4, 8), 'model.places': (('res5',), ('res4', 'res5'))}
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or "." not in key or not values:
            raise ConfigError(
                f"--grid takes SETTING=VALUE,VALUE such as model.block=compact,headtail, not {text!r}; "
                "`vsn recipe show RECIPE` prints the settings."
            )
        if key == "train.seed":
            raise ConfigError("--grid cannot sweep train.seed: seeds are averaged over; use --seeds.")
        if key.startswith("eval."):
            raise ConfigError(
                f"--grid cannot sweep {key}: it changes no training, so test one run several ways with `vsn eval`."
            )
        if key in grid:
            raise ConfigError(f"--grid has {key} twice; give all its values at once: {key}=VALUE,VALUE.")
        read = tuple(_read(_hint(key), value) for value in values.split(","))
        if len(set(read)) < len(read):
            raise ConfigError(f"--grid {text} names a value twice; each is run once for each seed.")
        grid[key] = read
    return grid


def grid_variants(base: Recipe, grid: Mapping[str, Sequence[Any]]) -> dict[tuple[Any, ...], Variant]:
    """Values of a combination, in the order of the grid -> its variant; the last setting changes fastest.

    Raises:
        ConfigError: a setting that does not exist, or a combination that is refused, which is named.
    """
    found = {}
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        where = "--grid " + " ".join(f"{key}={value_text(value)}" for key, value in settings.items())
        found[values] = make_variant(base, settings, where)
    return found


def _hint(key: str) -> Any:
    """The type of a setting; text for one that does not exist, which making the recipe refuses."""
    table, _, name = key.partition(".")
    part = typing.get_type_hints(Recipe).get(table)
    return typing.get_type_hints(part).get(name, str) if part else str


def _read(hint: Any, text: str) -> Any:
    """`text` as a value of a setting's type; the text itself where it is none, for the recipe to refuse."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_read(arguments[0], item) for item in text.split("+"))
    if origin is Literal:
        return next((value for value in arguments if str(value) == text), text)
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return text
    return text
