"""timm backbones: building them and finding their residual blocks (extra ``timm``).

TSN takes any timm CNN. TSM and VSN take the architectures below, whose blocks have a convolution of
their own on the residual branch: ResNet and what shares its code (-d and -t stems, SE-, ECA-,
Wide-ResNet, Res2Net), the older SE-ResNet, pre-activation ResNet, RegNet, TResNet, the ResNets among
timm's build-your-own networks, Darknet and CSPNet, DLA, VoVNet and DenseNet. `FAMILIES` holds a
tested name of each. Grouped 3x3 convolutions (RegNet, ResNeXt) fit some T and not others;
`insert_at` decides. ConvNeXt shuffles around its projecting layer, and so do the MobileNets and EfficientNets, whose
blocks `vsn.models.separable` finds.
"""

from __future__ import annotations

import difflib
import re
from types import ModuleType

from torch import nn

from vsn.config import STAGES, ConfigError
from vsn.models.residual import ResidualBlock

FAMILIES = (
    "resnet26d",
    "seresnet50",
    "ecaresnet26t",
    "res2net50_26w_4s",
    "legacy_seresnet18",
    "resnetv2_50",
    "regnetx_002",
    "regnety_002",
    "tresnet_m",
    "gcresnet33ts",
    "darknet53",
    "cspresnet50",
    "cs3darknet_s",
    "dla34",
    "dla60_res2net",
    "ese_vovnet19b_slim",
    "densenet121",
    "convnext_atto",
    "efficientnet_b0",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "tf_efficientnetv2_b0",
)
"""A tested timm name of every family that takes temporal operations."""

# Architecture (timm's module) -> class of a block -> its head, spatial convolution and tail.
# RepVGG and MobileOne stay out: fusing their branches for inference would drop the operations.
_BLOCKS: dict[str, dict[str, tuple[str, str, str]]] = {
    "resnet": {
        "BasicBlock": ("conv1", "conv2", "bn2"),
        "Bottleneck": ("conv1", "conv2", "bn3"),
        # The first 3x3 of the chain: what it mixes is added to the inputs of the others.
        "Bottle2neck": ("conv1", "convs.0", "bn3"),
    },
    "senet": {
        "SEResNetBlock": ("conv1", "conv2", "bn2"),
        "SEResNetBottleneck": ("conv1", "conv2", "bn3"),
        "SEResNeXtBottleneck": ("conv1", "conv2", "bn3"),
        "SEBottleneck": ("conv1", "conv2", "bn3"),
    },
    "resnetv2": {
        "PreActBasic": ("conv1", "conv2", "conv2"),
        "PreActBottleneck": ("conv1", "conv2", "conv3"),
        "Bottleneck": ("conv1", "conv2", "norm3"),
    },
    "regnet": {
        "Bottleneck": ("conv1.conv", "conv2.conv", "conv3.bn"),
        "PreBottleneck": ("conv1", "conv2", "conv3"),
    },
    "tresnet": {
        "BasicBlock": ("conv1.conv", "conv2.conv", "conv2.bn"),
        "Bottleneck": ("conv1.conv", "conv2.conv", "conv3.bn"),
    },
    "byobnet": {
        "BasicBlock": ("conv1_kxk.conv", "conv2_kxk.conv", "conv2_kxk.bn"),
        "BottleneckBlock": ("conv1_1x1.conv", "conv2_kxk.conv", "conv3_1x1.bn"),
        "DarkBlock": ("conv1_1x1.conv", "conv2_kxk.conv", "conv2_kxk.bn"),
        "EdgeBlock": ("conv1_kxk.conv", "conv1_kxk.conv", "conv2_1x1.bn"),
    },
    "cspnet": {
        "BottleneckBlock": ("conv1.conv", "conv2.conv", "conv3.bn"),
        "DarkBlock": ("conv1.conv", "conv2.conv", "conv2.bn"),
        "EdgeBlock": ("conv1.conv", "conv1.conv", "conv2.bn"),
    },
    "dla": {
        "DlaBasic": ("conv1", "conv2", "bn2"),
        "DlaBottleneck": ("conv1", "conv2", "bn3"),
        "DlaBottle2neck": ("conv1", "convs.0", "bn3"),
    },
    # Its first convolution sees the block's input alone, the input goes on beside it (one-shot aggregation).
    "vovnet": {"OsaBlock": ("conv_mid.0.conv", "conv_mid.1.conv", "conv_concat.bn")},
    "densenet": {"DenseLayer": ("conv1", "conv2", "conv2")},
    # Its 7x7 is depthwise: the projecting layer mixes (`vsn.models.separable`).
    "convnext": {"ConvNeXtBlock": ("conv_dw", "mlp.fc2", "mlp.fc2")},
}


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


def timm_blocks(backbone: nn.Module) -> dict[str, list[ResidualBlock]]:
    """The residual blocks of a timm backbone by stage: ``{"res2": [...], ..., "res5": [...]}``.

    The stages are its last four; the blocks of an earlier fifth (Darknet, GENet) count to res2.

    Raises:
        ConfigError: an architecture whose blocks are not known, or a variant that has other blocks
            among them, such as attention. The message says why and what to use instead.
    """
    known = _BLOCKS.get(_architecture(backbone), {})
    found: dict[str, list[ResidualBlock]] = {}
    for name, module in backbone.named_modules():
        # A stage is named up to the first number: layer1, s1, stages.0, features.denseblock1.
        if type(module).__name__ in known and (stage := re.match(r".*?\d+(?=\.|$)", name)):
            head, spatial, tail = known[type(module).__name__]
            found.setdefault(stage[0], []).append(ResidualBlock(name, head=head, spatial=spatial, tail=tail))
    if reason := _why_not(backbone, found):
        raise ConfigError(
            f"timm's {type(backbone).__name__} takes no temporal operations by itself: {reason}. "
            f"These do, and what is built like them: {', '.join(FAMILIES)}. Without them it works as "
            "tsn_timm/<name>; to choose the modules yourself: "
            "insert_at(model, num_frames=8, shuffle=['layer1.2.conv2'], shift=['layer1.0.conv1'])."
        )
    last = list(found)[-len(STAGES) :]
    stages = {stage: found[name] for stage, name in zip(STAGES, last, strict=True)}
    stages["res2"] = [one for name in found if name not in last for one in found[name]] + stages["res2"]
    return stages


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            "A timm/ backbone needs the package timm, which is not installed: pip install 'vsn[timm]'."
        ) from error
    return timm


def _architecture(backbone: nn.Module) -> str:
    return type(backbone).__module__.rpartition(".")[2]


def _why_not(backbone: nn.Module, found: dict[str, list[ResidualBlock]]) -> str:
    """Why the blocks found may not be all there are, so that the last of a stage is not known; or ""."""
    if len(found) < len(STAGES):
        return _why_unknown(backbone)
    last = list(found)[-len(STAGES) :]
    parent, _, child = last[-1].rpartition(".")
    alike = re.compile(re.escape(child.rstrip("0123456789")) + r"\d+")
    siblings = [name for name, _ in backbone.get_submodule(parent).named_children() if alike.fullmatch(name)]
    if [f"{parent}.{name}".lstrip(".") for name in siblings[-len(STAGES) :]] != last:
        return f"of its stages only {', '.join(found)} are made of residual blocks"
    blocks = {one.name: one for stage in found.values() for one in stage}
    for name, one in blocks.items():
        row = name.rpartition(".")[0]
        beside = backbone.get_submodule(row)
        if isinstance(beside, nn.Sequential):
            for child, module in beside.named_children():
                if f"{row}.{child}" not in blocks:
                    return f"{row}.{child}, beside its block {name}, is a {type(module).__name__}"
        parts = dict(backbone.get_submodule(name).named_modules())
        for part in (one.head, one.spatial, one.tail):
            if part not in parts:
                return f"its block {name} is of a variant without {part}"
    return ""


def _why_unknown(backbone: nn.Module) -> str:
    convs = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    spatial = [conv for conv in convs if conv.kernel_size[0] > 1 and conv.stride == (1, 1)]
    if not spatial:
        return "it has no 3x3 convolutions to shuffle around"
    if 2 * sum(conv.groups == conv.in_channels > 1 for conv in spatial) > len(spatial):
        return "its convolutions are depthwise, one channel each, so that a shuffle around them mixes nothing"
    return "where its residual blocks are is not known"
