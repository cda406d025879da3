import dataclasses
import importlib
import math
import pkgutil
import re
from dataclasses import replace
from pathlib import Path

import pytest

from vsn import config
from vsn.config import (
    STAGES,
    ClipSpec,
    ConfigError,
    DataConfig,
    EvalConfig,
    LiveConfig,
    ModelConfig,
    Recipe,
    TrainConfig,
    WindowConfig,
)
from vsn.config.model import ModelKind
from vsn.config.recipes import dump_recipe, load_recipe, recipe_from_dict, unused_settings
from vsn.data.embedded.scenes import Difficulty
from vsn.data.embedded.write import SynthSpec
from vsn.data.flow.extract import FlowSettings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def test_defaults_go_through_toml_and_back(tmp_path: Path):
    path = tmp_path / "recipe.toml"
    path.write_text(dump_recipe(Recipe()))
    assert load_recipe(path) == Recipe()


def test_other_values_go_through_toml_and_back(tmp_path: Path):
    recipe = Recipe(
        model=ModelConfig(name="tsm_resnet18", places=(), shift_places=("res4",), dropout=0.1),
        clip=ClipSpec(crop_scales=(1.0,), crop_positions=5),
        data=DataConfig(root='odd "name" \\ ü', task="arrow"),
        train=TrainConfig(milestones=(), freeze=("conv1",), precision="bf16", lr=1e-7),
        eval=EvalConfig(order="still"),
    )
    path = tmp_path / "recipe.toml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert recipe_from_dict(recipe.to_dict()) == recipe


def test_what_is_absent_keeps_its_default():
    recipe = recipe_from_dict({"train": {"epochs": 3}})
    assert recipe == replace(Recipe(), train=replace(Recipe().train, epochs=3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"epoch": 3}}, "unknown setting 'train.epoch'; did you mean 'train.epochs'"),
        ({"trian": {}}, "unknown setting 'trian'; did you mean 'train'"),
        ({"train": {"zzz": 3}}, "unknown setting 'train.zzz'; allowed here: epochs, batch_size,"),
        ({"model": {"placs": []}}, "did you mean 'model.places'"),
        ({"train": {"epochs": "3"}}, "train.epochs is '3'; it must be of type int"),
        ({"train": {"epochs": 3.0}}, r"train.epochs is 3\.0; it must be of type int"),
        ({"train": {"epochs": True}}, "train.epochs is True; it must be of type int"),
        ({"train": {"lr": "fast"}}, "train.lr is 'fast'; it must be of type float"),
        ({"train": {"partial_bn": 1}}, "train.partial_bn is 1; it must be of type bool"),
        ({"train": {"freeze": "conv1"}}, "train.freeze is 'conv1'; it must be a list"),
        ({"train": {"milestones": [1, "x"]}}, "train.milestones is 'x'; it must be of type int"),
        ({"eval": {"protocol": "fcm"}}, "eval.protocol is 'fcm'; allowed: 'fcn', 'fcn-windows', 'center', '3crop'"),
        ({"clip": {"crop_positions": 7}}, "clip.crop_positions is 7; allowed: 5, 13"),
        ({"train": 3}, "train must be a table of settings, not 3"),
        ({"train": {"epochs": 0}}, "recipe: train.epochs is 0"),
    ],
)
def test_refused_tables(values: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict(values)


def test_whole_numbers_are_floats_where_floats_are_due():
    lr = recipe_from_dict({"train": {"lr": 1}}).train.lr
    assert isinstance(lr, float)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (
            ModelConfig,
            {"name": "resnet50"},
            "model.name is 'resnet50'",
        ),
        (ModelConfig, {"name": "vsn_"}, "model.name is 'vsn_'"),
        (ModelConfig, {"num_classes": -1}, "model.num_classes is -1"),
        (ModelConfig, {"num_frames": 0}, "model.num_frames is 0"),
        (ModelConfig, {"shift_div": 1}, "model.shift_div is 1"),
        (ModelConfig, {"shift_every": 0}, "model.shift_every is 0"),
        (ModelConfig, {"dropout": 1.0}, r"model.dropout is 1\.0"),
        (ModelConfig, {"dropout": -0.1}, r"model.dropout is -0\.1"),
        (
            ModelConfig,
            {"places": ("res1",)},
            r"model.places is \['res1'\]; choose from \['res2'",
        ),
        (ModelConfig, {"places": ("res2", "res2")}, "at most once"),
        (ModelConfig, {"shift_places": ("res9",)}, "model.shift_places is"),
        (ModelConfig, {"places": (), "shift": False}, "model.places is empty and model.shift is false.*tsn_"),
        (ClipSpec, {"crop_size": 4}, "clip.crop_size is 4"),
        (ClipSpec, {"short_side": 100}, "clip.short_side is 100, smaller than clip.crop_size 224"),
        (ClipSpec, {"crop_scales": ()}, r"clip.crop_scales is \[\]"),
        (ClipSpec, {"crop_scales": (1.0, 1.1)}, r"clip.crop_scales is \[1.0, 1.1\]"),
        (ClipSpec, {"crop_scales": (0.0,)}, r"in \(0, 1\]"),
        (ClipSpec, {"crop_positions": 4}, "clip.crop_positions is 4"),
        (DataConfig, {"val_fraction": 0.0}, "data.val_fraction is 0.0"),
        (DataConfig, {"val_fraction": 1.0}, "data.val_fraction is 1.0"),
        (DataConfig, {"num_workers": -1}, "data.num_workers is -1"),
        (DataConfig, {"split_seed": -1}, "data.split_seed is -1"),
        (TrainConfig, {"epochs": 0}, "train.epochs is 0"),
        (TrainConfig, {"batch_size": 0}, "train.batch_size is 0"),
        (TrainConfig, {"lr": 0.0}, "train.lr is 0.0; it must be above 0"),
        (TrainConfig, {"lr": float("nan")}, "train.lr is nan"),
        (TrainConfig, {"lr_batch_size": -1}, "train.lr_batch_size is -1"),
        (TrainConfig, {"warmup_epochs": -1.0}, "train.warmup_epochs is -1.0"),
        (TrainConfig, {"val_every": 0}, "train.val_every is 0"),
        (TrainConfig, {"label_smoothing": 1.0}, "train.label_smoothing is 1.0"),
        (TrainConfig, {"seed": -1}, "train.seed is -1"),
        (EvalConfig, {"batch_size": 0}, "eval.batch_size is 0"),
        (EvalConfig, {"seed": -1}, "eval.seed is -1"),
    ],
)
def test_refused_values(config: type, settings: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("eco_en_lite", "eco_lite"),
        ("eco_lite_resnet50", "eco_lite"),
        ("s3d_foo", "s3d"),
        ("r2plus1d_50", "r2plus1d_34"),
        ("i3d_resnet18", "i3d_resnet101"),
        ("i3d_inception_v3", "i3d_inception"),
        ("cost_resnet18", "cost_resnet101"),
        ("clusters_resnet50", "cluster_resnet50"),
        ("cpnet_resnet50", "cpnet_resnet101"),
        ("cost-b_resnet50", "cost-a_resnet50"),
        ("nl-i3d", "nl-i3d_resnet50"),
        ("vsm_resnet50", "vsn_resnet50"),
        ("resnet50", "tsn_resnet50"),
        ("vsn_", "vsn_resnet50"),
        ("zzz", ""),
    ],
)
def test_unknown_model_names(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"model.name is '{name}'.*{nearest}"):
        ModelConfig(name=name)


def test_infinite_times_turn_a_limit_off():
    assert TrainConfig(save_minutes=float("inf")).save_minutes == LiveConfig(stop_after=float("inf")).stop_after


def test_tsn_needs_no_places():
    assert ModelConfig(name="tsn_resnet18", places=(), shift=False).places == ()
    assert ModelConfig().places == STAGES


def test_no_file(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"No recipe at '.*none\.toml'\. `vsn recipe list`"):
        load_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"[train\nepochs = 3", b"\xff\xfe", b"epochs: 3"])
def test_no_toml(tmp_path: Path, content: bytes):
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"r\.toml is not a TOML file"):
        load_recipe(tmp_path / "r.toml")


def test_errors_name_the_file(tmp_path: Path):
    (tmp_path / "r.toml").write_text("[train]\nlr = -1\n")
    with pytest.raises(ConfigError, match=r"r\.toml: train\.lr is -1\.0"):
        load_recipe(tmp_path / "r.toml")


def test_there_are_recipes():
    assert {"demo", "arrow-of-time"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_builds(path: Path):
    import torch

    from vsn.models import build_model
    from vsn.training.optim import build_optimizer, freeze_parts

    recipe = load_recipe(path)
    if recipe.model.name.partition("_")[2].startswith("timm/"):
        pytest.importorskip("timm")
    with torch.device("meta"):
        model = build_model(replace(recipe.model, weights="none", num_classes=recipe.model.num_classes or 5))
    freeze_parts(model, recipe.train)
    assert build_optimizer(model, recipe.train, fresh=()).param_groups


# --- settings without effect --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "unused"),
    [
        ({}, []),
        ({"model": {"name": "tsn_resnet50", "places": ["res5"]}}, ["model.places"]),
        ({"model": {"name": "tsm_resnet50", "shift": False}}, ["model.shift"]),
        ({"model": {"shift": False, "shift_div": 4}}, ["model.shift_div"]),
        ({"model": {"shift_div": 4}}, []),
        ({"train": {"schedule": "cosine", "milestones": [3]}}, ["train.milestones"]),
        ({"train": {"optimizer": "adamw", "momentum": 0.5}}, ["train.momentum"]),
        ({"train": {"fresh_lr_mult": 3.0}}, ["train.fresh_lr_mult"]),
        ({"clip": {"frames_per_second": 4.0}}, ["clip.frames_per_second"]),
        ({"clip": {"frames_per_second": 4.0, "sampling": "rate"}}, []),
        ({"data": {"fold": 2, "separator": ","}}, ["data.fold", "data.separator"]),
        ({"data": {"fold": 2, "source": "hmdb51"}}, []),
        ({"data": {"with_offset": True}}, ["data.with_offset"]),
        ({"data": {"with_offset": True, "source": "mmaction2-list"}}, []),
        ({"augment": {"rand_augment_magnitude": 5}}, ["augment.rand_augment_magnitude"]),
        ({"augment": {"rand_augment_magnitude": 5, "rand_augment": 1}}, []),
        ({"model": {"flow_length": 1}}, ["model.flow_length"]),
        ({"model": {"flow_length": 1, "modality": "rgbdiff"}}, []),
        (
            {
                "model": {"flow_bound": 15.0, "flow_method": "raft"},
                "data": {"flow": "f", "flow_layout": "xy"},
            },
            ["model.flow_bound", "model.flow_method", "data.flow", "data.flow_layout"],
        ),
        (
            {
                "model": {"flow_bound": 15.0, "flow_method": "raft", "modality": "flow"},
                "data": {"flow": "f", "flow_layout": "xy", "frame_template": "{:d}.jpg"},
            },
            ["data.frame_template"],
        ),
    ],
)
def test_settings_without_effect_are_listed(values: dict, unused: list[str]) -> None:
    notes = unused_settings(recipe_from_dict(values))
    assert [note.partition(" has no effect here: ")[0] for note in notes] == unused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": {"task": "multilabel"}, "train": {"label_smoothing": 0.1}}, "train.label_smoothing is 0.1"),
        ({"data": {"task": "arrow"}, "augment": {"mixup": 0.4}}, "mix a clip with its reversed copy"),
        ({"data": {"task": "arrow", "balance": True}}, "data.balance draws by class"),
        ({"data": {"bad_videos": 1.5}}, "data.bad_videos is 1.5"),
        ({"data": {"decoder": "torchcodec-cuda"}}, "data.num_workers is 2; with decoder 'torchcodec-cuda'"),
        ({"data": {"fold": 0}}, "data.fold is 0"),
        ({"data": {"separator": ""}}, "data.separator is empty"),
        ({"clip": {"frames_per_second": 0}}, "clip.frames_per_second is 0"),
        ({"model": {"flow_length": 0}}, "model.flow_length is 0"),
        ({"model": {"flow_bound": -1.0}}, "model.flow_bound is -1.0; it must be above 0"),
        ({"model": {"modality": "depth"}}, "model.modality is 'depth'"),
        ({"data": {"flow_layout": "u-v"}}, "data.flow_layout is 'u-v'"),
        (
            {"model": {"modality": "flow"}, "data": {"task": "arrow"}},
            "data.task is 'arrow', but stored flow",
        ),
        (
            {"model": {"modality": "flow"}, "augment": {"color_jitter": 0.1}},
            "augment.color_jitter and augment.rand_augment change colors",
        ),
        (
            {"model": {"modality": "flow"}, "augment": {"rand_augment": 1}},
            "augment.color_jitter and augment.rand_augment change colors",
        ),
    ],
)
def test_settings_that_contradict(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        recipe_from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"modality": "flow"}, "augment": {"random_erasing": 0.2, "mixup": 0.2, "cutmix": 1.0}},
        {"model": {"modality": "rgbdiff"}, "augment": {"mixup": 0.2, "color_jitter": 0.4}},
        {"model": {"modality": "rgbdiff"}, "data": {"task": "arrow"}},
    ],
)
def test_flow_and_differences_allow_what_makes_sense(values: dict) -> None:
    recipe = recipe_from_dict(values).to_dict()
    assert {table: {key: recipe[table][key] for key in part} for table, part in values.items()} == values


# --- every number has its range ---------------------------------------------------------------------

TABLES = sorted(
    {
        value
        for module in pkgutil.iter_modules(config.__path__, "vsn.config.")
        for value in vars(importlib.import_module(module.name)).values()
        if dataclasses.is_dataclass(value) and isinstance(value, type) and value not in (Recipe, ModelKind)
    },
    key=lambda table: table.__name__,
)
NUMBERS = [
    (table, field.name)
    for table in (*TABLES, FlowSettings, SynthSpec, Difficulty)
    for field in dataclasses.fields(table)
    if re.search(r"\b(int|float)\b", str(field.type))
]
MAY_BE_INFINITE = {
    "TrainConfig.save_minutes", "LiveConfig.stop_after", "ServeConfig.max_upload_mb", "ServeConfig.upload_seconds",
    "ServeConfig.max_seconds", "ServeConfig.decode_seconds", "ServeConfig.window_seconds", "ServeConfig.batch_wait_ms",
    "ServeConfig.timeline_seconds", "ServeConfig.predict_seconds", "ServeConfig.decode_memory_mb",
}  # fmt: skip
MAY_BE_MINUS_ONE = {"BenchConfig.seconds"}


@pytest.mark.parametrize(("table", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_every_number_has_its_range(table: type, name: str):
    """A new setting without `check_range` fails here: it accepts NaN."""
    full = f"{table.__name__}.{name}"
    refused = [math.nan, -math.inf, -2.5, -1e300]
    refused += [] if full in MAY_BE_MINUS_ONE else [-1]
    refused += [] if full in MAY_BE_INFINITE else [math.inf]
    is_list = "tuple" in str({field.name: field.type for field in dataclasses.fields(table)}[name])
    for value in refused:
        with pytest.raises(ValueError, match=name):
            table(**{name: (value,) if is_list else value})


def test_the_test_above_sees_the_settings():
    assert len(NUMBERS) > 80
    assert {
        (TrainConfig, "lr"),
        (TrainConfig, "milestones"),
        (WindowConfig, "every"),
        (ClipSpec, "crop_scales"),
    } <= set(NUMBERS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, r"momentum is 1\.0; it must be in \[0, 1\)"),
        ({"momentum": 2.0}, "momentum is 2"),
        ({"weight_decay": 1.5}, "weight_decay is 1.5"),
        ({"clip_grad_norm": -1.0}, r"clip_grad_norm is -1\.0; it must be at least 0"),
        ({"lr": math.inf}, r"lr is inf; it must be a finite number above 0"),
        ({"milestones": (10, 0)}, r"milestones is \[10, 0\]; each must be at least 1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
    ],
)
def test_settings_of_training_that_cannot_be_meant(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    ("table", "key", "near"),
    [("train", "learning_rate", "train.lr"), ("train", "wd", "train.weight_decay"), ("data", "workers", "data.num_workers"),
     ("train", "max_grad_norm", "train.clip_grad_norm"), ("train", "num_epochs", "train.epochs"),
     ("model", "lr", "train.lr"), ("train", "num_frames", "model.num_frames")],
)  # fmt: skip
def test_names_of_other_programs_are_understood(table: str, key: str, near: str):
    with pytest.raises(ConfigError, match=f"did you mean '{re.escape(near)}'"):
        recipe_from_dict({table: {key: 1}})
