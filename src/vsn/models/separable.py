"""Residual blocks of networks built of depthwise convolutions: where a shuffle pair mixes frames in them.

A depthwise convolution gives each channel its own filter, so that a shuffle pair around it mixes nothing: what
comes out of a channel came from one channel, and so from one frame. The pair goes around the pointwise (1x1)
convolution beside it instead, which sees all channels: each shuffled frame holds ``C / T`` channels of every frame.
This placement is ours; the paper knows ResNets alone, whose 3x3 convolutions are dense.

Of the two pointwise convolutions of an inverted residual block it is the projecting one, the last. The limit C >= T is
the same for both, since one has the block's narrow width as inputs, the other as outputs. But what the shuffle
divides among T frames is the input: there it is the wide one, six times as many channels of each frame. And depthwise and
projecting convolution together are the separable form of one dense 3x3, the one a compact block wraps.

MobileNet V2 and V3, EfficientNet: the blocks are those with an identity path and an expanding convolution, as in
the official TSM, which shifts before the expanding convolution of these alone. A stage is what has one size of feature maps:
res2 a quarter of the frame's height or more, res5 a 32nd. A fused block (EfficientNetV2) has a dense 3x3,
which is wrapped as in the paper. ConvNeXt: the shift goes before the depthwise 7x7, which begins the block; the pair
around the projecting linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn
from torchvision.models.convnext import CNBlock, ConvNeXt
from torchvision.models.efficientnet import EfficientNet
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.mobilenetv3 import MobileNetV3
from torchvision.ops.misc import SqueezeExcitation

from vsn.config import STAGES
from vsn.models.residual import ResidualBlock

_INVERTED = {"InvertedResidual", "MBConv", "FusedMBConv", "EdgeResidual", "DepthwiseSeparableConv"}
"""Names of the classes of blocks, torchvision's and timm's: some share a name across files, none means something else."""


def separable_blocks(backbone: nn.Module) -> dict[str, list[ResidualBlock]] | None:
    """The residual blocks by stage, as `vsn.models.backbones.residual_blocks`; None of another architecture.

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
            block = ResidualBlock(
                name, head="block.0", spatial="block.5", tail="block.6", pointwise="block.5"
            )
            rows.setdefault(name.rpartition(".")[0], []).append(block)
    return dict(zip(STAGES, rows.values(), strict=True))
