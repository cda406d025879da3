"""Build I3D on Inception-V1: the image network with all kernels and poolings inflated along time.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017,
Figure 3; details that the paper omits (no biases, epsilon 0.001, the padding, averages over windows of two steps) follow
the authors' released code. Two-stream I3D is two of these networks, on RGB and on flow, and the average of their scores
(`vsn fuse`).

- Padding is TensorFlow's SAME, as the released weights expect: a strided kernel has one zero more at the end than at the
  start (`pad_same`).
- Names of the weights are those of torchvision's GoogLeNet, whose ImageNet weights are inflated
  (``model.weights = "IMAGENET1K_V1"``). Files with the names of the PyTorch port of the released Kinetics weights
  (``Mixed_3b.b1a.conv3d.weight``) are converted. Both expect pixels in [-1, 1].

| with 400 classes, T = 64 at 224x224 | published | ours |
|---|---|---|
| parameters | 12M (Table 1) | 12.70M |
| multiply-adds | 108G (quoted by later papers) | 111.2G |
| parameters of the flow network, 2 channels | as RGB | 12.68M |

Published figures are quoted from memory. `i3d_inception_thin` is ours: a quarter of all widths, for training without a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from vsn.config import ConfigError, ModelConfig
from vsn.models.classifier import Normalization, VolumeClassifier

PIXELS: Normalization = ((0.5,) * 3, (0.5,) * 3)
"""Mean and standard deviation that map [0, 1] to [-1, 1]."""

# Output channels of the branches: 1x1x1 | 1x1x1, 3x3x3 | 1x1x1, 3x3x3 | max pooling, 1x1x1. The names are GoogLeNet's; the
# paper's 3b to 5c are 3a to 5b there.
BLOCKS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}

# Names of the PyTorch port of the released weights, and ours.
_PORT_STEM = {"Conv3d_1a_7x7": "conv1", "Conv3d_2b_1x1": "conv2", "Conv3d_2c_3x3": "conv3"}
_PORT_BRANCHES = {
    "b0": "branch1", "b1a": "branch2.0", "b1b": "branch2.1", "b2a": "branch3.0", "b2b": "branch3.1", "b3b": "branch4.1",
}  # fmt: skip


def build(config: ModelConfig) -> VolumeClassifier:
    """Build ``i3d_inception`` or, with a quarter of the widths, ``i3d_inception_thin``."""
    body = InceptionI3d(divisor=4 if config.kind.endswith("_thin") else 1)
    return VolumeClassifier(body, config, feature_dim=body.feature_dim, normalization=PIXELS)


class Unit(nn.Module):
    """A convolution of the same size in time, height and width, batch normalization and ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        # A strided kernel is padded in `forward`, unevenly.
        padding = size // 2 if stride == 1 else 0
        self.conv = nn.Conv3d(inputs, outputs, size, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, inputs, T, h, w)`` to ``(B, outputs, ceil(T / stride), ceil(h / stride), ceil(w / stride))``."""
        if self.stride > 1:
            volume = pad_same(volume, (self.size,) * 3, (self.stride,) * 3)
        return functional.relu(self.bn(self.conv(volume)))


class SamePool(nn.Module):
    """Max pooling with TensorFlow's SAME padding. ReLU precedes it, so that zeros do not change a maximum."""

    def __init__(self, size: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, C, T, h, w)`` to the sizes divided by the strides, rounded up."""
        return functional.max_pool3d(pad_same(volume, self.size, self.stride), self.size, self.stride)


class InceptionBlock3d(nn.Module):
    """Four parallel branches, concatenated along the channels."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce_a, three_a, reduce_b, three_b, pool = widths
        self.branch1 = Unit(inputs, one, 1)
        self.branch2 = nn.Sequential(Unit(inputs, reduce_a, 1), Unit(reduce_a, three_a, 3))
        # 3x3 where the paper on images has 5x5, as in the authors' code and torchvision's.
        self.branch3 = nn.Sequential(Unit(inputs, reduce_b, 1), Unit(reduce_b, three_b, 3))
        self.branch4 = nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), Unit(inputs, pool, 1))
        self.outputs = one + three_a + three_b + pool

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, inputs, T, h, w)`` to ``(B, outputs, T, h, w)``."""
        return torch.cat([branch(volume) for branch in self.children()], dim=1)


class InceptionI3d(nn.Module):
    """A volume ``(B, 3, T, H, W)`` to features ``(B, 1024, T' - 1, H / 32, W / 32)``, T' = T / 8 (or 1, if T' is 1).

    Args:
        divisor: divides all widths; 1 is the published network.
    """

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()
        width, channels = 64 // divisor, 192 // divisor
        self.conv1 = Unit(3, width, 7, stride=2)
        self.maxpool1 = SamePool((1, 3, 3), (1, 2, 2))
        self.conv2 = Unit(width, width, 1)
        self.conv3 = Unit(width, channels, 3)
        self.maxpool2 = SamePool((1, 3, 3), (1, 2, 2))
        self.maxpool3 = SamePool((3, 3, 3), (2, 2, 2))
        self.maxpool4 = SamePool((2, 2, 2), (2, 2, 2))
        for name, published in BLOCKS.items():
            block = InceptionBlock3d(channels, tuple(width // divisor for width in published))
            self.add_module(f"inception{name}", block)
            channels = block.outputs
        self.feature_dim = channels
        self.stages = {
            "res2": ["conv3"],
            "res3": ["inception3a", "inception3b"],
            "res4": [f"inception4{i}" for i in "abcde"],
            "res5": ["inception5a", "inception5b"],
        }
        """Blocks by stage, between halvings of height and width."""

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the features; see the class."""
        volume = self.conv3(self.conv2(self.maxpool1(self.conv1(volume))))
        for pool, stage in ((self.maxpool2, "res3"), (self.maxpool3, "res4"), (self.maxpool4, "res5")):
            volume = pool(volume)
            for name in self.stages[stage]:
                volume = self.get_submodule(name)(volume)
        # Averages of two successive steps, whose average has the first and the last step with half the weight. Average
        # pooling in 3D does not exist in bfloat16 on a CPU.
        return (volume[:, :, 1:] + volume[:, :, :-1]) / 2 if volume.shape[2] > 1 else volume

    def convert_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of the PyTorch port; drop the auxiliary classifiers of GoogLeNet and the port's classifier.

        Raises:
            ConfigError: a block or branch that this network does not have.
        """
        dropped = ("aux1.", "aux2.", "logits.")
        return {_own_name(name): value for name, value in state.items() if not name.startswith(dropped)}


def _own_name(name: str) -> str:
    """``Mixed_3b.b1a.conv3d.weight``: ``inception3a.branch2.0.conv.weight``; GoogLeNet's names are returned unchanged."""
    port = re.fullmatch(r"(Conv3d_\w+|Mixed_(\d)([b-f])\.(\w+))\.(conv3d|bn)\.(\w+)", name)
    if port is None:
        return name
    stem, stage, letter, branch, layer, value = port.groups()
    block = _PORT_STEM.get(stem) if stage is None else f"inception{stage}{chr(ord(letter) - 1)}"
    part = "" if stage is None else _PORT_BRANCHES.get(branch)
    if block is None or part is None:
        raise ConfigError(f"The weights have {name!r}, which is no weight of I3D on Inception-V1.")
    return ".".join(filter(None, (block, part, layer.removesuffix("3d"), value)))


def pad_same(volume: Tensor, size: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Pad a volume with zeros, so that a kernel of this size and stride has ceil(n / stride) outputs.

    Where the stride divides n, it sees what it sees with TensorFlow's SAME: 64 frames, kernel 7, stride 2 take 2 zeros
    before the first and 3 after the last; one more is in no window. TensorFlow would give odd sizes 3 and 3; the same
    amounts for all sizes keep exported files for any size simple, and published clips have no odd sizes.
    """
    amounts: list[int] = []
    for kernel, step in zip(reversed(size), reversed(stride), strict=True):  # `pad` begins with the last axis
        before = (kernel - step) // 2
        amounts += [before, kernel - 1 - before]
    return functional.pad(volume, amounts)
