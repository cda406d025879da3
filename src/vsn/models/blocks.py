"""Find the residual blocks of each backbone family."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torchvision.models.convnext import CNBlock, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.mobilenetv3 import MobileNetV3
from torchvision.models.regnet import RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops.misc import SqueezeExcitation

from vsn.config import STAGES, ConfigError
from vsn.models.backbones import ThinResNet


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


def stage_blocks(backbone: nn.Module) -> dict[str, list[str]]:
    """Names of the blocks of a 2D backbone or a 3D body by stage, in order: ``{"res2": [...], ..., "res5": [...]}``.

    A 3D body has its stages in ``layer1`` to ``layer4``, as torchvision's ResNets, or says where they are in an
    attribute ``stages``.

    Raises:
        ConfigError: the architecture is not known.
    """
    stated = getattr(backbone, "stages", None)
    if isinstance(stated, dict):
        return stated
    layers = [getattr(backbone, f"layer{i}", None) for i in range(1, 5)]
    found = [layer for layer in layers if isinstance(layer, nn.Module)]
    if len(found) == len(STAGES) and any(isinstance(module, nn.Conv3d) for module in backbone.modules()):
        return {
            stage: [f"layer{i}.{name}" for name, _ in layer.named_children()]
            for i, (stage, layer) in enumerate(zip(STAGES, found, strict=True), 1)
        }
    return {stage: [block.name for block in blocks] for stage, blocks in residual_blocks(backbone).items()}


@dataclass(frozen=True)
class ResidualBlock:
    """A residual block of a backbone, by the names of its modules.

    Attributes:
        name: the block, such as ``layer1.2``.
        head: its first convolution, relative to the block; the residual branch enters there.
        spatial: its 3x3 convolution, the one a compact block wraps; where that is depthwise, the pointwise
            one that mixes (`vsn.models.blocks`).
        tail: the last module of the residual branch before the addition.
        pointwise: its projecting 1x1 convolution or linear layer, which a pointwise block wraps; "" where
            there is none, or none is known.
    """

    name: str
    head: str
    spatial: str
    tail: str
    pointwise: str = ""

    def path(self, part: str) -> str:
        """The full name of a part of the block."""
        return f"{self.name}.{part}"


_INVERTED = {"InvertedResidual", "MBConv", "FusedMBConv", "EdgeResidual", "DepthwiseSeparableConv"}
"""Names of the classes of blocks, torchvision's and timm's: some share a name across files, none means something else."""


def separable_blocks(backbone: nn.Module) -> dict[str, list[ResidualBlock]] | None:
    """The residual blocks by stage, as `vsn.models.blocks.residual_blocks`; None of another architecture.

    A stage without such a block is empty: res2 of MobileNetV3-Small.
    """
    if isinstance(backbone, MobileNetV2 | MobileNetV3 | EfficientNet):
        return _inverted_stages(backbone, "features")
    if isinstance(backbone, ConvNeXt):
        return _convnext_stages(backbone)
    if type(backbone).__module__ in {"timm.models.efficientnet", "timm.models.mobilenetv3"}:
        return _inverted_stages(backbone, "blocks")
    return None


def _inverted_stages(backbone: nn.Module, parent: str) -> dict[str, list[ResidualBlock]]:
    found: dict[str, list[ResidualBlock]] = {stage: [] for stage in STAGES}
    # timm's stem, of stride 2, stands outside its blocks; torchvision's is the first feature.
    reduction = 1 if parent == "features" else 2
    for name, module in _leaves(backbone.get_submodule(parent), parent):
        convs = _convolutions(module)
        reduction *= max((conv.stride[0] for _, conv in convs), default=1)
        if type(module).__name__ not in _INVERTED or not _has_identity(module):
            continue
        if convs[0][1].groups > 1:  # nothing expands before the depthwise convolution
            continue
        stage = STAGES[max(0, min(3, reduction.bit_length() - 3))]
        found[stage].append(_inverted_block(name, module, convs))
    return found


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """The blocks in their order, whether they stand in stages or in one row, and what stands between them."""
    for child, part in module.named_children():
        if type(part) is nn.Sequential:
            yield from _leaves(part, f"{name}.{child}")
        else:
            yield f"{name}.{child}", part


def _convolutions(module: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """Convolutions of a block in their order, but for those of its squeeze and excitation."""
    gates = {
        name
        for name, part in module.named_modules()
        if isinstance(part, SqueezeExcitation) or type(part).__name__ in {"SqueezeExcite", "SEModule"}
    }
    return [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d) and not any(name.startswith(f"{gate}.") for gate in gates)
    ]


def _has_identity(block: nn.Module) -> bool:
    return bool(getattr(block, "use_res_connect", getattr(block, "has_skip", False)))


def _inverted_block(name: str, block: nn.Module, convs: Sequence[tuple[str, nn.Conv2d]]) -> ResidualBlock:
    dense = [part for part, conv in convs if conv.groups == 1 and conv.kernel_size[0] > 1]
    tail = [part for part, module in block.named_modules() if isinstance(module, nn.BatchNorm2d)][-1]
    last, conv = convs[-1]
    # A fused block that does not widen is one 3x3 convolution.
    pointwise = last if conv.kernel_size == (1, 1) else ""
    spatial = dense[0] if dense else last
    return ResidualBlock(name, head=convs[0][0], spatial=spatial, tail=tail, pointwise=pointwise)


def _convnext_stages(backbone: nn.Module) -> dict[str, list[ResidualBlock]]:
    rows: dict[str, list[ResidualBlock]] = {}
    for name, module in backbone.named_modules():
        if isinstance(module, CNBlock):
            block = ResidualBlock(name, head="block.0", spatial="block.5", tail="block.6", pointwise="block.5")
            rows.setdefault(name.rpartition(".")[0], []).append(block)
    return dict(zip(STAGES, rows.values(), strict=True))


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
    # Its 7x7 is depthwise: the projecting layer mixes (`vsn.models.blocks`).
    "convnext": {"ConvNeXtBlock": ("conv_dw", "mlp.fc2", "mlp.fc2")},
}


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
