"""Change settings of a recipe by full name, and combine the values of a grid into named recipes. Does not import torch."""

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
from vsn.runs.run import flat_settings

Settings = Mapping[str, Any]
"""Full name of a setting, such as "model.block" -> its value."""

_MAX_NAME_LENGTH = 160
"""Of a run's name; file systems allow 255 characters, and the seed and temporary files need some."""


@dataclass(frozen=True)
class Variant:
    """A recipe of an ablation, named after the settings that it changes in the base recipe."""

    name: str
    recipe: Recipe


def make_variant(base: Recipe, settings: Settings, where: str = "vsn ablate") -> Variant:
    """Return the recipe ``base`` with settings changed; ``where`` begins the error message.

    Raises:
        ConfigError: an unknown setting, or a value that it or the recipe refuses.
    """
    # Through the dictionary form of a recipe, which checks types and offers the nearest name for unknown keys.
    values = base.to_dict()
    for key, value in settings.items():
        table, _, name = key.partition(".")
        values.setdefault(table, {})[name] = value
    recipe = recipe_from_dict(values, where)
    # The name depends on the final recipe only, so that a table and a grid that share a recipe share its run.
    return Variant(run_name(changed_settings(base, recipe)), recipe)


def changed_settings(base: Recipe, recipe: Recipe) -> dict[str, Any]:
    """Return the settings of ``recipe`` that differ from ``base``, by full name."""
    before = flat_settings(base)
    return {key: value for key, value in flat_settings(recipe).items() if value != before[key]}


def run_name(changed: Settings) -> str:
    """Return a unique folder name for changed settings; "recipe" if there are none.

    Example:
        >>> run_name({"model.block": "headtail", "model.places": ["res2", "res5"]})
        'block=headtail,places=res2+res5'
        >>> run_name({"train.lr": 0.1, "model.weights": "a/b.pt"})
        'train.lr=0.1,weights=a-b.pt-a11209dc'
    """
    # Most swept settings are of the model: their names go without "model.".
    whole = ",".join(f"{key.removeprefix('model.')}={format_value(value)}" for key, value in changed.items())
    name = re.sub(r"[^\w.,=+-]", "-", whole)[:_MAX_NAME_LENGTH]
    # Replaced characters and cut ends lose information: without a hash "a/b" and "a-b" would share a folder.
    if name != whole:
        digest = hashlib.sha256(json.dumps(dict(changed)).encode()).hexdigest()[:8]
        return f"{name}-{digest}"
    return name or "recipe"


def format_value(value: Any) -> str:
    """Format a value as `--grid` takes it."""
    if isinstance(value, list | tuple):
        return "+".join(map(format_value, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Parse ``SETTING=VALUE,VALUE`` texts into full name of a setting -> its values.

    The items of a list setting are joined by ``+``: ``model.places=res5,res4+res5``.

    Raises:
        ConfigError: malformed text. `make_variant` checks that the setting exists and accepts the value.

    Example:
        >>> parse_grid(["model.num_frames=4,8", "model.places=res5,res4+res5"])
        {'model.num_frames': (4, 8), 'model.places': (('res5',), ('res4', 'res5'))}
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or "." not in key or not values:
            raise ConfigError(
                f"--grid takes SETTING=VALUE,VALUE such as model.block=compact,headtail, got {text!r}; "
                "`vsn recipe show RECIPE` prints the settings."
            )
        # Settings that would produce misleading rows: a seed is not a variant, and testing needs no training.
        if key == "train.seed":
            raise ConfigError("--grid cannot vary train.seed: results are averaged over seeds; use --seeds.")
        if key.startswith("eval."):
            raise ConfigError(f"--grid cannot vary {key}, which does not affect training; use `vsn eval` on one run.")
        if key in grid:
            raise ConfigError(f"--grid has {key} twice; give all its values at once: {key}=VALUE,VALUE.")
        # An unknown setting is text here: `make_variant` refuses it, and offers the nearest name.
        table, _, name = key.partition(".")
        config = typing.get_type_hints(Recipe).get(table)
        hint = typing.get_type_hints(config).get(name, str) if config else str
        # "4,8" is two values; "+" joins the items of one value of a list setting.
        parsed = tuple(_parse_value(hint, value) for value in values.split(","))
        if len(set(parsed)) < len(parsed):
            raise ConfigError(f"--grid {text} has the same value twice.")
        grid[key] = parsed
    return grid


def grid_variants(base: Recipe, grid: Mapping[str, Sequence[Any]]) -> dict[tuple[Any, ...], Variant]:
    """Return the variant of every combination, by its values; the last setting varies fastest.

    Raises:
        ConfigError: an unknown setting, or a combination that the recipe refuses.
    """
    variants = {}
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        where = "--grid " + " ".join(f"{key}={format_value(value)}" for key, value in settings.items())
        variants[values] = make_variant(base, settings, where)
    return variants


def _parse_value(hint: Any, text: str) -> Any:
    """Parse a value of a type; return the text if it is not one, because `make_variant` has the better message."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_parse_value(arguments[0], item) for item in text.split("+"))
    if origin is Literal:  # compare as text: the choices may be numbers, as clip.crop_positions
        return next((value for value in arguments if str(value) == text), text)
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return text
    return text
