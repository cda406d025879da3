"""Build TrajectoryNet, whose temporal convolutions follow the paths of points, and the same network with straight ones.

Source: Zhao, Xiong and Lin, "Trajectory Convolution for Action Recognition", NeurIPS 2018; details are those of the code in
MMAction 0. Each 3x3 convolution of a ResNet-18 becomes 1x3x3 and then 3x1x1. In `trajectory_resnet18` the second 3x1x1 of
every block is a trajectory convolution: it takes a point's value in the frame before and in the next one from where optical
flow says that the point is. `separable_resnet18` is the baseline of plain 3x1x1 convolutions, with the same weights.

Clips of TrajectoryNet carry two paths at each pixel, to the next frame of the clip and to the one before
(`vsn.data.paths`). Where the network skips frames, paths are chained.

| with 174 classes, T = 16 at 224x224 | published | ours |
|---|---|---|
| parameters | 33.3M (the VSN paper, Table 2) | 15.5M |
| multiply-adds | none | 13.6G |

33.3M parameters are those of a ResNet-18 of full 3x3x3 convolutions, not of the separable one of the authors' code. That
code reads from a configuration, which is not published, in which blocks the convolution follows paths; here it does in all.
The paper also learns flow along with the classes, and adds the flow to the features; ours does neither: paths come from
stored or computed flow.

`resnet18_thin` is ours: a quarter of all widths, for training without a GPU.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vsn.config import ConfigError, ModelConfig
from vsn.models.classifier import VolumeClassifier
from vsn.ops import sample_along

DEPTHS = (2, 2, 2, 2)
MIN_FRAMES = 5
"""Time is halved twice, rounding up; with fewer frames res3 to res5 would have a single step."""
_TEMPORAL_BIAS = 0.2
_COLORS = 3


def build(config: ModelConfig) -> VolumeClassifier:
    """Build ``trajectory_resnet18`` or ``separable_resnet18``; ``_thin`` in the name divides the widths by 4.

    Raises:
        ConfigError: too few frames.
    """
    if config.num_frames < MIN_FRAMES:
        raise ConfigError(
            f"model.num_frames is {config.num_frames}; {config.name} halves time twice: use at least {MIN_FRAMES}."
        )
    width = 16 if config.backbone.endswith("_thin") else 64
    body = SeparableResNet(width=width, follows_paths=config.extra_input == "paths")
    return VolumeClassifier(body, config, feature_dim=body.feature_dim)


def along(volume: Tensor, path: Tensor, *, outside: Literal["zeros", "border"] = "zeros") -> Tensor:
    """Return each step of a volume ``(B, C, T, H, W)`` at p + path, ``(B, 2, T, H, W)`` pixels; see `sample_along`."""
    frames, motion = volume.transpose(1, 2).flatten(0, 1), path.transpose(1, 2).flatten(0, 1)
    sampled = sample_along(frames, motion, outside=outside)
    return sampled.unflatten(0, (-1, volume.shape[2])).transpose(1, 2)


def skip_every_other(paths: Tensor) -> Tensor:
    """Chain the paths of all steps to those between every other step, ``(B, 4, T, H, W)`` to ``(B, 4, ceil(T / 2), H, W)``.

    A path from step 0 to 2 goes from 0 to 1 and on from there; those past the ends of the clip are never followed.
    """
    kept, skipped = paths[:, :, ::2], paths[:, :, 1::2]
    # One more step of zeros, and then as many steps as are kept: step 2k + 1 is after, step 2k - 1 before the k-th kept.
    none = torch.zeros_like(paths[:, :, :1])
    after = torch.cat([skipped[:, :2], none[:, :2]], dim=2)[:, :, : kept.shape[2]]
    before = torch.cat([none[:, 2:], skipped[:, 2:]], dim=2)[:, :, : kept.shape[2]]
    # The second path begins where the first ends; outside of the frame it moves as at the border.
    forward = kept[:, :2] + along(after, kept[:, :2], outside="border")
    backward = kept[:, 2:] + along(before, kept[:, 2:], outside="border")
    return torch.cat([forward, backward], dim=1)


def halve_paths(paths: Tensor) -> Tensor:
    """Take every other pixel, averaged with its neighbors, and express paths in such pixels; sizes are rounded up.

    A convolution of stride 2 has its kernel at the same places.
    """
    frames = paths.transpose(1, 2).flatten(0, 1)
    halved = functional.avg_pool2d(frames, 3, stride=2, padding=1, count_include_pad=False) / 2
    return halved.unflatten(0, (-1, paths.shape[2])).transpose(1, 2)


class TrajectoryConv3d(nn.Conv3d):
    """A 3x1x1 convolution along paths: along straight ones it is the `nn.Conv3d` of the same weights."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, volume: Tensor, paths: Tensor) -> Tensor:  # type: ignore[override]  # one more input
        """Convolve ``(B, C, T, H, W)`` along paths ``(B, 4, T, H, W)``: x and y to the next step, then to the one before.

        Before the first and after the last step there is nothing, as with a padding of zeros.
        """
        none = torch.zeros_like(volume[:, :, :1])
        before = torch.cat([none, along(volume[:, :, :-1], paths[:, 2:, 1:])], dim=2)
        after = torch.cat([along(volume[:, :, 1:], paths[:, :2, :-1]), none], dim=2)
        # (O, I, 3, 1, 1) to (O, 3 I, 1, 1, 1): the three steps of a point are channels of a pointwise convolution.
        weight = self.weight.transpose(1, 2).flatten(1, 2)[..., None]
        return functional.conv3d(torch.cat([before, volume, after], dim=1), weight, self.bias)


class SeparableBlock(nn.Module):
    """A basic block whose 3x3 convolutions are split into 1x3x3 and 3x1x1, each followed by batch normalization."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, follows_paths: bool) -> None:
        super().__init__()
        self.conv1 = _spatial(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm3d(outputs)
        self.conv1_t = _temporal(outputs)
        self.bn1_t = nn.BatchNorm3d(outputs)
        self.conv2 = _spatial(outputs, outputs, 1)
        self.bn2 = nn.BatchNorm3d(outputs)
        self.conv2_t = TrajectoryConv3d(outputs) if follows_paths else _temporal(outputs)
        self.bn2_t = nn.BatchNorm3d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=(1, stride, stride), bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, volume: Tensor, paths: Tensor | None) -> Tensor:
        """``(B, C_in, T, H, W)``, and paths at the output's size, to ``(B, C_out, T, H', W')``."""
        branch = self.relu(self.bn1(self.conv1(volume)))
        branch = self.relu(self.bn1_t(self.conv1_t(branch)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.bn2_t(self.conv2_t(branch) if paths is None else self.conv2_t(branch, paths))
        identity = volume if self.downsample is None else self.downsample(volume)
        return self.relu(branch + identity)


class SeparableResNet(nn.Module):
    """A volume ``(B, 3, T, H, W)``, with paths ``(B, 3 + 4, T, H, W)``, to features ``(B, 8 width, T / 4, H / 32, W / 32)``.

    Sizes are rounded up. The names of the 2D part are those of torchvision's ResNet-18.

    Args:
        width: channels of the first stage.
        follows_paths: the second temporal convolution of each block is a trajectory convolution.
    """

    def __init__(self, *, width: int, follows_paths: bool) -> None:
        super().__init__()
        self.follows_paths = follows_paths
        self.conv1 = nn.Conv3d(_COLORS, width, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(2, 2, 2), padding=(0, 1, 1))
        self.pool2 = nn.MaxPool3d((3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0))
        inputs = width
        for number, depth in enumerate(DEPTHS):
            outputs = width << number
            blocks = [
                SeparableBlock(
                    inputs if i == 0 else outputs,
                    outputs,
                    stride=2 if i == 0 and number else 1,
                    follows_paths=follows_paths,
                )
                for i in range(depth)
            ]
            # A list, because the blocks take paths too.
            self.add_module(f"layer{number + 1}", nn.ModuleList(blocks))
            inputs = outputs
        self.feature_dim = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.constant_(module.bias, _TEMPORAL_BIAS)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the features; see the class. Paths are in pixels of the volume."""
        paths = None
        if self.follows_paths:
            # The stem has a quarter of the height and width, and every other frame.
            paths = skip_every_other(halve_paths(halve_paths(volume[:, _COLORS:])))
            volume = volume[:, :_COLORS]
        volume = self.maxpool(self.relu(self.bn1(self.conv1(volume))))
        for number in range(len(DEPTHS)):
            if number == 1:
                volume = self.pool2(volume)
                paths = None if paths is None else skip_every_other(paths)
            if number and paths is not None:
                paths = halve_paths(paths)
            for block in self.get_submodule(f"layer{number + 1}").children():
                volume = block(volume, paths)
        return volume


def _spatial(inputs: int, outputs: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False)


def _temporal(channels: int) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
