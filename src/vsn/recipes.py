"""Recipes as TOML: read, checked against the dataclasses, written."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w

from vsn.config import ConfigError, Recipe


def recipe_from_dict(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Build a `Recipe` from nested tables; what is absent keeps its default.

    Raises `ConfigError` for an unknown key (offering the nearest one), a value of the wrong type,
    or a value a setting refuses.
    """
    return _build(Recipe, values, where, "")


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a TOML file. Raises `ConfigError` with the file's name."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"No recipe at {str(path)!r}. `vsn recipe list` names the recipes that come with vsn."
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}.") from error
    return recipe_from_dict(values, str(path))


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, complete."""
    return tomli_w.dumps(recipe.to_dict())


def idle_settings(recipe: Recipe) -> list[str]:
    """Settings that were changed from their default but do nothing beside the others, each with the reason."""
    model, clip, data, augment, train = recipe.model, recipe.clip, recipe.data, recipe.augment, recipe.train
    prefix = model.name.partition("_")[0]
    shifts = prefix == "tsm" or (prefix == "vsn" and model.shift)
    idle = {
        "model": {
            "block": (prefix == "vsn" and bool(model.places), "only a VSN has shuffle blocks"),
            "places": (prefix == "vsn", "only a VSN has shuffle blocks"),
            "shift": (prefix == "vsn", "a TSM always shifts, a TSN never"),
            "shift_div": (shifts, "nothing shifts"),
            "shift_places": (shifts, "nothing shifts"),
            "shift_every": (shifts, "nothing shifts"),
            "flow_length": (model.modality != "rgb", "model.modality is 'rgb'"),
            "flow_bound": (model.modality == "flow", "model.modality is not 'flow'"),
            "flow_method": (model.modality == "flow", "model.modality is not 'flow'"),
        },
        "clip": {"frames_per_second": (clip.sampling == "rate", "clip.sampling is not 'rate'")},
        "data": {
            "fold": (data.source in ("ucf101", "hmdb51"), "only UCF101 and HMDB51 have folds"),
            "separator": (data.source == "slowfast-list", "only source 'slowfast-list' asks for it"),
            "flow": (model.modality == "flow", "model.modality is not 'flow'"),
            "flow_layout": (model.modality == "flow", "model.modality is not 'flow'"),
            "frame_template": (model.modality != "flow", "flow is read, not frames"),
        },
        "augment": {
            "rand_augment_magnitude": (bool(augment.rand_augment), "augment.rand_augment is 0"),
        },
        "train": {
            "milestones": (train.schedule == "multistep", "train.schedule is not 'multistep'"),
            "momentum": (train.optimizer == "sgd", "train.optimizer is not 'sgd'"),
            "fresh_lr_mult": (
                model.weights != "none",
                "model.weights is 'none': all of the network is fresh",
            ),
        },
    }
    default = Recipe()
    return [
        f"{table}.{key} has no effect here: {reason}."
        for table, settings in idle.items()
        for key, (used, reason) in settings.items()
        if not used and getattr(getattr(recipe, table), key) != getattr(getattr(default, table), key)
    ]


def _build(cls: Any, values: Any, where: str, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where}: {prefix.rstrip('.') or 'the recipe'} must be a table of settings, not {values!r}."
        )
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            advice = f"did you mean {prefix + near[0]!r}?" if near else f"allowed here: {', '.join(hints)}."
            raise ConfigError(f"{where}: unknown setting {prefix + str(key)!r}; {advice}")
    arguments = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            arguments[key] = _build(hints[key], value, where, f"{prefix}{key}.")
        else:
            arguments[key] = _convert(hints[key], value, where, prefix + key)
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    """`value` as the type `hint`, or a `ConfigError` that names the setting."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args or isinstance(value, bool):
            raise ConfigError(f"{where}: {key} is {value!r}; allowed: {', '.join(map(repr, args))}.")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: {key} is {value!r}; it must be a list.")
        return tuple(_convert(args[0], item, where, key) for item in value)
    if origin in (typing.Union, types.UnionType):
        raise AssertionError(f"{key}: unions are not used in recipes")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: {key} is {value!r}; it must be of type {hint.__name__}.")
    return value
