"""Every setting of a run, as dataclasses that check themselves.

A default lives here once. A `Recipe` is the whole of a run: it is read from TOML, changed on the
command line, and written into the run folder, from which the model is rebuilt. This module imports
no torch, so that `vsn --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

STAGES = ("res2", "res3", "res4", "res5")

Block = Literal["compact", "headtail"]
FlipRule = Literal["auto", "random", "never", "swap"]
FrameOrder = Literal["forward", "reversed", "shuffled", "still"]
Protocol = Literal["center", "fcn"]
Source = Literal["folder", "csv", "synthetic"]
Task = Literal["classify", "arrow"]


class ConfigError(ValueError):
    """A setting that cannot be used; the message says what came, what is allowed, what to do."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the network is. Stored with the weights; a model is rebuilt from it alone."""

    name: str = "vsn_resnet50"
    """{tsn,tsm,vsn}_{backbone}; `vsn.list_models()` lists the names."""
    num_classes: int = 0
    """Outputs of the classifier; 0 means: as many as the data has."""
    num_frames: int = 8
    """T, frames a clip. A temporal model keeps the T it was trained for."""
    block: Block = "compact"
    """Where the shuffle pair sits in a residual block (paper, section 3.2 and Table 7)."""
    places: tuple[str, ...] = STAGES
    """Stages whose last block is a shuffle block (paper, Tables 1 and 8). VSN only."""
    shift: bool = True
    """Temporal shift in every block that is not a shuffle block (paper, Table 9). VSN only."""
    shift_div: int = 8
    """1/shift_div of the channels move one frame back, as many one frame ahead. TSM and VSN."""
    shift_places: tuple[str, ...] = STAGES
    """Stages whose blocks may shift. Fewer leave the early stages a plain 2D CNN, fit to be frozen."""
    shift_every: int = 1
    """Shift every n-th block of a stage. 2 matches the official TSM ResNet-101 checkpoints."""
    dropout: float = 0.5
    """Drop probability before the classifier (TSM 0.5; TSN and the VSN paper 0.8)."""
    weights: str = "none"
    """Start of the backbone: "none", a torchvision weight name, or a file of weights."""

    def __post_init__(self) -> None:
        prefix, _, backbone = self.name.partition("_")
        _require(
            prefix in {"tsn", "tsm", "vsn"} and bool(backbone),
            f"model.name is {self.name!r}; names are tsn_, tsm_ or vsn_ and a backbone, "
            "such as 'vsn_resnet50'. vsn.list_models() lists them all.",
        )
        _require(
            self.num_classes >= 0,
            f"model.num_classes is {self.num_classes}; it counts from 1 (0: from the data).",
        )
        _require(
            self.num_frames >= 1, f"model.num_frames is {self.num_frames}; a clip has at least one frame."
        )
        _require(
            self.shift_div >= 2,
            f"model.shift_div is {self.shift_div}; it must be 2 or more: two parts of 1/shift_div move.",
        )
        _require(self.shift_every >= 1, f"model.shift_every is {self.shift_every}; it must be 1 or more.")
        _require(0.0 <= self.dropout < 1.0, f"model.dropout is {self.dropout}; it is a probability below 1.")
        for key, stages in (("places", self.places), ("shift_places", self.shift_places)):
            _require(
                len(set(stages)) == len(stages) and set(stages) <= set(STAGES),
                f"model.{key} is {list(stages)}; choose each at most once from {list(STAGES)}.",
            )
        if prefix == "vsn":
            _require(
                bool(self.places) or self.shift,
                "model.places is empty and model.shift is false: a VSN without shuffle and shift is a TSN; name it tsn_...",
            )


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How a video becomes a clip: which frames, which size, which crops."""

    short_side: int = 256
    """Frames are first resized so that their shorter side has this many pixels."""
    crop_size: int = 224
    """Training crops are resized to crop_size x crop_size pixels."""
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Crop sides as shares of short_side; width and height are drawn at most one step apart (TSN)."""
    crop_positions: Literal[5, 13] = 13
    """Crops sit at the corners and the centre (5) or on a grid of quarters (13)."""

    def __post_init__(self) -> None:
        _require(self.crop_size >= 8, f"clip.crop_size is {self.crop_size}; it must be 8 pixels or more.")
        _require(
            self.short_side >= self.crop_size,
            f"clip.short_side is {self.short_side}, smaller than clip.crop_size {self.crop_size}; "
            "crops are cut from the resized frame, so short_side must be at least crop_size.",
        )
        _require(
            bool(self.crop_scales) and all(0 < s <= 1 for s in self.crop_scales),
            f"clip.crop_scales is {list(self.crop_scales)}; it needs at least one share in (0, 1].",
        )
        _require(
            self.crop_positions in (5, 13), f"clip.crop_positions is {self.crop_positions}; it is 5 or 13."
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the videos and their labels are."""

    root: str = ""
    """Folder of the data set. Relative paths count from where the command runs."""
    source: Source = "folder"
    """folder: class folders (split/class/video or class/video); csv: path,label[,split] columns;
    synthetic: the embedded data set, written by `vsn data synth`."""
    annotations: str = ""
    """The CSV file (source = "csv"), relative to root; empty: the only .csv file in root."""
    train_split: str = "train"
    """Name of the split that is trained on."""
    val_split: str = "val"
    """Name of the split that is validated on after each epoch."""
    test_split: str = "test"
    """Name of the split that `vsn eval` reports."""
    val_fraction: float = 0.2
    """Share of each class held out when the data states no splits."""
    split_seed: int = 0
    """Seed of that hold-out."""
    task: Task = "classify"
    """classify: the labels of the data set. arrow: the arrow of time, every video once forward and
    once reversed, two classes, labels unused: how much order is there to learn?"""
    flip: FlipRule = "auto"
    """Horizontal flips in training. auto: at 0.5, never for a class whose name says left or right;
    swap: such a class is flipped and becomes its opposite; random: at 0.5 for all; never."""
    cache: Literal["none", "memory"] = "none"
    """memory: decode and resize every video once, keep the frames in memory (small sets)."""
    num_workers: int = 2
    """Processes that load clips; 0 loads in the training process."""

    def __post_init__(self) -> None:
        _require(
            0.0 < self.val_fraction < 1.0,
            f"data.val_fraction is {self.val_fraction}; it is a share between 0 and 1.",
        )
        _require(self.split_seed >= 0, f"data.split_seed is {self.split_seed}; it must be 0 or more.")
        _require(self.num_workers >= 0, f"data.num_workers is {self.num_workers}; it must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the network is trained."""

    epochs: int = 50
    batch_size: int = 64
    """Videos a step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    """Learning rate for lr_batch_size videos a step; scaled linearly when batch_size differs."""
    lr_batch_size: int = 64
    """The batch size lr is stated for; 0 turns the scaling off."""
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = (20, 40)
    """Epochs after which the learning rate is divided by 10 (multistep)."""
    warmup_epochs: float = 0.0
    """Linear warm-up from 0, in epochs."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_grad_norm: float = 20.0
    """Largest gradient norm; 0 turns clipping off."""
    head_lr_mult: float = 5.0
    """Learning rate of the classifier's weights, times lr; its bias takes twice that (TSN)."""
    fresh_lr_mult: float = 1.0
    """Learning rate, times lr, of backbone parts that had no pretrained weights to start from."""
    label_smoothing: float = 0.0
    freeze: tuple[str, ...] = ()
    """Backbone modules that stay as they are, batch statistics too, such as ["conv1", "bn1", "layer1"]."""
    partial_bn: bool = False
    """Freeze every batch normalisation but the first, statistics and affine (TSN; the paper)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    """torch.compile the network before training."""
    device: str = "auto"
    """auto: CUDA where there is one, else the CPU."""
    seed: int = 0
    """Sample order, augmentation, initial head and dropout depend on it."""
    val_every: int = 1
    """Validate every n-th epoch, and after the last."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"train.epochs is {self.epochs}; it must be 1 or more.")
        _require(self.batch_size >= 1, f"train.batch_size is {self.batch_size}; it must be 1 or more.")
        _require(self.lr > 0, f"train.lr is {self.lr}; it must be above 0.")
        _require(
            self.lr_batch_size >= 0,
            f"train.lr_batch_size is {self.lr_batch_size}; it is a batch size, or 0 for no scaling.",
        )
        _require(
            self.warmup_epochs >= 0, f"train.warmup_epochs is {self.warmup_epochs}; it must be 0 or more."
        )
        _require(self.seed >= 0, f"train.seed is {self.seed}; it must be 0 or more.")
        _require(self.val_every >= 1, f"train.val_every is {self.val_every}; it must be 1 or more.")
        _require(
            0 <= self.label_smoothing < 1,
            f"train.label_smoothing is {self.label_smoothing}; it must be in [0, 1).",
        )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a trained model is tested."""

    protocol: Protocol = "fcn"
    """fcn: the whole frame at clip.short_side (the paper's); center: one centre crop of clip.crop_size."""
    order: FrameOrder = "forward"
    """Order in which the sampled frames are shown: the temporal reliance test."""
    batch_size: int = 16
    seed: int = 0
    """Seed of the `shuffled` order."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, f"eval.batch_size is {self.batch_size}; it must be 1 or more.")
        _require(self.seed >= 0, f"eval.seed is {self.seed}; it must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    clip: ClipSpec = field(default_factory=ClipSpec)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, lists for tuples; `recipe_from_dict` reads it back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


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
