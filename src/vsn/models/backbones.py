"""Build plain 2D CNNs: torchvision's, timm's, BN-Inception, and small ResNets defined here.

A backbone keeps the weight names of its library. `remove_classifier` replaces its classifier by `nn.Identity`, so that it
maps frames ``(N, 3, H, W)`` to features ``(N, D)``.
"""

from __future__ import annotations

import difflib

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from vsn.config import ConfigError
from vsn.config.distribution import install_command
from vsn.models.bn_inception import BnInceptionClassifier
from vsn.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from vsn.models.stem import widen_stem

# A name here makes `tsn_<name>`; shift and shuffle also need its family in `vsn.models.blocks`.
# fmt: off
TORCHVISION_BACKBONES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
    "densenet121", "densenet161", "densenet169", "densenet201",
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    *(f"efficientnet_b{size}" for size in range(5)), "efficientnet_v2_s", "efficientnet_v2_m",
    *(f"regnet_{line}_{size}" for line in "xy" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf")),
    "convnext_tiny", "convnext_small", "convnext_base",
)
# fmt: on


class ThinResNet(nn.Module):
    """A bottleneck ResNet thin and shallow enough to train from scratch on a laptop's CPU.

    Blocks and weight names are those of torchvision's ResNet.
    """

    def __init__(self, *, widths: tuple[int, int, int, int], layers: tuple[int, int, int, int]) -> None:
        super().__init__()
        inputs = widths[0]
        self.conv1 = nn.Conv2d(3, inputs, 5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages: list[nn.Sequential] = []
        for width, depth in zip(widths, layers, strict=True):
            stages.append(self._stage(inputs, width, depth, stride=2 if stages else 1))
            inputs = Bottleneck.expansion * width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module = nn.Linear(inputs, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, planes: int, depth: int, *, stride: int) -> nn.Sequential:
        outputs = planes * Bottleneck.expansion
        # The first block always changes the width, so that its shortcut is a projection.
        downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
        blocks = [Bottleneck(inputs, planes, stride, downsample)]
        blocks += [Bottleneck(outputs, planes) for _ in range(depth - 1)]
        return nn.Sequential(*blocks)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames ``(N, 3, H, W)`` to logits, or to features if ``fc`` is removed."""
        frames = self.maxpool(self.relu(self.bn1(self.conv1(frames))))
        frames = self.layer4(self.layer3(self.layer2(self.layer1(frames))))
        return self.fc(self.avgpool(frames).flatten(1))


THIN_BACKBONES: dict[str, tuple[tuple[int, int, int, int], tuple[int, int, int, int]]] = {
    "resnet26_thin": ((16, 32, 64, 128), (2, 2, 2, 2)),
    # Four channels of its 3x3 convolutions for each of eight frames in res2, where resnet26_thin has two.
    "resnet26_slim": ((32, 32, 64, 128), (2, 2, 2, 2)),
    "resnet14_tiny": ((8, 16, 32, 64), (1, 1, 1, 1)),
}
"""Width of the 3x3 convolutions, and number of blocks, of each stage."""


def list_backbones() -> list[str]:
    """List the backbones that need no extra package. timm's are ``timm/<name>``."""
    return [*TORCHVISION_BACKBONES, "bn_inception", *THIN_BACKBONES]


def build_backbone(name: str, *, in_channels: int = 3) -> nn.Module:
    """Build a backbone with random weights and its own classifier, of 1000 classes.

    Args:
        name: one of `list_backbones`, or ``timm/<name>``.
        in_channels: channels of the frames. Other than 3 need a backbone with a single first convolution (`widen_stem`).

    Raises:
        ConfigError: no such backbone (the nearest names are offered), or timm is not installed.
    """
    if name.startswith("timm/"):
        backbone = _build_timm(name.removeprefix("timm/"))
    elif name in THIN_BACKBONES:
        widths, layers = THIN_BACKBONES[name]
        backbone = ThinResNet(widths=widths, layers=layers)
    elif name == "bn_inception":
        backbone = BnInceptionClassifier()
    elif name in TORCHVISION_BACKBONES:
        # torchvision computes a RegNet's widths with tensors, which have no values on the meta device.
        device = torch.get_default_device()
        with torch.device("cpu") if name.startswith("regnet") else device:
            backbone = tv.get_model(name, weights=None)
        backbone.to(device)
    else:
        raise ConfigError(
            f"No backbone {name!r}. {_nearest(name, list_backbones())}`vsn models` lists those of torchvision; timm's are "
            "'timm/<name>'."
        )
    # Last, so that the other weights are the same random ones for all modalities with one seed.
    widen_stem(backbone, in_channels)
    return backbone


def _build_timm(name: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"A timm/ backbone needs the package timm, which is not installed: {install_command('timm')}."
        ) from error
    # create_model would take some unknown names for something to download.
    if not timm.is_model(name):
        raise ConfigError(
            f"timm has no model {name!r}. {_nearest(name, timm.list_models())}timm.list_models() lists them."
        )
    return timm.create_model(name, pretrained=False, num_classes=1000)


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"Nearest: {', '.join(near)}. " if near else ""


def remove_classifier(backbone: nn.Module) -> int:
    """Replace the backbone's classifier by `nn.Identity`; return the width D of its features.

    Raises:
        ConfigError: the classifier is not found.
    """
    for name in ("fc", "classifier", "head"):
        layer = getattr(backbone, name, None)
        if isinstance(layer, nn.Linear):
            setattr(backbone, name, nn.Identity())
            return layer.in_features
        if isinstance(layer, nn.Sequential) and len(layer) and isinstance(last := layer[-1], nn.Linear):
            # Earlier layers keep their weights, but not their dropouts: the model has one before its head, and two would
            # drop more than the recipe states.
            for i, part in enumerate(layer):
                if isinstance(part, nn.Dropout) or part is last:
                    layer[i] = nn.Identity()
            return last.in_features
    if hasattr(backbone, "reset_classifier") and hasattr(backbone, "num_features"):
        backbone.reset_classifier(0)  # type: ignore[operator]
        # timm's VGG, HGNet and others keep a hidden layer, wider than their feature maps.
        return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]
    raise ConfigError(
        f"Cannot find the classifier of {type(backbone).__name__}: expected a linear layer named fc, classifier or head, or "
        "one at the end of these."
    )


def rgb_normalization(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of RGB in [0, 1] that a backbone's weights expect: ImageNet's, or timm's own."""
    config = getattr(backbone, "pretrained_cfg", None) or {}
    return tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))
