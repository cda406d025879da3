"""Build SlowFast networks: a slow pathway on few frames and a thin, fast one on all.

Source: Feichtenhofer, Fan, Malik and He, "SlowFast Networks for Video Recognition", ICCV 2019: Table 1 (the
network), section 3.3 (lateral connections, time-strided convolution). tau is the slow pathway's stride in frames of the
video; the fast one sees alpha times as many frames with beta times as many channels. A clip holds the fast pathway's
frames: T = 32 and alpha = 8 is the paper's 4x16 (4 slow frames; tau = 16 if the clip takes every second frame of the
video), alpha = 4 is 8x8.

Parameters and multiply-adds for 400 classes and one clip of 256x256 pixels (the paper's Table 2, quoted from memory),
counted by `vsn.models.measure.count_multiply_adds`:

| model | T, alpha | parameters | multiply-adds | published |
|---|---|---|---|---|
| slowfast_resnet50, 4x16 | 32, 8 | 34.48M | 36.1G | 36.1G |
| slowfast_resnet50, 8x8 | 32, 4 | 34.48M | 65.3G | 65.7G |
| slowfast_resnet101, 8x8 | 32, 4 | 53.77M | 106.5G | 106G |
| slowfast_resnet101, 16x8 | 64, 4 | 53.77M | 213.0G | 213G |
| nl-slowfast_resnet101, 16x8 | 64, 4 | 60.08M | 242.0G | 234G |

Parameters were not checked against a publication. The last row is 3.4% above the published count (7.6% with
``non_local_pool = "after"``): what the paper counts of non-local blocks is not known; we count their convolutions and the
pairwise products.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vsn.config import STAGES, ConfigError, ModelConfig
from vsn.models.classifier import VolumeClassifier
from vsn.models.peers.non_local import DEFAULT, PLACES, Attention, insert_nonlocal
from vsn.models.peers.resnet3d import SHAPES, ResNet3d, Shape, TimePlan

BETA = 1 / 8
"""Channels of the fast pathway relative to the slow one (section 3.2)."""
LATERAL_KERNEL = 5
"""Length in time of a lateral convolution (section 3.3: 5x1x1)."""

# Lengths of the kernels of res4: one frame from the seventh block on. ResNet-50 has six. For ResNet-101, of which the paper
# shows no table, this is our reading: it results in the published multiply-adds, while kernels of three in all 23 blocks
# cost a fifth more.
_RES4 = (3,) * 6 + (1,) * 17
SLOW = TimePlan(kernels=((1,), (1,), _RES4, (3,)))
FAST = TimePlan(stem_kernel=5, kernels=((3,), (3,), _RES4, (3,)))


class Lateral(nn.Module):
    """A time-strided convolution from the fast to the slow pathway, with twice the fast one's channels.

    Output frame i sees the fast frames ``alpha i - 2`` to ``alpha i + 2``, centered at slow frame i.
    """

    def __init__(self, channels: int, *, alpha: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(
            channels, 2 * channels, (LATERAL_KERNEL, 1, 1),
            stride=(alpha, 1, 1), padding=(LATERAL_KERNEL // 2, 0, 0), bias=False,
        )  # fmt: skip
        self.bn = nn.BatchNorm3d(2 * channels)
        self.relu = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, fast: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` to ``(B, 2C, T/alpha, H, W)``."""
        return self.relu(self.bn(self.conv(fast)))


class SlowFast(nn.Module):
    """Both pathways and the lateral connections from fast to slow.

    Args:
        shape: of the slow pathway; the fast one has BETA times its width.
        alpha: the slow pathway takes frames 0, alpha, 2 alpha, ...
    """

    def __init__(self, shape: Shape, *, alpha: int) -> None:
        super().__init__()
        self.alpha = alpha
        # Both pathways have the depth of the 2D network; the lateral channels are concatenated to the slow one's input.
        thin = replace(shape, width=int(shape.width * BETA))
        inputs = thin.stage_inputs
        self.slow = ResNet3d(shape, SLOW, extra=[2 * channels for channels in inputs])
        self.fast = ResNet3d(thin, FAST)
        self.lateral = nn.ModuleList(Lateral(channels, alpha=alpha) for channels in inputs)
        self.feature_dim = self.slow.feature_dim + self.fast.feature_dim
        # The slow pathway's last block is the last of a stage: its features include those of the fast pathway.
        self.stages = {
            stage: [f"{path}.layer{i}.{number}" for path in ("fast", "slow") for number in range(shape.layers[i - 1])]
            for i, stage in enumerate(STAGES, 1)
        }

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` to pooled features ``(B, feature_dim, 1, 1, 1)``, the slow pathway's first.

        Raises:
            ValueError: alpha does not divide T.
        """
        if volume.shape[2] % self.alpha:
            raise ValueError(
                f"Expected a multiple of alpha={self.alpha} frames, because the slow pathway takes every alpha-th, got "
                f"T={volume.shape[2]}."
            )
        # No stage changes T, so that a lateral convolution of stride alpha always ends at the slow pathway's T.
        slow, fast = self.slow.stem(volume[:, :, :: self.alpha]), self.fast.stem(volume)
        for name, lateral in zip(("layer1", "layer2", "layer3", "layer4"), self.lateral, strict=True):
            slow = torch.cat((slow, lateral(fast)), dim=1)
            slow = self.slow.get_submodule(name)(slow)
            fast = self.fast.get_submodule(name)(fast)
        pooled = [features.mean(dim=(2, 3, 4), keepdim=True) for features in (slow, fast)]
        return torch.cat(pooled, dim=1)


def slowfast_body(name: str, *, alpha: int, non_local: bool = False, attention: Attention = DEFAULT) -> SlowFast:
    """Build the pathways of ``slowfast_<name>``."""
    body = SlowFast(SHAPES[name], alpha=alpha)
    # Three blocks in the slow pathway's res4 (paper, section 4: "+NL").
    if non_local:
        insert_nonlocal(body.slow, {"layer3": PLACES[name]["layer3"]}, attention=attention)
    return body


def build(config: ModelConfig) -> VolumeClassifier:
    """Build SlowFast, with non-local blocks if the name begins with ``nl-``.

    Raises:
        ConfigError: another modality than RGB.
    """
    if config.modality != "rgb":
        raise ConfigError(
            f"model.modality is {config.modality!r}; SlowFast takes only 'rgb': its fast pathway sees motion without flow. "
            "Use another model for flow or differences, such as i3d_resnet50."
        )
    non_local = config.kind.startswith("nl-")
    body = slowfast_body(config.backbone, alpha=config.alpha, non_local=non_local, attention=Attention.of(config))
    return VolumeClassifier(body, config, feature_dim=body.feature_dim)
