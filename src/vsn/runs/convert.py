"""A checkpoint of TSM, TSN-PyTorch or MMAction2 in, a run folder out.

What the checkpoint does not say is an option; whatever is taken for granted is said, and kept in the run's
``converted.json``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vsn.config import (
    ClipSpec,
    ConfigError,
    ConvertConfig,
    DataConfig,
    EvalConfig,
    Modality,
    ModelConfig,
    Recipe,
)
from vsn.data.readers.class_names import read_class_list
from vsn.data.views import num_test_frames
from vsn.models import VideoClassifier, build_model
from vsn.models.backbones import FLOW_MEAN, FLOW_STD, IMAGENET_STD, build_backbone
from vsn.models.stem import stem_name
from vsn.runs.checkpoint import save_weights
from vsn.runs.foreign import LAYOUT_NAMES, ForeignWeights, find_backbone, plan_shift, read_foreign
from vsn.runs.metadata import write_run
from vsn.runs.run import Run, check_new, new_run, write_summary
from vsn.system.files import write_json

_NUM_FRAMES, _SHIFT_DIV = 8, 8
_BYTES = 255
_MMACTION2_FLOW = 128
"""Mean and standard deviation, in bytes, that MMAction2 normalizes flow with."""
_SORTED_FILES = ("something-something-v1-labels", "jester-v1-labels")


@dataclass(frozen=True)
class Conversion:
    """A run made of a checkpoint, and what was read from it, chosen or taken for granted: a line each."""

    run: Run
    said: tuple[str, ...]


def convert_checkpoint(checkpoint: str | Path, to: str | Path, config: ConvertConfig | None = None) -> Conversion:
    """Write a run folder with the network and the weights of another code base's checkpoint.

    The run's logits are the original's. `vsn eval`, `vsn predict` and ``model.weights`` take it as any run; a
    VSN of the same backbone may start from it.

    Args:
        checkpoint: ``.pth``, ``.pth.tar`` or ``.pt`` of the official TSM, of TSN-PyTorch or of MMAction2: tensors
            and plain values; nothing in it is executed.
        to: the run folder to make; new or empty.
        config: what the checkpoint does not say.

    Raises:
        ConfigError: a file that is no such checkpoint, a network that cannot be built here, or class names
            that do not fit.
        RunError: the folder is not empty or cannot be written.
    """
    checkpoint, config = Path(checkpoint), config or ConvertConfig()
    check_new(Path(to))
    held = _read_checkpoint(checkpoint)
    foreign = read_foreign(_state_dict(checkpoint, held))
    meta = _stated(held)
    said = [f"{checkpoint.name}: names of {LAYOUT_NAMES[foreign.layout]}."]
    model = _model_config(foreign, config, meta, said)
    classes = _class_names(foreign, config, meta, said)
    weights = _fit_input(foreign, config, model, said)
    recipe = Recipe(
        model=model,
        clip=ClipSpec(sampling=config.sampling),
        data=DataConfig(source=config.source, root=config.root),
        eval=EvalConfig(protocol=config.protocol),
    )
    num_test_frames(model, config.protocol)  # raises when they do not fit
    clip = recipe.clip
    said.append(
        f"Videos: {model.num_frames} frames, sampling {clip.sampling!r}, shorter side {clip.short_side}, protocol "
        f"{config.protocol!r} with crops of {clip.crop_size} pixels (taken for granted; --sampling, --protocol)."
    )
    run = new_run(Path(to), recipe, classes)
    network = build_model(run.recipe.model)
    _fill(network, weights, foreign)
    write_run(run)
    write_json(
        run.path / "converted.json",
        {
            "file": checkpoint.name,
            "sha256": _sha256(checkpoint),
            "layout": foreign.layout,
            "shifted": list(foreign.shifted),
            "said": said,
        },
    )
    save_weights(run, network)
    # Last, so that what stopped before is no finished run.
    write_summary(run, {"converted_from": checkpoint.name, "epochs": 0})
    return Conversion(run, tuple(said))


def _read_checkpoint(path: Path) -> Mapping[str, Any]:
    """What a checkpoint file holds, read without executing anything in it."""
    if not path.is_file():
        raise ConfigError(f"There is no checkpoint {path}.")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types
        reason = " ".join(str(error).split())
        if "weights_only" in reason or "Unsupported" in reason:
            raise ConfigError(
                f"{path} holds more than tensors and plain values, and to read that could execute what is in it: "
                f"{_refused(reason)}. If you trust its source, take the weights out once, with its own packages: "
                f"torch.save({{'state_dict': torch.load({path.name!r}, map_location='cpu', weights_only=False)"
                "['state_dict']}, 'weights.pth'), and convert weights.pth."
            ) from error
        raise ConfigError(f"{path} cannot be read as a checkpoint: {reason[:300]}") from error
    if not isinstance(held, Mapping):
        raise ConfigError(f"{path} holds a {type(held).__name__}; a checkpoint is a dict with a state_dict.")
    return held


def _refused(reason: str) -> str:
    """The name in torch's long message that it would not load."""
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    return f"it asks for {named[1]}" if named else reason[:200]


def _state_dict(path: Path, held: Mapping[str, Any]) -> dict[str, Tensor]:
    state = held.get("state_dict", held)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(
            f"{path} has no state_dict of names to tensors; its entries are {', '.join(map(str, list(held)[:6]))}."
        )
    return {str(name): tensor for name, tensor in state.items()}


def _stated(held: Mapping[str, Any]) -> dict[str, Any]:
    """What an MMAction2 checkpoint says of itself: ``num_frames``, ``shift_div``, ``classes``, as far as it does."""
    meta = held.get("meta")
    if not isinstance(meta, Mapping):
        return {}
    stated: dict[str, Any] = {}
    text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")
    for key, names in (("num_frames", ("num_segments", "num_clips")), ("shift_div", ("shift_div",))):
        for name in names:
            match = re.search(rf"\b{name}['\"]?\s*[=:]\s*(\d+)", text)
            if match and key not in stated:
                stated[key] = int(match[1])
    data = meta.get("dataset_meta")
    classes = (data.get("classes") if isinstance(data, Mapping) else None) or meta.get("CLASSES")
    if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
        stated["classes"] = tuple(classes)
    return stated


def _model_config(
    foreign: ForeignWeights, config: ConvertConfig, meta: Mapping[str, Any], said: list[str]
) -> ModelConfig:
    name = find_backbone(foreign.backbone)
    said.append(f"Backbone {name}, told by names and shapes; stride in the 3x3 convolution, as in torchvision.")

    def number(key: str, option: str, asked: int, default: int) -> int:
        value = asked or int(meta.get(key, 0)) or default
        source = "asked for" if asked else "stated in the checkpoint" if meta.get(key) else "taken for granted"
        advice = "" if asked else f"; --{option} says otherwise"
        said.append(f"{key} = {value} ({source}{advice}).")
        return value

    num_frames = number("num_frames", "num-frames", config.num_frames, _NUM_FRAMES)
    channels = foreign.backbone[f"{_stem(name)}.weight"].shape[1]
    modality, length = _modality(foreign, config, channels, said)
    if not foreign.shifted:
        said.append("TSN: no convolution stands behind a temporal shift.")
        return ModelConfig(name=f"tsn_{name}", num_frames=num_frames, modality=modality, flow_length=length)
    plan = plan_shift(name, foreign.shifted)
    said.append(
        f"TSM: {len(foreign.shifted)} blocks shift, every {_nth(plan.shift_every)} of {' '.join(plan.shift_places)}."
    )
    return ModelConfig(
        name=f"tsm_{name}",
        num_frames=num_frames,
        modality=modality,
        flow_length=length,
        shift_div=number("shift_div", "shift-div", config.shift_div, _SHIFT_DIV),
        shift_places=plan.shift_places,
        shift_every=plan.shift_every,
    )


def _nth(number: int) -> str:
    return "one" if number == 1 else {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _modality(foreign: ForeignWeights, config: ConvertConfig, channels: int, said: list[str]) -> tuple[Modality, int]:
    """What the first convolution sees, and L; refused where its channels do not come out."""
    guess: Modality = "rgb" if channels == 3 else "flow" if channels % 2 == 0 else "rgbdiff"
    modality: Modality = guess if config.modality == "auto" else config.modality
    each = {"rgb": channels, "flow": 2, "rgbdiff": 3}[modality]
    if channels % each or (modality == "rgb" and channels != 3):
        raise ConfigError(
            f"The first convolution takes {channels} channels, and modality {modality!r} makes "
            f"{'3' if modality == 'rgb' else f'{each} for each of L'} of them. Leave --modality out, or name another."
        )
    if modality == "rgbdiff" and foreign.layout == "mmaction2":
        raise ConfigError(
            f"The first convolution takes {channels} channels, as differences of frames would, and how MMAction2 would have "
            "normalized those is not known. With --modality flow they are read as flow, where they are even in number."
        )
    length = ModelConfig.flow_length if modality == "rgb" else channels // each
    asked = "asked for" if config.modality != "auto" else f"told by the {channels} channels of the first convolution"
    said.append(f"Modality {modality}{'' if modality == 'rgb' else f', L = {length}'} ({asked}).")
    return modality, length


def _class_names(
    foreign: ForeignWeights, config: ConvertConfig, meta: Mapping[str, Any], said: list[str]
) -> tuple[str, ...]:
    """The class of each output."""
    num_classes = len(foreign.head_bias)
    if config.classes:
        file = Path(config.classes)
        if not file.is_file():
            raise ConfigError(f"There is no file of class names {file}.")
        names = read_class_list(file).names
        sort = config.class_order == "sorted" or (
            config.class_order == "auto" and foreign.layout == "tsm" and file.stem in _SORTED_FILES
        )
        if sort:
            names = tuple(sorted(names))
        source = f"{file.name}, {'sorted' if sort else 'in its own order'}"
        if config.class_order == "auto":
            source += " (--class-order says otherwise)"
    elif "classes" in meta:
        names, source = meta["classes"], "the checkpoint"
    else:
        said.append(
            f"{num_classes} classes without names: output_0, output_1, ... Name them with --classes FILE, or the data of "
            "`vsn eval` cannot be matched with them."
        )
        return tuple(f"output_{i}" for i in range(num_classes))
    if len(names) != num_classes:
        raise ConfigError(
            f"{source} names {len(names)} classes, and the checkpoint's classifier has {num_classes} outputs. Name "
            "the file of the data set it was trained on with --classes."
        )
    said.append(f"{num_classes} classes from {source}: {', '.join(map(repr, names[:3]))}, ...")
    return names


def _fit_input(
    foreign: ForeignWeights, config: ConvertConfig, model: ModelConfig, said: list[str]
) -> dict[str, Tensor]:
    """The backbone's weights, with what the original did to its input otherwise than a run put into the stem."""
    weights = dict(foreign.backbone)
    name = _stem(model.name.partition("_")[2])
    stem = weights[f"{name}.weight"]
    if config.bgr and model.modality != "rgb":
        raise ConfigError(f"--bgr turns colors round, and modality {model.modality!r} has none that are one for one.")
    if model.modality == "rgb":
        if config.bgr:
            weights[f"{name}.weight"] = stem.flip(1)
        colors = "blue, green, red, turned round in the first convolution" if config.bgr else "red, green, blue"
        said.append(
            f"Input: {colors} ({'asked for' if config.bgr else 'taken for granted; --bgr says otherwise'}), normalized "
            "with ImageNet's mean and standard deviation, as the original."
        )
    elif model.modality == "rgbdiff":
        # TSN subtracts frames in [0, 1] as they are; a run divides the differences by the standard deviation.
        std = torch.tensor(IMAGENET_STD, dtype=stem.dtype).repeat(model.flow_length).view(1, -1, 1, 1)
        weights[f"{name}.weight"] = stem * std
        said.append("Input: differences of frames as they are; the standard deviation went into the first convolution.")
    elif foreign.layout == "mmaction2":
        weights |= _fit_flow(weights, name)
        said.append(
            "Input: flow normalized with mean and standard deviation 128; ours, 127.5 and 57.6, went into the first "
            "convolution and its normalization. At the border of a frame that is off by half a gray level."
        )
    else:
        said.append("Input: flow normalized with mean 0.5 and standard deviation 0.226, as the original.")
    return weights


def _fit_flow(weights: Mapping[str, Tensor], stem: str) -> dict[str, Tensor]:
    """The stem and its normalization for flow that is normalized our way instead of MMAction2's.

    Theirs is (x - 128) / 128 of a byte x, ours y = (x / 255 - 0.5) / 0.226, so that theirs is a y + b. The factor
    goes into the convolution, and what b adds to each of its outputs is taken off the running mean.
    """
    factor = _BYTES * FLOW_STD[0] / _MMACTION2_FLOW
    offset = (_BYTES * FLOW_MEAN[0] - _MMACTION2_FLOW) / _MMACTION2_FLOW
    weight = weights[f"{stem}.weight"]
    mean = stem.replace("conv", "bn") + ".running_mean"
    if mean not in weights:
        raise ConfigError(
            f"MMAction2's flow is normalized otherwise, and there is no {mean} to take the difference up."
        )
    return {f"{stem}.weight": weight * factor, mean: weights[mean] - offset * weight.sum(dim=(1, 2, 3))}


def _fill(network: VideoClassifier, weights: Mapping[str, Tensor], foreign: ForeignWeights) -> None:
    """Load backbone and classifier; the counts of batches, which old checkpoints lack, stay at zero."""
    expected, found = tuple(network.head.weight.shape), tuple(foreign.head_weight.shape)
    if expected != found:
        raise ConfigError(
            f"The checkpoint's classifier has shape {found}, and on this backbone it would be {expected}: it sees other "
            "features than the backbone's, and cannot be converted."
        )
    own = network.backbone.state_dict()
    counts = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    kept = {name: tensor for name, tensor in weights.items() if name in own}
    network.backbone.load_state_dict(counts | kept, strict=True)
    network.head.load_state_dict({"weight": foreign.head_weight, "bias": foreign.head_bias}, strict=True)


def _stem(backbone: str) -> str:
    """Name of a backbone's first convolution."""
    with torch.device("meta"):
        return stem_name(build_backbone(backbone))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
