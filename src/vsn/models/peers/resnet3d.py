"""Define a bottleneck ResNet on volumes ``(B, C, T, H, W)``, the base of C2D, I3D, CoST and SlowFast.

The modules have the names of torchvision's ResNet (``conv1``, ``layer2.0.downsample.0``, ...), so that weights of the 2D
network can be inflated. The networks differ only in the kernels' length in time, the strides in time and the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

EXPANSION = 4
"""Output channels of a bottleneck block, in units of its planes."""


@dataclass(frozen=True)
class Shape:
    """The settings that a 3D ResNet takes from its 2D network.

    Attributes:
        layers: blocks of res2 to res5.
        width: output channels of the stem; res2 has 4 times as many, and each later stage twice those of the one before.
        stem_size: height and width of the stem's kernel.
    """

    layers: tuple[int, int, int, int]
    width: int = 64
    stem_size: int = 7

    @property
    def stage_inputs(self) -> tuple[int, int, int, int]:
        """Input channels of res2 to res5."""
        return (self.width, EXPANSION * self.width, EXPANSION * 2 * self.width, EXPANSION * 4 * self.width)


SHAPES = {
    "resnet50": Shape((3, 4, 6, 3)),
    "resnet101": Shape((3, 4, 23, 3)),
    "resnet26_thin": Shape((2, 2, 2, 2), width=16, stem_size=5),
}
"""Shapes by the name of the 2D network."""


@dataclass(frozen=True, kw_only=True)
class TimePlan:
    """The kernels and strides of a 3D ResNet along time; along height and width it is torchvision's ResNet.

    Attributes:
        stem_kernel: length in time of the first convolution.
        stem_stride: its stride in time.
        pool1: kernel and stride in time of the max pooling after it.
        pool2: kernel and stride in time of a max pooling after res2; None: no pooling.
        kernels: for each stage, the lengths in time of the first convolution of its blocks, repeated cyclically: ``(3, 1)``
            inflates every other block.
        res5_stride: stride of res5 in height and width.
    """

    stem_kernel: int = 1
    stem_stride: int = 1
    pool1: tuple[int, int] = (1, 1)
    pool2: tuple[int, int] | None = None
    kernels: tuple[tuple[int, ...], ...] = ((1,), (1,), (1,), (1,))
    res5_stride: int = 2


class Bottleneck3d(nn.Module):
    """torchvision's bottleneck block with a first convolution of ``kernel`` x1x1 and a second of 1x3x3."""

    def __init__(self, inputs: int, planes: int, *, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        outputs = planes * EXPANSION
        self.conv1 = nn.Conv3d(inputs, planes, (kernel, 1, 1), padding=(kernel // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        # `vsn.models.peers.cost` replaces it.
        self.conv2: nn.Module = nn.Conv3d(
            planes, planes, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
        )
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=(1, stride, stride), bias=False), nn.BatchNorm3d(outputs)
            )
        # `vsn.models.peers.non_local` replaces it; an Identity has no weights, so that the names match the 2D network's.
        self.non_local: nn.Module = nn.Identity()

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, C_in, T, H, W)`` to ``(B, 4 planes, T, H', W')``."""
        branch = self.relu(self.bn1(self.conv1(volume)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        identity = volume if self.downsample is None else self.downsample(volume)
        return self.non_local(self.relu(branch + identity))


class ResNet3d(nn.Module):
    """The convolutions of a bottleneck ResNet on volumes, without final pooling and classifier.

    Args:
        shape: blocks and widths.
        plan: kernels and strides in time.
        extra: channels that another pathway adds to the inputs of res2 to res5 (SlowFast).
    """

    def __init__(self, shape: Shape, plan: TimePlan, *, extra: Sequence[int] = (0, 0, 0, 0)) -> None:
        super().__init__()
        width, size, length = shape.width, shape.stem_size, plan.stem_kernel
        pool_kernel, pool_stride = plan.pool1
        self.conv1 = nn.Conv3d(
            3,
            width,
            (length, size, size),
            stride=(plan.stem_stride, 2, 2),
            padding=(length // 2, size // 2, size // 2),
            bias=False,
        )
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        # An even kernel is not padded: with a stride of as much, its windows divide time.
        padding = ((pool_kernel - 1) // 2, 1, 1)
        self.maxpool = nn.MaxPool3d((pool_kernel, 3, 3), stride=(pool_stride, 2, 2), padding=padding)
        # In height and width only: along time, stages keep T.
        strides = (1, 2, 2, plan.res5_stride)
        stages = [
            _stage(inputs + more, width << i, depth, kernels=kernels, stride=stride)
            for i, (inputs, more, depth, kernels, stride) in enumerate(
                zip(shape.stage_inputs, extra, shape.layers, plan.kernels, strides, strict=True)
            )
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        # Without weights, so that the names match the 2D network's.
        self.pool2: nn.Module = nn.Identity()
        if plan.pool2 is not None:
            kernel, step = plan.pool2
            self.pool2 = nn.MaxPool3d((kernel, 1, 1), stride=(step, 1, 1), padding=((kernel - 1) // 2, 0, 0))
        self.feature_dim = EXPANSION * (width << 3)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, volume: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` to the input of res2, ``(B, width, T', H/4, W/4)``."""
        return self.maxpool(self.relu(self.bn1(self.conv1(volume))))

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` to features ``(B, feature_dim, T', H', W')``."""
        volume = self.pool2(self.layer1(self.stem(volume)))
        return self.layer4(self.layer3(self.layer2(volume)))


def _stage(inputs: int, planes: int, depth: int, *, kernels: Sequence[int], stride: int) -> nn.Sequential:
    # Only the first block of a stage has a stride and a projection.
    lengths = [kernels[i % len(kernels)] for i in range(depth)]
    blocks = [Bottleneck3d(inputs, planes, kernel=lengths[0], stride=stride)]
    blocks += [Bottleneck3d(planes * EXPANSION, planes, kernel=length) for length in lengths[1:]]
    return nn.Sequential(*blocks)
