"""Find the residual blocks of each backbone family, by stage."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from vsn.config import STAGES, ConfigError


@dataclass(frozen=True)
class ResidualBlock:
    """A residual block of a backbone, by the full names of its modules.

    Attributes:
        name: the block, such as ``layer1.2``.
        head: its first convolution, where the residual branch begins.
        spatial: its 3x3 convolution, which a compact block wraps. Where that is depthwise, the 1x1 convolution or linear
            layer that projects, because a depthwise convolution sees one channel, hence one frame, at a time.
        tail: the last module of the residual branch before the addition.
        pointwise: its projecting 1x1 convolution or linear layer, which a pointwise block wraps; "" if it has none.
    """

    name: str
    head: str
    spatial: str
    tail: str
    pointwise: str = ""


# A family of backbones, by the Python module that defines it: class of its blocks -> head, spatial, tail and, where known,
# pointwise, named relative to the block. To add a family, add its module here. All its blocks must be listed: the last of a
# stage is the one that shuffles. RepVGG and MobileOne are not supported: fusing their branches would drop the operations.
FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "torchvision.models.resnet": {
        # The first 3x3 of a basic block may have a stride, the second never has (our reading of the paper).
        "BasicBlock": ("conv1", "conv2", "bn2"),
        "Bottleneck": ("conv1", "conv2", "bn3", "conv3"),
    },
    "vsn.models.backbones": {"Bottleneck": ("conv1", "conv2", "bn3", "conv3")},
    # A stage is a dense block and a block is a dense layer, whose output is concatenated, not added.
    "torchvision.models.densenet": {"_DenseLayer": ("conv1", "conv2", "conv2", "conv1")},
    # The 3x3 is grouped: whether a shuffle around it mixes frames depends on T (`vsn.models.insertion` checks).
    "torchvision.models.regnet": {"ResBottleneckBlock": ("f.a.0", "f.b.0", "f.c.1", "f.c.0")},
    "torchvision.models.convnext": {"CNBlock": ("block.0", "block.5", "block.6", "block.5")},
    "timm.models.resnet": {
        "BasicBlock": ("conv1", "conv2", "bn2"),
        "Bottleneck": ("conv1", "conv2", "bn3"),
        # Res2Net: the first 3x3 of the chain: what it mixes is added to the inputs of the others.
        "Bottle2neck": ("conv1", "convs.0", "bn3"),
    },
    "timm.models.senet": {
        "SEResNetBlock": ("conv1", "conv2", "bn2"),
        "SEResNetBottleneck": ("conv1", "conv2", "bn3"),
        "SEResNeXtBottleneck": ("conv1", "conv2", "bn3"),
        "SEBottleneck": ("conv1", "conv2", "bn3"),
    },
    "timm.models.resnetv2": {
        "PreActBasic": ("conv1", "conv2", "conv2"),
        "PreActBottleneck": ("conv1", "conv2", "conv3"),
        "Bottleneck": ("conv1", "conv2", "norm3"),
    },
    "timm.models.regnet": {
        "Bottleneck": ("conv1.conv", "conv2.conv", "conv3.bn"),
        "PreBottleneck": ("conv1", "conv2", "conv3"),
    },
    "timm.models.tresnet": {
        "BasicBlock": ("conv1.conv", "conv2.conv", "conv2.bn"),
        "Bottleneck": ("conv1.conv", "conv2.conv", "conv3.bn"),
    },
    "timm.models.byobnet": {
        "BasicBlock": ("conv1_kxk.conv", "conv2_kxk.conv", "conv2_kxk.bn"),
        "BottleneckBlock": ("conv1_1x1.conv", "conv2_kxk.conv", "conv3_1x1.bn"),
        "DarkBlock": ("conv1_1x1.conv", "conv2_kxk.conv", "conv2_kxk.bn"),
        "EdgeBlock": ("conv1_kxk.conv", "conv1_kxk.conv", "conv2_1x1.bn"),
    },
    "timm.models.cspnet": {
        "BottleneckBlock": ("conv1.conv", "conv2.conv", "conv3.bn"),
        "DarkBlock": ("conv1.conv", "conv2.conv", "conv2.bn"),
        "EdgeBlock": ("conv1.conv", "conv1.conv", "conv2.bn"),
    },
    "timm.models.dla": {
        "DlaBasic": ("conv1", "conv2", "bn2"),
        "DlaBottleneck": ("conv1", "conv2", "bn3"),
        "DlaBottle2neck": ("conv1", "convs.0", "bn3"),
    },
    # One-shot aggregation: only the first convolution sees the block's input, which also bypasses it to the last.
    "timm.models.vovnet": {"OsaBlock": ("conv_mid.0.conv", "conv_mid.1.conv", "conv_concat.bn")},
    "timm.models.densenet": {"DenseLayer": ("conv1", "conv2", "conv2")},
    "timm.models.convnext": {"ConvNeXtBlock": ("conv_dw", "mlp.fc2", "mlp.fc2")},
}

# Families of inverted residual blocks, whose parts are found by their shape: module -> where the blocks are.
INVERTED_FAMILIES = {
    "torchvision.models.mobilenetv2": "features",
    "torchvision.models.mobilenetv3": "features",
    "torchvision.models.efficientnet": "features",
    "timm.models.efficientnet": "blocks",
    "timm.models.mobilenetv3": "blocks",
}
# torchvision's and timm's names; none of them means something else in the other.
_INVERTED_BLOCKS = {"InvertedResidual", "MBConv", "FusedMBConv", "EdgeResidual", "DepthwiseSeparableConv"}
_SQUEEZE_EXCITATIONS = {"SqueezeExcitation", "SqueezeExcite", "SEModule"}

# fmt: off
TIMM_EXAMPLES = (
    "resnet26d", "seresnet50", "ecaresnet26t", "res2net50_26w_4s", "legacy_seresnet18", "resnetv2_50", "regnetx_002",
    "regnety_002", "tresnet_m", "gcresnet33ts", "darknet53", "cspresnet50", "cs3darknet_s", "dla34", "dla60_res2net",
    "ese_vovnet19b_slim", "densenet121", "convnext_atto", "efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100",
    "tf_efficientnetv2_b0",
)
# fmt: on
"""A tested timm name of every family that takes temporal operations."""


def residual_blocks(backbone: nn.Module) -> dict[str, list[ResidualBlock]]:
    """List the residual blocks of a 2D backbone by stage, in order: ``{"res2": [...], ..., "res5": [...]}``.

    A stage may be empty (res2 of MobileNetV3-Small). Of timm's five stages (Darknet, GENet) the first two form res2.

    Raises:
        ConfigError: the family is not known, or the variant has other blocks, such as attention, between the known ones.
    """
    # A network defined here may list its own.
    if callable(own := getattr(backbone, "residual_blocks", None)):
        return own()
    # Base classes too, so that a subclass of torchvision's ResNet is one of its family.
    modules = [cls.__module__ for cls in type(backbone).__mro__]
    for module in modules:
        if module in INVERTED_FAMILIES:
            return _inverted_blocks(backbone, INVERTED_FAMILIES[module])
    family = next((FAMILIES[module] for module in modules if module in FAMILIES), {})
    by_stage: dict[str, list[ResidualBlock]] = {}
    for name, block in backbone.named_modules():
        parts = next((family[cls.__name__] for cls in type(block).__mro__ if cls.__name__ in family), None)
        # A stage is named up to the first number: layer1, s1, stages.0, features.denseblock1.
        if parts and (stage := re.match(r".*?\d+(?=\.|$)", name)):
            by_stage.setdefault(stage[0], []).append(ResidualBlock(name, *(f"{name}.{part}" for part in parts)))
    is_timm = any(module.startswith("timm.") for module in modules)
    if reason := _why_incomplete(backbone, by_stage, is_timm=is_timm):
        others = f" These do: {', '.join(TIMM_EXAMPLES)}. As tsn_timm/<name> it works without them." if is_timm else ""
        raise ConfigError(
            f"{type(backbone).__name__} is not supported by insert_temporal: {reason}.{others} Name the modules instead: "
            "insert_at(model, num_frames=8, shuffle=['layer1.2.conv2'], shift=['layer1.0.conv1'])."
        )
    *earlier, res3, res4, res5 = by_stage.values()
    return dict(zip(STAGES, (list(itertools.chain(*earlier)), res3, res4, res5), strict=True))


def stage_blocks(backbone: nn.Module) -> dict[str, list[str]]:
    """List the names of the blocks of a 2D backbone or a 3D body by stage: ``{"res2": [...], ..., "res5": [...]}``.

    A 3D body has its stages in ``layer1`` to ``layer4``, as torchvision's ResNets, or lists them in an attribute ``stages``.

    Raises:
        ConfigError: the architecture is not known.
    """
    stages = getattr(backbone, "stages", None)
    if isinstance(stages, dict):
        return stages
    children = dict(backbone.named_children())
    layers = {stage: f"layer{i}" for i, stage in enumerate(STAGES, 1)}
    if children.keys() >= set(layers.values()) and any(isinstance(module, nn.Conv3d) for module in backbone.modules()):
        return {
            stage: [f"{layer}.{name}" for name, _ in children[layer].named_children()]
            for stage, layer in layers.items()
        }
    return {stage: [block.name for block in blocks] for stage, blocks in residual_blocks(backbone).items()}


def _inverted_blocks(backbone: nn.Module, parent: str) -> dict[str, list[ResidualBlock]]:
    """Find inverted residual blocks: a 1x1 convolution expands, a depthwise one filters, a 1x1 projects."""
    by_stage: dict[str, list[ResidualBlock]] = {stage: [] for stage in STAGES}
    # timm's stem, of stride 2, is outside of `blocks`; torchvision's is the first of `features`.
    stride = 1 if parent == "features" else 2
    for name, block in _flatten(backbone.get_submodule(parent), parent):
        gates = tuple(f"{n}." for n, part in block.named_modules() if type(part).__name__ in _SQUEEZE_EXCITATIONS)
        convs = [
            (n, part) for n, part in block.named_modules() if isinstance(part, nn.Conv2d) and not n.startswith(gates)
        ]
        stride *= max((conv.stride[0] for _, conv in convs), default=1)
        has_identity = getattr(block, "use_res_connect", getattr(block, "has_skip", False))
        if type(block).__name__ not in _INVERTED_BLOCKS or not has_identity:
            continue
        if convs[0][1].groups > 1:  # no expansion, so that nothing before the depthwise convolution could mix
            continue
        # Stride 4 is res2, 8 is res3, 16 is res4, 32 is res5; blocks at stride 2 count to res2.
        stage = STAGES[max(0, min(3, stride.bit_length() - 3))]
        dense = [n for n, conv in convs if conv.groups == 1 and conv.kernel_size[0] > 1]
        last, last_conv = convs[-1]
        by_stage[stage].append(
            ResidualBlock(
                name,
                head=f"{name}.{convs[0][0]}",
                spatial=f"{name}.{dense[0] if dense else last}",
                tail=[f"{name}.{n}" for n, part in block.named_modules() if isinstance(part, nn.BatchNorm2d)][-1],
                # A fused block that does not widen is a single 3x3 convolution.
                pointwise=f"{name}.{last}" if last_conv.kernel_size == (1, 1) else "",
            )
        )
    return by_stage


def _flatten(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield blocks in order, and the layers between them, whether they are nested in stages or in one sequence."""
    for child, part in module.named_children():
        if type(part) is nn.Sequential:
            yield from _flatten(part, f"{name}.{child}")
        else:
            yield f"{name}.{child}", part


def _why_incomplete(backbone: nn.Module, by_stage: dict[str, list[ResidualBlock]], *, is_timm: bool) -> str:
    """Say why the known blocks may not be all blocks, so that the last of a stage is not known; "" if they are.

    timm builds variants from flags, for example a ResNet whose last blocks are attention.
    """
    if len(by_stage) < len(STAGES):
        spatial = [
            m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1 and m.stride == (1, 1)
        ]
        if not spatial:
            return "it has no 3x3 convolutions to shuffle around"
        if 2 * sum(conv.groups == conv.in_channels > 1 for conv in spatial) > len(spatial):
            return "its convolutions are depthwise, one channel each, so that a shuffle around them mixes nothing"
        return "its residual blocks are not known"
    # The known stages must be the last four of their row: of layer1 to layer4, not layer1 to layer3 and something else.
    last = list(by_stage)[-len(STAGES) :]
    parent, _, child = last[-1].rpartition(".")
    alike = re.compile(re.escape(child.rstrip("0123456789")) + r"\d+")
    siblings = [name for name, _ in backbone.get_submodule(parent).named_children() if alike.fullmatch(name)]
    if is_timm and [f"{parent}.{name}".lstrip(".") for name in siblings[-len(STAGES) :]] != last:
        return f"of its stages only {', '.join(by_stage)} consist of residual blocks"
    blocks = {block.name: block for stage in by_stage.values() for block in stage}
    for name, block in blocks.items():
        # Between the blocks of a sequence must be no others.
        row = name.rpartition(".")[0]
        sequence = backbone.get_submodule(row)
        if isinstance(sequence, nn.Sequential):
            for child, module in sequence.named_children():
                if f"{row}.{child}" not in blocks:
                    return f"{row}.{child}, next to its block {name}, is a {type(module).__name__}"
        names = {f"{name}.{part}" for part, _ in backbone.get_submodule(name).named_modules()}
        for part in (block.head, block.spatial, block.tail):
            if part not in names:
                return f"its block {name} is a variant without {part.removeprefix(f'{name}.')}"
    return ""
