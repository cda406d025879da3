"""S3D and S3D-G: Inception with 3D convolutions split into space and time, and with gates.

Source: Xie, Sun, Huang, Tu and Murphy, "Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video
Classification", ECCV 2018, sections 4.3 and 4.4. The body of S3D is torchvision's, with its names. A gate multiplies
each channel by the sigmoid of a linear map of all channels' averages over time and space; S3D-G has one after the
second separable convolution of the stem and one after each of the four branches of every block, without bias, as the
authors' released code has. torchvision averages features over windows of two steps and 7x7 before it averages over
all; ours is the plain average (the two differ in the weight of the first and last step, and are equal for T = 16).

| with 400 classes, T = 64 at 224x224 | published | ours |
|---|---|---|
| parameters, S3D | 8.77M; torchvision states 8.32M | 8.32M |
| multiply-adds, S3D | 66.4G; torchvision states 18.0G for T = 16 | 71.9G |
| parameters, S3D-G | 11.56M | 9.54M |
| multiply-adds, S3D-G | 71.4G | 71.9G |

The paper's counts are quoted from memory. They follow neither from its text nor from its released code; ours are
equal to torchvision's.
There are weights for S3D (``model.weights = "KINETICS400_V1"``), none for S3D-G. Pixels are normalized with the
mean and deviation of Kinetics, as torchvision's weights were.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.video.s3d import S3D, SepInceptionBlock3D

from vsn.config import ConfigError, ModelConfig
from vsn.models.volume import KINETICS, VolumeClassifier, build_volume

FEATURE_DIM = 1024
MIN_FRAMES = 8
"""Four or fewer are none after three halvings of time, the last of which rounds down. Of five to seven, PyTorch 2.14
on a CPU gives a wrong gradient of the stem's weights (7 steps in time, stride 2: it reads and writes beyond its
memory), without a word or with a crash; from eight on it is right."""

MOMENTUM = 0.1
"""Share of each batch in the statistics that testing normalizes by, as in all other models. torchvision has 0.001, which
takes thousands of steps to leave the initial ones: after a few hundred, a network that has learned tests at chance."""


def build_s3d(config: ModelConfig) -> VolumeClassifier:
    """S3D (Xie et al. 2018).

    Raises:
        ConfigError: too few frames.
    """
    return _build(config, S3dBody())


def build_s3dg(config: ModelConfig) -> VolumeClassifier:
    """S3D-G (Xie et al. 2018): S3D with gates.

    Raises:
        ConfigError: too few frames.
    """
    body = S3dBody()
    add_gates(body.features)
    return _build(config, body)


class FeatureGate(nn.Module):
    """Each channel times a share between 0 and 1 that the averages of all channels decide (section 4.4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels, bias=False)
        nn.init.trunc_normal_(self.linear.weight, std=0.01, a=-0.02, b=0.02)

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` to the same shape."""
        share = self.linear(volume.mean(dim=(2, 3, 4))).sigmoid()
        return volume * share[:, :, None, None, None]


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
        """Blocks between two halvings of height and width: Conv2c, Mixed_3b and 3c, 4b to 4f, 5b and 5c."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm3d):
                module.momentum = MOMENTUM

    def forward(self, volume: Tensor) -> Tensor:
        """See the class."""
        return self.features(volume)


def add_gates(features: nn.Sequential) -> None:
    """Put a gate after the stem's second separable convolution and after every branch; names stay."""
    stem = features[3]
    assert isinstance(stem, nn.Sequential)
    _close_with_gate(stem)
    for block in features:
        if isinstance(block, SepInceptionBlock3D):
            for branch in (block.branch0, block.branch1, block.branch2, block.branch3):
                _close_with_gate(branch)


def _close_with_gate(branch: nn.Sequential) -> None:
    last = [module for module in branch.modules() if isinstance(module, nn.Conv3d)][-1]
    branch.append(FeatureGate(last.out_channels))


def _build(config: ModelConfig, body: S3dBody) -> VolumeClassifier:
    if config.num_frames < MIN_FRAMES:
        raise ConfigError(
            f"model.num_frames is {config.num_frames}; {config.name} halves time three times and needs at least "
            f"{MIN_FRAMES} frames. Take more, or another model."
        )
    return build_volume(config, body, feature_dim=FEATURE_DIM, normalization=KINETICS)
