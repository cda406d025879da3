"""Build S3D and S3D-G: Inception with 3D convolutions split into space and time, and with gates.

Source: Xie, Sun, Huang, Tu and Murphy, "Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video
Classification", ECCV 2018, sections 4.3 and 4.4. The body of S3D is torchvision's, with its weight names. A gate multiplies
each channel by the sigmoid of a linear map of all channels' averages over time and space; S3D-G has one after the
second separable convolution of the stem and one after each of the four branches of every block, without bias, as in the
authors' code. torchvision averages features over windows of 2x7x7 and then over all windows; ours is the plain average (the
two weight the first and last step differently, and are equal for T = 16).

| with 400 classes, T = 64 at 224x224 | published | ours |
|---|---|---|
| parameters, S3D | 8.77M; torchvision states 8.32M | 8.32M |
| multiply-adds, S3D | 66.4G; torchvision states 18.0G for T = 16 | 71.9G |
| parameters, S3D-G | 11.56M | 9.54M |
| multiply-adds, S3D-G | 71.4G | 71.9G |

The paper's counts are quoted from memory. They follow neither from its text nor from its released code; ours are
equal to torchvision's. The published 2.79M more of S3D-G than of S3D are to all digits those of gates with bias after
conv1, conv2c and each block from 3b to 5b (2,791,280), an arithmetical fit without a source; ours, after every branch, have
1.22M. Weights are published for S3D (``model.weights = "KINETICS400_V1"``), not for S3D-G. Pixels are
normalized with the mean and standard deviation of Kinetics, as for torchvision's weights.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.video.s3d import S3D, SepInceptionBlock3D

from vsn.config import ConfigError, ModelConfig
from vsn.models.classifier import KINETICS, VolumeClassifier

FEATURE_DIM = 1024

# Time is halved three times, and the last halving rounds down: four frames or fewer end as none. With five to seven,
# PyTorch 2.14 on a CPU computes a wrong gradient of the stem's weights (kernel of 7 in time, stride 2: it reads and writes
# out of bounds), silently or with a crash.
MIN_FRAMES = 8

# Momentum of batch statistics, as in all other models. torchvision has 0.001, which takes thousands of steps to leave the
# initial statistics: after a few hundred steps, a network that has learned still tests at chance.
MOMENTUM = 0.1


def build(config: ModelConfig) -> VolumeClassifier:
    """Build S3D or, with gates, S3D-G.

    Raises:
        ConfigError: too few frames.
    """
    if config.num_frames < MIN_FRAMES:
        raise ConfigError(
            f"model.num_frames is {config.num_frames}; {config.name} halves time three times: use at least {MIN_FRAMES}."
        )
    body = S3dBody()
    if config.kind == "s3dg":
        add_gates(body.features)
    return VolumeClassifier(body, config, feature_dim=FEATURE_DIM, normalization=KINETICS)


class FeatureGate(nn.Module):
    """Multiply each channel by a gate in (0, 1), computed from the averages of all channels (section 4.4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels, bias=False)
        nn.init.trunc_normal_(self.linear.weight, std=0.01, a=-0.02, b=0.02)

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` to the same shape."""
        gate = self.linear(volume.mean(dim=(2, 3, 4))).sigmoid()
        return volume * gate[:, :, None, None, None]


class S3dBody(nn.Module):
    """A volume ``(B, 3, T, H, W)`` to features ``(B, 1024, T / 8, H / 32, W / 32)``."""

    def __init__(self) -> None:
        super().__init__()
        self.features = S3D(num_classes=1).features
        self.stages = {
            "res2": ["features.3"],
            "res3": ["features.5", "features.6"],
            "res4": [f"features.{i}" for i in range(8, 13)],
            "res5": ["features.14", "features.15"],
        }
        """Blocks by stage, between halvings of height and width: Conv2c, Mixed_3b and 3c, 4b to 4f, 5b and 5c."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm3d):
                module.momentum = MOMENTUM

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the features; see the class."""
        return self.features(volume)


def add_gates(features: nn.Sequential) -> None:
    """Append a gate to the stem's second separable convolution and to every branch; weight names do not change."""
    branches = [features[3]]  # the stem's second separable convolution
    for block in features:
        if isinstance(block, SepInceptionBlock3D):
            branches += [block.branch0, block.branch1, block.branch2, block.branch3]
    for branch in branches:
        assert isinstance(branch, nn.Sequential)
        *_, last = (module for module in branch.modules() if isinstance(module, nn.Conv3d))
        branch.append(FeatureGate(last.out_channels))
