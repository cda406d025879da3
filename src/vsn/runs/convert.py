"""Convert a checkpoint of TSM, TSN-PyTorch or MMAction2 to a run folder.

What the checkpoint does not contain is an option. Every assumption is a note, printed and kept in ``converted.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vsn.config import ClipSpec, ConfigError, ConvertConfig, DataConfig, EvalConfig, Modality, ModelConfig, Recipe
from vsn.data.readers.class_names import read_class_list
from vsn.data.views import num_test_frames
from vsn.models import VideoClassifier, build_model
from vsn.models.backbones import build_backbone
from vsn.models.normalization import FLOW_MEAN, FLOW_STD, IMAGENET_STD
from vsn.models.stem import stem_name
from vsn.models.weights_file import UnsafeFileError, read_pickled
from vsn.runs.checkpoint import save_weights
from vsn.runs.foreign import LAYOUT_NAMES, ForeignWeights, find_backbone, plan_shift, read_foreign, refuse_unused
from vsn.runs.metadata import write_run
from vsn.runs.run import Run, check_new, new_run, write_summary
from vsn.system.files import file_sha256, write_json
from vsn.system.lock import lock_folder

_MMACTION2_FLOW = 128
"""Mean and standard deviation, in bytes, with which MMAction2 normalizes flow."""
_SORTED_FILES = ("something-something-v1-labels", "jester-v1-labels")
"""Files whose classes TSM and TSN-PyTorch sort by name."""


@dataclass(frozen=True)
class Conversion:
    """A run made from a checkpoint, with one note for each thing that was read, chosen or assumed."""

    run: Run
    notes: tuple[str, ...]


def convert_checkpoint(checkpoint: str | Path, to: str | Path, config: ConvertConfig | None = None) -> Conversion:
    """Write a run folder with the network and the weights of a checkpoint of another code base.

    The run has the logits of the original. `vsn eval`, `vsn predict` and ``model.weights`` take it as any run; a VSN
    with the same backbone can be fine-tuned from it.

    Args:
        checkpoint: ``.pth``, ``.pth.tar`` or ``.pt`` of the official TSM, of TSN-PyTorch or of MMAction2. Only tensors
            and plain values are read; no code in the file is executed.
        to: the run folder to create; it must not exist or be empty.
        config: what the checkpoint does not contain.

    Raises:
        ConfigError: not such a checkpoint, a network that cannot be built here, or class names that do not fit.
        RunError: the folder is not empty or cannot be written.
    """
    checkpoint, config = Path(checkpoint), config or ConvertConfig()
    # Before reading hundreds of megabytes.
    check_new(Path(to), "--to")
    state, metadata = _read_checkpoint(checkpoint)
    converter = _Converter(read_foreign(state), config, metadata)
    foreign, notes = converter.foreign, converter.notes
    notes.append(f"{checkpoint.name}: parameter names of {LAYOUT_NAMES[foreign.layout]}.")
    model, classes = converter.model_config(), converter.class_names()
    backbone = converter.adapt_stem(model)
    recipe = Recipe(
        model=model,
        clip=ClipSpec(sampling=config.sampling),
        data=DataConfig(source=config.source, root=config.root),
        eval=EvalConfig(protocol=config.protocol),
    )
    num_test_frames(model, config.protocol)  # raises if they do not fit
    notes.append(
        f"Videos: {model.num_frames} frames, sampling {config.sampling!r}, shorter side {recipe.clip.short_side}, protocol "
        f"{config.protocol!r} with crops of {recipe.clip.crop_size} pixels (assumed; see --sampling, --protocol)."
    )
    # The lock removes a folder that it made and that stays empty, so that a refused checkpoint leaves none.
    with lock_folder(Path(to)):
        run = new_run(Path(to), recipe, classes, option="--to")
        network = build_model(run.recipe.model)
        _load_weights(network, backbone, foreign)
        write_run(run)
        converted = {
            "file": checkpoint.name,
            "sha256": file_sha256(checkpoint),
            "layout": foreign.layout,
            "shifted": list(foreign.shifted),
            "notes": notes,
        }
        write_json(run.path / "converted.json", converted)
        save_weights(run, network)
        # Last, because it marks the run as finished.
        write_summary(run, {"converted_from": checkpoint.name, "epochs": 0})
    return Conversion(run, tuple(notes))


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], _Metadata]:
    """Read the weights and metadata of a checkpoint file without executing anything in it."""
    if not path.is_file():
        raise ConfigError(f"There is no checkpoint {path}.")
    try:
        content = read_pickled(path)
    except UnsafeFileError as error:
        raise ConfigError(
            f"{path} cannot be read: {error}. If you trust its source, extract the weights once, with its own packages: "
            f"torch.save({{'state_dict': torch.load({path.name!r}, map_location='cpu', weights_only=False)['state_dict']}}, "
            "'weights.pth'), and convert weights.pth."
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} holds a {type(content).__name__}; a checkpoint is a dict with a state_dict.")
    # Some users save the bare state dict, without the training's other entries.
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(
            f"{path} has no state_dict of names to tensors; its entries are {', '.join(map(str, list(content)[:6]))}."
        )
    return {str(name): tensor for name, tensor in state.items()}, _metadata(content.get("meta"))


@dataclass(frozen=True)
class _Metadata:
    """What an MMAction2 checkpoint states about itself; 0 and () where it does not."""

    num_frames: int = 0
    shift_div: int = 0
    classes: tuple[str, ...] = ()


def _metadata(meta: object) -> _Metadata:
    if not isinstance(meta, Mapping):
        return _Metadata()
    config = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")

    def number(*names: str) -> int:
        # The config is Python source, in which num_segments=8 and 'num_segments': 8 both occur.
        matches = (re.search(rf"\b{name}['\"]?\s*[=:]\s*(\d+)", config) for name in names)
        return next((int(match[1]) for match in matches if match), 0)

    # MMAction2 1.x has dataset_meta, 0.x has CLASSES.
    data = meta.get("dataset_meta")
    classes = (data.get("classes") if isinstance(data, Mapping) else None) or meta.get("CLASSES") or ()
    is_list = isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    if not is_list or len(set(classes)) < len(classes):
        classes = ()
    return _Metadata(number("num_segments", "num_clips"), number("shift_div"), tuple(classes))


class _Converter:
    """Derive a run's settings and weights from a checkpoint, with a note for each decision."""

    def __init__(self, foreign: ForeignWeights, config: ConvertConfig, metadata: _Metadata) -> None:
        self.foreign, self.config, self.metadata = foreign, config, metadata
        self.notes: list[str] = []
        self.backbone = find_backbone(foreign.backbone)
        with torch.device("meta"):
            self.stem = stem_name(build_backbone(self.backbone))

    def model_config(self) -> ModelConfig:
        """The network's settings."""
        self.notes.append(
            f"Backbone {self.backbone}, by names and shapes; stride in the 3x3 convolution, as in torchvision."
        )
        # No tensor's shape depends on T or on shift_div, so they cannot be detected.
        num_frames = self._number("num_frames", self.config.num_frames, self.metadata.num_frames)
        modality, length = self._modality()
        tsn = ModelConfig(name=f"tsn_{self.backbone}", num_frames=num_frames, modality=modality, flow_length=length)
        shifted = self.foreign.shifted
        if not shifted:
            self.notes.append("TSN: no convolution follows a temporal shift.")
            return tsn
        places, every = plan_shift(self.backbone, shifted)
        ordinal = {1: "each one", 2: "every 2nd", 3: "every 3rd"}.get(every, f"every {every}th")
        self.notes.append(f"TSM: {len(shifted)} blocks shift, {ordinal} of {' '.join(places)}.")
        shift_div = self._number("shift_div", self.config.shift_div, self.metadata.shift_div)
        return replace(tsn, name=f"tsm_{self.backbone}", shift_div=shift_div, shift_places=places, shift_every=every)

    def _number(self, key: str, option: int, stated: int) -> int:
        value = option or stated or 8  # the default of both code bases
        source = "from the checkpoint" if stated else "assumed"
        reason = "from the option" if option else f"{source}; change it with --{key.replace('_', '-')}"
        self.notes.append(f"{key} = {value} ({reason}).")
        return value

    def _modality(self) -> tuple[Modality, int]:
        """The input of the first convolution, and L; `ConfigError` if its channels contradict the option."""
        channels = self.foreign.backbone[f"{self.stem}.weight"].shape[1]
        # The smallest reading: 15 channels are 5 RGB differences, 10 are 5 flow fields; 6 could be either, and flow
        # is usual.
        by_channels: Modality = "rgb" if channels == 3 else "flow" if channels % 2 == 0 else "rgbdiff"
        modality: Modality = by_channels if self.config.modality == "auto" else self.config.modality
        unit = {"rgb": 3, "flow": 2, "rgbdiff": 3}[modality]
        if channels % unit or (modality == "rgb" and channels != 3):
            raise ConfigError(
                f"The first convolution takes {channels} channels, but modality {modality!r} has "
                f"{unit if modality == 'rgb' else f'{unit} for each of L'}. Leave out --modality, or name another."
            )
        if modality == "rgbdiff" and self.foreign.layout == "mmaction2":
            raise ConfigError(
                f"The first convolution takes {channels} channels, as frame differences do, but their normalization in "
                "MMAction2 is not known. If the number is even, --modality flow reads them as flow."
            )
        length = ModelConfig.flow_length if modality == "rgb" else channels // unit
        source = "from the option" if self.config.modality != "auto" else f"from the {channels} input channels"
        self.notes.append(f"Modality {modality}{'' if modality == 'rgb' else f', L = {length}'} ({source}).")
        return modality, length

    def class_names(self) -> tuple[str, ...]:
        """The class of each output."""
        num_classes = len(self.foreign.head_bias)
        if self.config.classes:
            file, order = Path(self.config.classes), self.config.class_order
            if not file.is_file():
                raise ConfigError(f"There is no file of class names {file}.")
            names = read_class_list(file).names
            # TSM sorts the labels of these two data sets by name, but those of others by their number.
            is_sorted_there = self.foreign.layout == "tsm" and file.stem in _SORTED_FILES
            if order == "sorted" or (order == "auto" and is_sorted_there):
                names, source = tuple(sorted(names)), f"{file.name}, sorted"
            else:
                source = f"{file.name}, in its order"
            if order == "auto":
                source += " (change it with --class-order)"
        elif self.metadata.classes:
            names, source = self.metadata.classes, "the checkpoint"
        else:
            self.notes.append(
                f"{num_classes} classes without names: output_0, output_1, ... Name them with --classes FILE; `vsn eval` "
                "matches classes by name."
            )
            return tuple(f"output_{i}" for i in range(num_classes))
        # Class names of the wrong data set would make every prediction wrong without an error.
        if len(names) != num_classes:
            raise ConfigError(
                f"Expected {num_classes} classes, one per output of the checkpoint, got {len(names)} from {source}. "
                "Pass the class names of its training data with --classes."
            )
        self.notes.append(f"{num_classes} classes from {source}: {', '.join(map(repr, names[:3]))}, ...")
        return names

    def adapt_stem(self, model: ModelConfig) -> dict[str, Tensor]:
        """The backbone's weights, changed where the original prepares its input differently from a run.

        The difference is linear, so it goes into the first convolution.
        """
        weights = dict(self.foreign.backbone)
        key = f"{self.stem}.weight"
        if self.config.bgr and model.modality != "rgb":
            raise ConfigError(f"--bgr swaps color channels, which modality {model.modality!r} does not have.")
        if model.modality == "rgb":
            if self.config.bgr:
                # A convolution over channels in reverse order is one with reversed weights over channels in order.
                weights[key] = weights[key].flip(1)
            colors = "BGR, swapped in the first convolution" if self.config.bgr else "RGB"
            source = "from the option" if self.config.bgr else "assumed; change it with --bgr"
            self.notes.append(f"Input: {colors} ({source}), normalized with ImageNet's mean and standard deviation.")
        elif model.modality == "rgbdiff":
            # TSN subtracts frames in [0, 1]; a run also divides the differences by the standard deviation.
            std = torch.tensor(IMAGENET_STD, dtype=weights[key].dtype).repeat(model.flow_length).view(1, -1, 1, 1)
            weights[key] = weights[key] * std
            self.notes.append("Input: differences of frames; the standard deviation is in the first convolution.")
        elif self.foreign.layout == "mmaction2":
            weights |= _mmaction2_flow_stem(weights, self.stem)
            self.notes.append(
                "Input: flow normalized with mean and standard deviation 128; the difference to ours, 127.5 and 57.6, is in "
                "the first convolution and its batch norm. At the border of a frame it is wrong by half a gray level."
            )
        else:
            self.notes.append("Input: flow normalized with mean 0.5 and standard deviation 0.226, as the original.")
        return weights


def _mmaction2_flow_stem(weights: Mapping[str, Tensor], stem: str) -> dict[str, Tensor]:
    """The first convolution and its batch norm, for flow that is normalized as in a run instead of as in MMAction2.

    MMAction2 normalizes a byte x to (x - 128) / 128, a run to y = (x / 255 - 0.5) / 0.226, so MMAction2's is a * y + b.
    The convolution takes the factor a; what b adds to each of its outputs is subtracted from the running mean.
    """
    factor = 255 * FLOW_STD[0] / _MMACTION2_FLOW
    offset = (255 * FLOW_MEAN[0] - _MMACTION2_FLOW) / _MMACTION2_FLOW
    weight = weights[f"{stem}.weight"]
    mean = stem.replace("conv", "bn") + ".running_mean"
    if mean not in weights:
        raise ConfigError(f"MMAction2 normalizes flow differently, and without {mean} it cannot be converted.")
    return {f"{stem}.weight": weight * factor, mean: weights[mean] - offset * weight.sum(dim=(1, 2, 3))}


def _load_weights(network: VideoClassifier, weights: Mapping[str, Tensor], foreign: ForeignWeights) -> None:
    expected, actual = tuple(network.head.weight.shape), tuple(foreign.head_weight.shape)
    # A classifier on other features than the pooled ones has other inputs, such as TRN's.
    if expected != actual:
        raise ConfigError(
            f"Expected a classifier of shape {expected} for this backbone, got {actual}: its input is not the features of "
            "the backbone, so it cannot be converted."
        )
    state = network.backbone.state_dict()
    # Old checkpoints lack the batch counts; they stay zero.
    counts = {name: tensor for name, tensor in state.items() if name.endswith("num_batches_tracked")}
    # A second classifier, say: `find_backbone` compares no classifiers.
    refuse_unused([foreign.names[name] for name in weights if name not in state])
    network.backbone.load_state_dict(counts | dict(weights), strict=True)
    network.head.load_state_dict({"weight": foreign.head_weight, "bias": foreign.head_bias}, strict=True)
