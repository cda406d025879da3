"""Plain 2D CNNs: building them, their pretrained weights, and where their residual blocks are.

A backbone is what torchvision or timm gives, with its own weight names; its classifier is replaced
by `nn.Identity`, so that it maps frames ``(N, 3, H, W)`` to features ``(N, D)``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision.models as tv
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.densenet import DenseNet
from torchvision.models.regnet import RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from vsn.config import STAGES, ConfigError, Modality
from vsn.models.residual import ResidualBlock
from vsn.models.separable import separable_blocks
from vsn.models.stem import fit_stem
from vsn.models.timm_blocks import build_timm, timm_blocks

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FLOW_MEAN = (0.5,)
FLOW_STD = (0.226,)

TORCHVISION_BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    *(f"efficientnet_b{size}" for size in range(5)),
    "efficientnet_v2_s",
    "efficientnet_v2_m",
    *(f"regnet_{line}_{size}" for line in "xy" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf")),
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
)

TORCHVISION_VIDEO = ("s3d", "r2plus1d_18")
"""Names of torchvision's video networks whose weights ours can take."""


class ThinResNet(nn.Module):
    """A bottleneck ResNet thin and shallow enough to train from scratch on a laptop's CPU.

    The block structure and the names are torchvision's ResNet's; only widths and depths are smaller.
    """

    def __init__(self, *, width: int, layers: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        planes = [width, 2 * width, 4 * width, 8 * width]
        inputs = [width] + [p * Bottleneck.expansion for p in planes[:3]]
        self.layer1 = self._stage(inputs[0], planes[0], layers[0], stride=1)
        self.layer2 = self._stage(inputs[1], planes[1], layers[1], stride=2)
        self.layer3 = self._stage(inputs[2], planes[2], layers[2], stride=2)
        self.layer4 = self._stage(inputs[3], planes[3], layers[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module = nn.Linear(planes[3] * Bottleneck.expansion, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, planes: int, depth: int, *, stride: int) -> nn.Sequential:
        outputs = planes * Bottleneck.expansion
        downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
        blocks = [Bottleneck(inputs, planes, stride, downsample)]
        blocks += [Bottleneck(outputs, planes) for _ in range(depth - 1)]
        return nn.Sequential(*blocks)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames ``(N, 3, H, W)`` to the outputs of ``fc``."""
        frames = self.maxpool(self.relu(self.bn1(self.conv1(frames))))
        frames = self.layer4(self.layer3(self.layer2(self.layer1(frames))))
        return self.fc(self.avgpool(frames).flatten(1))


THIN_BACKBONES: dict[str, tuple[int, tuple[int, int, int, int]]] = {
    "resnet26_thin": (16, (2, 2, 2, 2)),
    "resnet14_tiny": (8, (1, 1, 1, 1)),
}


@dataclass(frozen=True)
class LoadedWeights:
    """What a weight file gave: names loaded, and names that keep their random start."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]

    def describe_missing(self) -> str:
        """The parts at random start, each by the outermost name under which nothing was loaded: ``layer4``."""
        known = {prefix for name in self.loaded for prefix in _prefixes(name)}
        parts = {next((p for p in _prefixes(name) if p not in known), name) for name in self.missing}
        return ", ".join(sorted(parts))


def _prefixes(name: str) -> list[str]:
    """``a.b.c``: ``["a", "a.b", "a.b.c"]``."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def list_backbones() -> list[str]:
    """Names of the backbones that need no extra package. timm's are ``timm/<name>``."""
    return [*TORCHVISION_BACKBONES, *THIN_BACKBONES]


def build_backbone(name: str) -> nn.Module:
    """Build a backbone with random weights and its own classifier still in place.

    Raises:
        ConfigError: no such backbone (the nearest names are offered), or timm is not installed.
    """
    if name.startswith("timm/"):
        return build_timm(name.removeprefix("timm/"))
    if name in THIN_BACKBONES:
        width, layers = THIN_BACKBONES[name]
        return ThinResNet(width=width, layers=layers)
    if name in TORCHVISION_BACKBONES:
        return _build_torchvision(name)
    near = difflib.get_close_matches(name, list_backbones(), n=3)
    raise ConfigError(
        f"No backbone {name!r}. " + (f"Nearest: {', '.join(near)}. " if near else "") + "`vsn models` lists "
        "those of torchvision; any timm backbone with plain 3x3 convolutions is 'timm/<its name>'."
    )


def _build_torchvision(name: str) -> nn.Module:
    if not name.startswith("regnet"):
        return tv.get_model(name, weights=None)
    # torchvision computes a RegNet's widths with tensors, which have no values on the meta device.
    device = torch.get_default_device()
    with torch.device("cpu"):
        backbone = tv.get_model(name, weights=None)
    return backbone.to(device)


def remove_classifier(backbone: nn.Module) -> int:
    """Replace the backbone's classifier by `nn.Identity`; return the width D of its features."""
    for name in ("fc", "classifier", "head"):
        layer = getattr(backbone, name, None)
        if isinstance(layer, nn.Linear):
            setattr(backbone, name, nn.Identity())
            return layer.in_features
        if isinstance(layer, nn.Sequential) and len(layer) and isinstance(layer[-1], nn.Linear):
            return _remove_last(layer)
    if hasattr(backbone, "reset_classifier") and hasattr(backbone, "num_features"):
        backbone.reset_classifier(0)  # type: ignore[operator]
        # timm's VGG, HGNet and others keep a hidden layer, wider than their feature maps.
        return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]
    raise ConfigError(
        f"Cannot find the classifier of {type(backbone).__name__}: expected a linear layer named fc, classifier or head, or "
        "one at the end of these."
    )


def _remove_last(classifier: nn.Sequential) -> int:
    """Replace the last layer of a classifier that has others, whose weights stay, and its dropouts."""
    last = classifier[-1]
    assert isinstance(last, nn.Linear)
    for i, layer in enumerate(classifier):
        # The model has a dropout of its own; two would drop more than the recipe says.
        if isinstance(layer, nn.Dropout) or i == len(classifier) - 1:
            classifier[i] = nn.Identity()
    return last.in_features


def load_pretrained(backbone: nn.Module, name: str, weights: str) -> LoadedWeights:
    """Load pretrained weights into a backbone that still has its own classifier.

    Args:
        backbone: as `build_backbone` returns it; temporal operations may have been inserted.
        name: the backbone's name.
        weights: "none"; a torchvision weight name such as "IMAGENET1K_V2"; for timm "pretrained" or
            a timm tag; or a file (.safetensors, or .pth/.pt holding a state dict) in the backbone's
            own names. A file may hold a part of the backbone: what it lacks starts at random. Weights
            for RGB fit a widened stem too (`vsn.models.stem.fit_stem`).

    Raises:
        ConfigError: unknown weight name, a file that is absent or does not fit, or a download that
            failed (the message says what to do offline).
    """
    if weights == "none":
        return LoadedWeights((), tuple(backbone.state_dict()))
    path = Path(weights)
    if is_weight_file(path):
        return load_partial(backbone, current_names(read_weight_file(path)), str(path))
    if name.startswith("timm/"):
        return load_partial(backbone, _download_timm(name, weights), weights)
    state = fit_stem(backbone, current_names(download_torchvision(name, weights)))
    backbone.load_state_dict(state, strict=True)
    return LoadedWeights(tuple(backbone.state_dict()), ())


def normalisation(
    backbone: nn.Module, modality: Modality = "rgb"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of values in [0, 1], by channel: what a backbone's weights expect of RGB
    (ImageNet's, or timm's own); for flow one for all channels (TSN)."""
    if modality == "flow":
        return FLOW_MEAN, FLOW_STD
    own = getattr(backbone, "pretrained_cfg", None) or {}
    return tuple(own.get("mean", IMAGENET_MEAN)), tuple(own.get("std", IMAGENET_STD))


def residual_blocks(backbone: nn.Module) -> dict[str, list[ResidualBlock]]:
    """The residual blocks of a backbone by stage, in order: ``{"res2": [...], ..., "res5": [...]}``.

    For a DenseNet a stage is a dense block and a block is a dense layer.

    Raises:
        ConfigError: the architecture is not known; says how to name the modules by hand.
    """
    if isinstance(backbone, ResNet | ThinResNet):
        return {stage: _resnet_stage(backbone, f"layer{i + 1}") for i, stage in enumerate(STAGES)}
    if isinstance(backbone, DenseNet):
        return {
            stage: [
                ResidualBlock(
                    f"features.denseblock{i + 1}.{layer}",
                    head="conv1",
                    spatial="conv2",
                    tail="conv2",
                    pointwise="conv1",
                )
                for layer in dict(getattr(backbone.features, f"denseblock{i + 1}").named_children())
            ]
            for i, stage in enumerate(STAGES)
        }
    if isinstance(backbone, RegNet):
        return {stage: _regnet_stage(backbone, f"block{i + 1}") for i, stage in enumerate(STAGES)}
    if (separable := separable_blocks(backbone)) is not None:
        return separable
    if type(backbone).__module__.startswith("timm."):
        return timm_blocks(backbone)
    raise ConfigError(
        f"The residual blocks of {type(backbone).__name__} are not known. Name the modules instead: "
        "insert_at(model, num_frames=8, shuffle=['layer1.2.conv2'], shift=['layer1.0.conv1'])."
    )


def _resnet_stage(backbone: nn.Module, layer: str) -> list[ResidualBlock]:
    blocks = []
    for name, block in backbone.get_submodule(layer).named_children():
        if isinstance(block, Bottleneck):
            blocks.append(
                ResidualBlock(f"{layer}.{name}", head="conv1", spatial="conv2", tail="bn3", pointwise="conv3")
            )
        else:
            assert isinstance(block, BasicBlock), type(block)
            # A basic block's first 3x3 may have a stride; the second never has (our reading).
            blocks.append(ResidualBlock(f"{layer}.{name}", head="conv1", spatial="conv2", tail="bn2"))
    return blocks


def _regnet_stage(backbone: RegNet, stage: str) -> list[ResidualBlock]:
    # Its 3x3 convolutions are grouped: whether a shuffle around them mixes depends on T (`insert_at` says).
    row = f"trunk_output.{stage}"
    return [
        ResidualBlock(f"{row}.{name}", head="f.a.0", spatial="f.b.0", tail="f.c.1", pointwise="f.c.0")
        for name, _ in backbone.get_submodule(row).named_children()
    ]


def is_weight_file(path: Path) -> bool:
    """Whether a name means a file of weights, by its ending."""
    return path.suffix in {".safetensors", ".pth", ".pt"}


def read_weight_file(path: Path) -> Mapping[str, Tensor]:
    """The state dict, names to tensors, that a file holds.

    Raises:
        ConfigError: no such file, one that is damaged, or one of something else.
    """
    if not path.is_file():
        raise ConfigError(f"model.weights names a file that is not there: {str(path)!r}.")
    try:
        state: Any = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu")
        )
    except Exception as error:  # the readers raise a dozen types for a damaged file
        raise ConfigError(f"{path} cannot be read as weights: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{path} holds no state dict (names to tensors).")
    return state


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in today's names: torchvision's DenseNet files still say ``norm.1`` for ``norm1``."""
    if any(name.startswith("backbone.") for name in state):  # a run of ours, whose head knows its own classes
        state = {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {old.sub(r"\1\2", name): value for name, value in state.items()}


def load_partial(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> LoadedWeights:
    """Load weights, in the network's own names, that may be a part of it; a stem for RGB fits a widened one.

    Raises:
        ConfigError: names that are not the network's, other shapes, or nothing at all; says it of `source`.
    """
    own, state = backbone.state_dict(), fit_stem(backbone, state)
    unknown = [name for name in state if name not in own]
    if unknown:
        raise ConfigError(
            f"{source}: {len(unknown)} of its {len(state)} names are not the backbone's, for example {unknown[0]!r}; "
            f"the backbone's look like {next(iter(own))!r}. The file must use the backbone's own names."
        )
    wrong = [name for name in state if state[name].shape != own[name].shape]
    if wrong:
        raise ConfigError(
            f"{source}: {wrong[0]!r} has shape {tuple(state[wrong[0]].shape)}, the backbone's {tuple(own[wrong[0]].shape)}."
        )
    if not state:
        raise ConfigError(f"{source}: the file holds no weights.")
    backbone.load_state_dict(state, strict=False)
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    return LoadedWeights(tuple(state), tuple(missing))


def download_torchvision(name: str, weights: str) -> Mapping[str, Tensor]:
    """The state dict of published weights, from torchvision's cache or its server.

    Raises:
        ConfigError: no such weights, or a download that failed; says what to do offline.
    """
    if name not in TORCHVISION_BACKBONES + TORCHVISION_VIDEO:
        raise ConfigError(
            f"model.weights is {weights!r}, but there are no published weights for {name!r}; use a file or 'none'."
        )
    choices = tv.get_model_weights(name)
    if weights not in choices.__members__:
        raise ConfigError(
            f"model.weights is {weights!r}; for {name} torchvision has {', '.join(choices.__members__)}. "
            "A file must end in .safetensors, .pth or .pt; a run folder has a recipe.toml."
        )
    entry = choices[weights]
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"The weights {weights} of {name} could not be downloaded ({error}). Without a network: fetch {entry.url} "
            f"elsewhere and set model.weights to the file, or set it to 'none' to start at random."
        ) from error


def _download_timm(name: str, weights: str) -> Mapping[str, Tensor]:
    import timm

    architecture = name.removeprefix("timm/")
    tagged = architecture if weights == "pretrained" else f"{architecture}.{weights}"
    try:
        # The class count of build_timm: another classifier, of 21,841 classes say, is left out by timm itself.
        return timm.create_model(tagged, pretrained=True, num_classes=1000).state_dict()
    except Exception as error:  # timm and the hub raise many types, all meaning "no weights"
        raise ConfigError(
            f"The timm weights {tagged} could not be had ({error}). Without a network: set model.weights to a "
            "file of them, or to 'none' to start at random."
        ) from error
