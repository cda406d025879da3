"""Recipes as TOML: found by name, read with what they build on, checked against the dataclasses, written."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w

from vsn.config import ConfigError, Recipe

_TABLES = "|".join(field.name for field in dataclasses.fields(Recipe))

_Where = Callable[[str], str]
"""Names the file in which a setting, such as "train.lr", stands."""


def recipe_from_dict(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Build a `Recipe` from nested tables; what is absent keeps its default.

    Raises `ConfigError` for an unknown key (offering the nearest one), a value of the wrong type,
    or a value a setting refuses.
    """
    return _build(Recipe, values, lambda _: where, "")


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a TOML file, on top of the recipe it names as its ``base``.

    A base is the name of a recipe that comes with vsn, or a file, relative to the one that names it; it
    may have a base itself. Tables are merged key by key.

    Raises:
        ConfigError: names the file in which the fault stands, or the chain of bases that does not hold.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    chain = _read_chain(Path(path))
    for file, values in chain:
        _merge(merged, values)
        origin |= dict.fromkeys(_dotted(values), str(file))
    return _build(Recipe, merged, lambda key: origin.get(key, str(path)), "")


def recipe_folder() -> Path:
    """Where the recipes that come with vsn are: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parents[1] / "recipe_files"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def find_recipe(name: str) -> Path:
    """The file of a recipe given as a path or as the name of one that comes with vsn.

    Raises:
        ConfigError: there is none; the nearest name is offered.
    """
    path = Path(name)
    return path if path.is_file() else _own_recipe(name, f"No recipe at {name!r}, a file or a name.")


def _own_recipe(name: str, complaint: str) -> Path:
    """The file of a recipe that comes with vsn, or a `ConfigError` that begins with the complaint."""
    own = recipe_folder() / f"{name}.toml"
    if own.is_file():
        return own
    names = [recipe.stem for recipe in recipe_folder().glob("*.toml")]
    near = difflib.get_close_matches(Path(name).stem, names, n=1)
    advice = f"Did you mean {near[0]!r}?" if near else "`vsn recipe list` names the recipes that come with vsn."
    raise ConfigError(f"{complaint} {advice}")


def _read_chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """A recipe's file and those it builds on, each with its tables; the undermost base comes first."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    while True:
        said = " -> ".join(str(file) for file, _ in chain)
        if any(path.resolve() == file.resolve() for file, _ in chain):
            raise ConfigError(f"The recipes build on one another in a circle: {said} -> {path}. Take one `base` out.")
        values = _read_toml(path)
        base = values.pop("base", None)
        chain.append((path, values))
        if base is None:
            return chain[::-1]
        said = " -> ".join(str(file) for file, _ in chain)
        if not isinstance(base, str) or not base:
            raise ConfigError(
                f"{path}: base is {base!r}; it is the name of a recipe that comes with vsn, or a file's path."
            )
        if not base.endswith(".toml"):
            path = _own_recipe(base, f"{said}: base is {base!r}, and no recipe of vsn has that name.")
        elif not (path.parent / base).is_file():
            raise ConfigError(
                f"{said}: base is {base!r}, and there is no file {path.parent / base}. A path counts from the folder "
                "of the recipe that names it; the name of a recipe that comes with vsn has no .toml."
            )
        else:
            path = path.parent / base


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"No recipe at {str(path)!r}. `vsn recipe list` names the recipes that come with vsn.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}.") from error


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Lay the tables of a recipe over those of its base, key by key."""
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = dict(value) if isinstance(value, Mapping) else value


def _dotted(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The names of all tables and settings: "train", "train.lr"."""
    names = []
    for key, value in values.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            names += _dotted(value, f"{prefix}{key}.")
    return names


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, complete."""
    return tomli_w.dumps(recipe.to_dict())


def unused_settings(recipe: Recipe) -> list[str]:
    """Settings that were changed from their default but do nothing beside the others, each with the reason."""
    model, clip, data, augment, train = recipe.model, recipe.clip, recipe.data, recipe.augment, recipe.train
    prefix = model.kind
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


def _build(cls: Any, values: Any, where: _Where, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        table = prefix.rstrip(".")
        raise ConfigError(f"{where(table)}: {table or 'the recipe'} must be a table of settings, not {values!r}.")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            advice = f"did you mean {prefix + near[0]!r}?" if near else f"allowed here: {', '.join(hints)}."
            name = prefix + str(key)
            raise ConfigError(f"{where(name)}: unknown setting {name!r}; {advice}")
    arguments = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            arguments[key] = _build(hints[key], value, where, f"{prefix}{key}.")
        else:
            arguments[key] = _convert(hints[key], value, where(prefix + key), prefix + key)
    try:
        return cls(**arguments)
    except ConfigError as error:
        # Each message begins with the setting it is about; that setting's file is where to mend it.
        named = re.search(rf"\b(?:{_TABLES})\.\w+", str(error))
        raise ConfigError(f"{where(named.group() if named else '')}: {error}") from None


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
