"""Find, read, merge, validate and write recipes as TOML."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w

from vsn.config import ConfigError, Recipe

# model|clip|data|...: to find the setting that an error is about.
_TABLES = "|".join(field.name for field in dataclasses.fields(Recipe))


def recipe_from_dict(values: Mapping[str, object], where: str = "recipe") -> Recipe:
    """Build a `Recipe` from nested tables; absent settings keep their defaults.

    Raises:
        ConfigError: an unknown key (the nearest one is offered), a value of the wrong type or a value that is not allowed.
            The message begins with `where`.
    """
    return _build(Recipe, values, lambda _: where)


def recorded_recipe(values: Mapping[str, object], where: str = "recipe") -> Recipe:
    """Build the `Recipe` of what a run or an exported file recorded; raises as `recipe_from_dict`.

    Settings that did not exist when it was recorded have the value of what vsn then did, not their default.
    """
    return recipe_from_dict(with_recorded_settings(values), where)


def load_recipe(path: str | Path, *, recorded: bool = False) -> Recipe:
    """Read a recipe from a TOML file, on top of the recipe that its ``base`` names; `recorded`: see `recorded_recipe`.

    A base is the name of a recipe that comes with vsn, or a file ending in .toml, relative to the recipe that names it. It
    may have a base itself. Tables are merged key by key.

    Raises:
        ConfigError: names the file that holds the wrong setting, or the chain of bases.
    """
    # Merge the tables first and check them as a whole: a crop size may fit only the short side that the base sets.
    merged: dict[str, object] = {}
    # Name of each table and setting ("train", "train.lr") -> the file that set it last, for errors.
    origin: dict[str, str] = {}
    for file, values in _read_chain(Path(path)):
        _merge(merged, values, origin, str(file))
    return _build(
        Recipe, with_recorded_settings(merged) if recorded else merged, lambda name: origin.get(name, str(path))
    )


_BEFORE_THE_SETTING: dict[str, dict[str, object]] = {"clip": {"by": "index"}}
"""What vsn did before a setting existed, where its default is something else."""


def with_recorded_settings(values: Mapping[str, object]) -> dict[str, object]:
    """Return recorded tables of settings, with the value of those that did not exist then."""
    tables = dict(values)
    for name, settings in _BEFORE_THE_SETTING.items():
        table = tables.get(name, {})
        if isinstance(table, Mapping):
            tables[name] = {**settings, **table}
    model = tables.get("model", {})
    # Only for networks that have them, so that other recipes do not differ from their records.
    if isinstance(model, Mapping) and str(model.get("name", "")).startswith("nl-"):
        tables["model"] = {"non_local_pool": "after", **model}
    return tables


def recipe_folder() -> Path:
    """Return the folder of the recipes that come with vsn: in the installed package, or in the checkout."""
    # The wheel copies recipes/ into the package (pyproject.toml).
    installed = Path(__file__).parents[1] / "recipe_files"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, given its path or the name of a recipe that comes with vsn.

    Raises:
        ConfigError: neither exists; the nearest name is offered.
    """
    return Path(name) if Path(name).is_file() else _packaged_recipe(name, f"No recipe at {name!r}, a file or a name.")


def dump_recipe(recipe: Recipe) -> str:
    """Write all settings as TOML."""
    return tomli_w.dumps(recipe.to_dict())


OTHER_NAMES = {
    "learning_rate": "train.lr", "base_lr": "train.lr", "wd": "train.weight_decay", "workers": "data.num_workers",
    "max_grad_norm": "train.clip_grad_norm", "grad_clip": "train.clip_grad_norm", "bs": "train.batch_size",
    "num_segments": "model.num_frames", "amp": "train.precision", "data_path": "data.root",
}  # fmt: skip
"""What other programs call some settings, by their last word."""


def nearest_setting(name: str) -> str:
    """Return the full name of the setting that is nearest to an unknown one, such as "train.learning_rate"; "" for none.

    >>> nearest_setting("train.epoch"), nearest_setting("model.lr"), nearest_setting("train.learning_rate")
    ('train.epochs', 'train.lr', 'train.lr')
    """
    table, _, key = name.rpartition(".")
    tables = {name: {key: f"{name}.{key}" for key in settings} for name, settings in Recipe().to_dict().items()}
    # In its own table first; then under the name of another program, or in another table.
    own = tables.get(table) or {name: name for name in tables}
    if near := difflib.get_close_matches(key, own, n=1):
        return own[near[0]]
    others = {key: full for settings in tables.values() for key, full in settings.items()} | OTHER_NAMES
    near = difflib.get_close_matches(key, others, n=1, cutoff=0.8)
    return others[near[0]] if near else ""


def unused_settings(recipe: Recipe) -> list[str]:
    """List settings that differ from their default but have no effect with the other settings, each with the reason."""
    model, train = recipe.model, recipe.train
    kind, flow = model.kind, model.reads_flow
    non_local = model.has_non_local
    boxes = model.extra_input == "boxes"
    shifts = kind == "tsm" or (kind == "vsn" and model.shift)
    # Setting -> (whether it is used, why not).
    rules = {
        "model.block": (kind == "vsn" and bool(model.places), "only a VSN has shuffle blocks"),
        "model.places": (kind == "vsn", "only a VSN has shuffle blocks"),
        "model.shift": (kind == "vsn", "a TSM always shifts, a TSN never"),
        "model.shift_div": (shifts, "nothing shifts"),
        "model.shift_places": (shifts, "nothing shifts"),
        "model.shift_every": (shifts, "nothing shifts"),
        "model.pairwise": (non_local, "the network has no non-local blocks"),
        "model.non_local_pool": (non_local, "the network has no non-local blocks"),
        "model.non_local_scale": (
            non_local and model.pairwise == "embedded-gaussian",
            "only the embedded Gaussian of non-local blocks has products to scale",
        ),
        "model.clusters": (kind == "cluster", "only Attention Clusters have them"),
        "model.alpha": (kind.endswith("slowfast"), "only SlowFast has a slow pathway"),
        "model.flow_length": (model.modality != "rgb", "model.modality is 'rgb'"),
        "model.flow_bound": (flow, "the model reads no flow"),
        "model.flow_method": (flow, "the model reads no flow"),
        "model.flow_short_side": (flow, "the model reads no flow"),
        "model.path_bound": (model.extra_input == "paths", "only TrajectoryNet follows the paths of points"),
        "model.num_boxes": (boxes, "only NL-I3D + GCN takes boxes"),
        "clip.frames_per_second": (recipe.clip.sampling == "rate", "clip.sampling is not 'rate'"),
        "data.fold": (recipe.data.source in ("ucf101", "hmdb51"), "only UCF101 and HMDB51 have folds"),
        "data.with_offset": (recipe.data.source == "mmaction2-list", "only source 'mmaction2-list' uses it"),
        "data.separator": (recipe.data.source == "slowfast-list", "only source 'slowfast-list' uses it"),
        "data.flow": (flow, "the model reads no flow"),
        "data.flow_layout": (flow, "the model reads no flow"),
        "data.flow_backward": (model.extra_input == "paths", "only TrajectoryNet follows points back in time"),
        "data.boxes": (boxes, "only NL-I3D + GCN takes boxes"),
        "data.detector": (boxes, "only NL-I3D + GCN takes boxes"),
        "data.frame_template": (model.modality != "flow", "flow is read, not frames"),
        "augment.rand_augment_magnitude": (bool(recipe.augment.rand_augment), "augment.rand_augment is 0"),
        "train.milestones": (train.schedule == "multistep", "train.schedule is not 'multistep'"),
        "train.momentum": (train.optimizer == "sgd", "train.optimizer is not 'sgd'"),
        "train.fresh_lr_mult": (model.weights != "none", "model.weights is 'none': the whole network is new"),
    }
    # Only changed settings are listed: a default that has no effect surprises nobody.
    values, defaults = recipe.to_dict(), Recipe().to_dict()
    unused = []
    for name, (used, reason) in rules.items():
        table, key = name.split(".")
        if not used and values[table][key] != defaults[table][key]:
            unused.append(f"{name} has no effect here: {reason}.")
    return unused


def _packaged_recipe(name: str, problem: str) -> Path:
    """Return the file of a recipe that comes with vsn; otherwise the error begins with `problem`."""
    path = recipe_folder() / f"{name}.toml"
    if path.is_file():
        return path
    near = difflib.get_close_matches(Path(name).stem, [file.stem for file in recipe_folder().glob("*.toml")], n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "`vsn recipe list` lists the recipes that come with vsn."
    raise ConfigError(f"{problem} {hint}")


def _read_chain(path: Path) -> list[tuple[Path, dict[str, object]]]:
    """Read a recipe and its bases, each with its tables; the lowest base comes first."""
    chain: list[tuple[Path, dict[str, object]]] = []
    while True:
        trail = " -> ".join(str(file) for file, _ in [*chain, (path, {})])
        # resolve(): a circle may go through two spellings of one path.
        if any(path.resolve() == file.resolve() for file, _ in chain):
            raise ConfigError(f"The recipes are based on one another in a circle: {trail}. Remove one `base`.")
        if not path.is_file():
            raise ConfigError(f"No recipe at {str(path)!r}. `vsn recipe list` lists the recipes that come with vsn.")
        try:
            values: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not a TOML file: {error}.") from error
        base = values.pop("base", None)
        chain.append((path, values))
        if base is None:
            return chain[::-1]
        if not isinstance(base, str) or not base:
            raise ConfigError(f"{path}: base is {base!r}; it must be a path, or the name of a recipe of vsn.")
        # The suffix decides, so that a file next to the recipe never shadows a recipe of vsn.
        if not base.endswith(".toml"):
            path = _packaged_recipe(base, f"{trail}: base is {base!r}, but vsn has no such recipe.")
        elif (path.parent / base).is_file():
            path = path.parent / base
        else:
            raise ConfigError(
                f"{trail}: base is {base!r}, but there is no file {path.parent / base}. Paths are relative to the recipe; "
                "recipes that come with vsn are named without .toml."
            )


def _merge(
    below: dict[str, object], above: Mapping[str, object], origin: dict[str, str], file: str, prefix: str = ""
) -> None:
    """Update the tables of a base with those of a recipe, key by key, in place; note the file of each setting."""
    for key, value in above.items():
        origin[f"{prefix}{key}"] = file
        if isinstance(value, Mapping):
            table = below.get(key)
            below[key] = table = table if isinstance(table, dict) else {}
            _merge(table, value, origin, file, f"{prefix}{key}.")
        else:
            below[key] = value


def _build(cls: Any, values: object, where: Callable[[str], str], prefix: str = "") -> Any:
    """Build a dataclass of settings from a table; `where` maps a setting's name to the file that sets it."""
    if not isinstance(values, Mapping):
        table = prefix.rstrip(".")
        raise ConfigError(f"{where(table)}: {table or 'the recipe'} must be a table of settings, not {values!r}.")
    # The fields of the dataclass are the schema: a new setting needs no second list.
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            near = nearest_setting(name)
            hint = f"did you mean {near!r}?" if near else f"allowed here: {', '.join(hints)}."
            raise ConfigError(f"{where(name)}: unknown setting {name!r}; {hint}")
        if dataclasses.is_dataclass(hints[key]):
            arguments[key] = _build(hints[key], value, where, f"{name}.")
        else:
            arguments[key] = _convert(hints[key], value, where(name), name)
    try:
        return cls(**arguments)
    except ConfigError as error:
        # Each message begins with the setting it is about, so that its file can be named.
        setting = re.search(rf"\b(?:{_TABLES})\.\w+", str(error))
        raise ConfigError(f"{where(setting.group() if setting else '')}: {error}") from None


def _convert(hint: Any, value: object, where: str, name: str) -> object:
    """Convert a TOML value to the type of a setting."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    # bool is a subclass of int, so that True would pass as 1.
    if origin is Literal:
        if value not in args or isinstance(value, bool):
            raise ConfigError(f"{where}: {name} is {value!r}; allowed: {', '.join(map(repr, args))}.")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: {name} is {value!r}; it must be a list.")
        return tuple(_convert(args[0], item, where, name) for item in value)
    # TOML writes 1 for 1.0, so that an int is a float where one is expected.
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, (int, float) if hint is float else hint):
        raise ConfigError(f"{where}: {name} is {value!r}; it must be of type {hint.__name__}.")
    return float(value) if hint is float else value
