"""Build ECO and ECO Lite: a 2D network on each frame, and a 3D network on the features of all frames.

Source: Zolfaghari, Singh and Brox, "ECO: Efficient Convolutional Network for Online Video Understanding", ECCV 2018,
sections 3.1 and 3.2, table 1; details that the paper omits follow the authors' Caffe models. BN-Inception up to the first
3x3 pair of block 3c computes 96 channels of stride 8 for each frame; a 3D ResNet-18, from its third stage on, takes them
as a volume. ECO adds the rest of BN-Inception on each frame, averaged over the frames.

| with T = 16 at 224x224 | published | ours |
|---|---|---|
| parameters, ECO | 47.5M (the VSN paper, Table 2) | 47.2M with 174 classes, 47.5M with 400 |
| multiply-adds, ECO | 64G (same table) | 64.4G |
| parameters, ECO Lite | none | 37.4M with 174 classes |
| multiply-adds, ECO Lite | none | 46.5G |

`eco_thin` and `eco_lite_thin` are ours: a quarter of all widths, for training without a GPU. No published weights can be
downloaded; a file of BN-Inception's fits (`model.weights`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from vsn.config import ModelConfig
from vsn.models.bn_inception import HIGH_BLOCKS, BnInception
from vsn.models.classifier import VolumeClassifier

# Prefixes of the weights of BN-Inception that ECO Lite does not have.
_ONLY_IN_ECO = ("inception_3c.3x3", "inception_3c.double_3x3_2", "inception_4", "inception_5")


def build(config: ModelConfig) -> VolumeClassifier:
    """Build ECO or ECO Lite; ``_thin`` in the name divides the widths by 4."""
    body = EcoBody(full="lite" not in config.kind, divisor=4 if config.kind.endswith("_thin") else 1)
    return VolumeClassifier(body, config, feature_dim=body.feature_dim)


class PlainBlock(nn.Module):
    """The third stage, of stride 1: a convolution and a residual pair.

    ECO adds before batch normalization, which then normalizes the sum.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.a = _conv(inputs, outputs)
        self.a_bn = nn.BatchNorm3d(outputs)
        self.pair = ResidualPair(outputs)

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, inputs, T, h, w)`` to ``(B, outputs, T, h, w)``."""
        volume = self.a(volume)
        return self.pair(volume, self.a_bn(volume).relu())


class StridedBlock(nn.Module):
    """The fourth and fifth stage: time, height and width are halved, then a residual pair."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Two branches from the input: two convolutions, and one that only halves the sizes.
        self.a_1 = _conv(inputs, outputs, stride=2)
        self.a_1_bn = nn.BatchNorm3d(outputs)
        self.a_2 = _conv(outputs, outputs)
        self.a_down = _conv(inputs, outputs, stride=2)
        self.a_bn = nn.BatchNorm3d(outputs)
        self.pair = ResidualPair(outputs)

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, inputs, T, h, w)`` to ``(B, outputs, ceil(T / 2), ceil(h / 2), ceil(w / 2))``."""
        volume = self.a_2(self.a_1_bn(self.a_1(volume)).relu()) + self.a_down(volume)
        return self.pair(volume, self.a_bn(volume).relu())


class ResidualPair(nn.Module):
    """Two convolutions on an activation, added to the value before its batch normalization and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.b_1 = _conv(channels, channels)
        self.b_1_bn = nn.BatchNorm3d(channels)
        self.b_2 = _conv(channels, channels)
        self.b_bn = nn.BatchNorm3d(channels)

    def forward(self, total: Tensor, active: Tensor) -> Tensor:
        """``(B, C, T, h, w)`` each, to the same shape."""
        return self.b_bn(total + self.b_2(self.b_1_bn(self.b_1(active)).relu())).relu()


class EcoBody(BnInception):
    """A volume ``(B, 3, T, H, W)`` to features: ``(B, D, T / 4, H / 32, W / 32)``, of ECO ``(B, D, 1, 1, 1)``.

    Args:
        full: with the 2D stream, whose features follow those of the 3D network.
        divisor: divides all widths.
    """

    def __init__(self, *, full: bool, divisor: int) -> None:
        super().__init__(whole=full, divisor=divisor)
        self.full = full
        widths = [128 // divisor, 256 // divisor, 512 // divisor]
        self.res3 = PlainBlock(self.shared_dim, widths[0])
        self.res4 = StridedBlock(widths[0], widths[1])
        self.res5 = StridedBlock(widths[1], widths[2])
        self.feature_dim += widths[2]
        self.stages = {
            "res2": ["inception_3a", "inception_3b"],
            "res3": ["inception_3c", "res3"] if full else ["res3"],
            "res4": [*(f"inception_{name}" for name in HIGH_BLOCKS[:5] if full), "res4"],
            "res5": [*(f"inception_{name}" for name in HIGH_BLOCKS[5:] if full), "res5"],
        }
        """Blocks of both networks by stage; from res3 on the last of a stage is one of the 3D network."""

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the features; see the class."""
        frames = volume.transpose(1, 2)
        # The 2D network sees frames as a batch: (B, 3, T, H, W) to (B*T, 3, H, W).
        low = self.low(frames.flatten(0, 1))
        shared = self.shared(low)
        # Frames (B*T, C, h, w) become a volume (B, C, T, h, w).
        features = self.res5(self.res4(self.res3(shared.unflatten(0, frames.shape[:2]).transpose(1, 2))))
        if not self.full:
            return features
        by_frame = self.high(low, shared).unflatten(0, frames.shape[:2]).transpose(1, 2)
        # The two differ in T and size, so that they are averaged before they are concatenated.
        return torch.cat([functional.adaptive_avg_pool3d(part, 1) for part in (features, by_frame)], dim=1)

    def convert_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a file of BN-Inception, and drop weights that ECO Lite does not have."""
        own = super().convert_weights(state)
        return {name: value for name, value in own.items() if self.full or not name.startswith(_ONLY_IN_ECO)}


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv3d:
    conv = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
