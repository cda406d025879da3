"""Build R(2+1)D: a residual network whose 3D convolutions are split into a 2D one in space and a 1D one in time.

Source: Tran, Wang, Torresani, Ray, LeCun and Paluri, "A Closer Look at Spatiotemporal Convolutions for Action
Recognition", CVPR 2018, section 3.5 and tables 1 and 2. The blocks are torchvision's. Between space and time a 3x3x3
convolution from N to M channels has floor(3 * 9 * N * M / (9 N + 3 M)) channels, so that the pair has as many weights as
the 3D convolution. torchvision computes that width once per block, for its first convolution; `r2plus1d_18` does too and
takes its weights, `r2plus1d_34` follows the paper. The stem has 45 middle channels in both, as in the authors' code, not
the 83 of the formula.

| with 400 classes, T frames of 112x112 | published | ours |
|---|---|---|
| parameters, 34 layers | none (as many as R3D-34 by construction) | 63.7M |
| multiply-adds, 34 layers, T = 32 | 152G (quoted by SlowFast, Table 2) | 152.4G |
| parameters, 18 layers | 33.3M (Table 2); torchvision 31.5M | 31.5M; with the paper's middle widths 33.3M |
| multiply-adds, 18 layers, T = 16 | 40.5G (torchvision) | 40.5G |

Published figures, except torchvision's, are quoted from memory.

`r2plus1d_34_thin` is ours: a quarter of all widths, for training without a GPU. Pixels are normalized with the mean and
standard deviation of Kinetics, as for torchvision's weights.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

from vsn.config import ModelConfig
from vsn.models.classifier import KINETICS, VolumeClassifier


def build(config: ModelConfig) -> VolumeClassifier:
    """Build ``r2plus1d_18``, ``r2plus1d_34`` or ``r2plus1d_34_thin``."""
    thin = config.kind.endswith("_thin")
    paper = not config.kind.endswith("_18")
    body = R2Plus1dBody(depths=(3, 4, 6, 3) if paper else (2, 2, 2, 2), width=16 if thin else 64, paper=paper)
    return VolumeClassifier(body, config, feature_dim=body.feature_dim, normalization=KINETICS)


def middle_width(inputs: int, outputs: int) -> int:
    """Compute the channels between space and time that keep the number of weights of a 3x3x3 convolution (section 3.5)."""
    return 3 * 9 * inputs * outputs // (9 * inputs + 3 * outputs)


class R2Plus1dBody(nn.Module):
    """A volume ``(B, 3, T, H, W)`` to features ``(B, 8 width, T / 8, H / 16, W / 16)``.

    Weight names are those of torchvision's `VideoResNet`.

    Args:
        depths: blocks of the four stages.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        paper: compute the middle width for each convolution; otherwise for the first of a block, and use it for both.
    """

    def __init__(self, *, depths: tuple[int, ...], width: int, paper: bool) -> None:
        super().__init__()
        # 45 channels at full width, as in the authors' code.
        stem_middle = 45 * width // 64
        self.stem = nn.Sequential(
            nn.Conv3d(3, stem_middle, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(stem_middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(stem_middle, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = _stage(width, width, depths[0], stride=1, paper=paper)
        self.layer2 = _stage(width, 2 * width, depths[1], stride=2, paper=paper)
        self.layer3 = _stage(2 * width, 4 * width, depths[2], stride=2, paper=paper)
        self.layer4 = _stage(4 * width, 8 * width, depths[3], stride=2, paper=paper)
        self.feature_dim = 8 * width
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the features; see the class."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(volume)))))


def _stage(inputs: int, outputs: int, depth: int, *, stride: int, paper: bool) -> nn.Sequential:
    downsample = None
    if stride != 1:
        downsample = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm3d(outputs))
    # torchvision computes the middle width of both convolutions from the first one's channels.
    first = BasicBlock(inputs, outputs, Conv2Plus1D, stride, downsample)
    if paper:
        first.conv2[0] = Conv2Plus1D(outputs, outputs, middle_width(outputs, outputs))
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, Conv2Plus1D) for _ in range(depth - 1)))
