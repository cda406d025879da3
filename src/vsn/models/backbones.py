"""Plain 2D CNNs: building them, their pretrained weights, and where their residual blocks are.

A backbone is what torchvision or timm gives, with its own weight names; its classifier is replaced
by `nn.Identity`, so that it maps frames ``(N, 3, H, W)`` to features ``(N, D)``.
"""

from __future__ import annotations

import difflib
from types import ModuleType

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from vsn.config import ConfigError, Modality

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
        downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
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


def normalization(backbone: nn.Module, modality: Modality = "rgb") -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of values in [0, 1], by channel: what a backbone's weights expect of RGB
    (ImageNet's, or timm's own); for flow one for all channels (TSN)."""
    if modality == "flow":
        return FLOW_MEAN, FLOW_STD
    own = getattr(backbone, "pretrained_cfg", None) or {}
    return tuple(own.get("mean", IMAGENET_MEAN)), tuple(own.get("std", IMAGENET_STD))


def build_timm(name: str) -> nn.Module:
    """Build a timm backbone with random weights and its own classifier (of 1000 classes).

    Args:
        name: timm's name, such as ``resnet26d``.

    Raises:
        ConfigError: timm is not installed, or has no such model (the nearest names are offered).
    """
    timm = _import_timm()
    # Asked first, because create_model would take other names for something to download.
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ConfigError(
            f"timm has no model {name!r}. "
            + (f"Nearest: {', '.join(near)}. " if near else "")
            + "timm.list_models('*resnet*') searches its names."
        )
    return timm.create_model(name, pretrained=False, num_classes=1000)


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            "A timm/ backbone needs the package timm, which is not installed: pip install 'vsn[timm]'."
        ) from error
    return timm
