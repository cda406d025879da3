"""R(2+1)D: a residual network whose 3D convolutions are a 2D one in space and then a 1D one in time.

Source: Tran, Wang, Torresani, Ray, LeCun and Paluri, "A Closer Look at Spatiotemporal Convolutions for Action
Recognition", CVPR 2018, section 3.5 and tables 1 and 2. The blocks are torchvision's. Of a convolution from N to M
channels with 3 steps in time and 3x3 in space the middle has floor(3 * 9 * N * M / (9 N + 3 M)) channels, so that the
pair has as many weights as the 3D convolution. torchvision gives both convolutions of a block the width of its
first; `r2plus1d_34` follows the paper, `r2plus1d_18` is torchvision's, whose weights it takes. The stem
has 45 middle channels in both, as in the authors' code, not the 83 of that formula.

| with 400 classes, T frames of 112x112 | published | ours |
|---|---|---|
| parameters, 34 layers | none (as many as R3D-34 by construction) | 63.7M |
| multiply-adds, 34 layers, T = 32 | 152G (quoted by SlowFast, Table 2) | 152.4G |
| parameters, 18 layers | 33.3M (Table 2); torchvision 31.5M | 31.5M; with the paper's middle widths 33.3M |
| multiply-adds, 18 layers, T = 16 | 40.5G (torchvision) | 40.5G |

The published figures but torchvision's are quoted from memory.

`r2plus1d_34_thin` is ours: a quarter of all widths, to be trained without a GPU. Pixels are normalized with
the mean and deviation of Kinetics, as torchvision's weights were.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

from vsn.config import ModelConfig
from vsn.models.volume import KINETICS, VolumeClassifier, build_volume


def build_r2plus1d(config: ModelConfig) -> VolumeClassifier:
    """R(2+1)D (Tran et al. 2018): ``r2plus1d_18``, ``r2plus1d_34`` or ``r2plus1d_34_thin``."""
    thin = config.kind.endswith("_thin")
    paper = not config.kind.endswith("_18")
    body = R2Plus1dBody(depths=(3, 4, 6, 3) if paper else (2, 2, 2, 2), width=16 if thin else 64, paper=paper)
    return build_volume(config, body, feature_dim=body.feature_dim, normalization=KINETICS)


def middle_width(inputs: int, outputs: int) -> int:
    """Channels between space and time: as many weights as the 3x3x3 convolution has (section 3.5)."""
    return 3 * 9 * inputs * outputs // (9 * inputs + 3 * outputs)


class R2Plus1dBody(nn.Module):
    """A volume ``(B, 3, T, H, W)`` to features ``(B, 8 width, T / 8, H / 16, W / 16)``.

    Names are those of torchvision's `VideoResNet`.

    Args:
        depths: blocks of each of the four stages.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        paper: each convolution has the middle width of the formula; else the block's first has it and both take it.
    """

    def __init__(self, *, depths: tuple[int, ...], width: int, paper: bool) -> None:
        super().__init__()
        stem_middle = 45 * width // 64
        self.stem = nn.Sequential(
            nn.Conv3d(3, stem_middle, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(stem_middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(stem_middle, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        channels = width
        for number, depth in enumerate(depths, 1):
            outputs = width * 2 ** (number - 1)
            stage = _stage(channels, outputs, depth, stride=1 if number == 1 else 2, paper=paper)
            self.add_module(f"layer{number}", stage)
            channels = outputs
        self.feature_dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, volume: Tensor) -> Tensor:
        """See the class."""
        volume = self.stem(volume)
        for number in range(1, 5):
            volume = getattr(self, f"layer{number}")(volume)
        return volume


def _stage(inputs: int, outputs: int, depth: int, *, stride: int, paper: bool) -> nn.Sequential:
    downsample = None
    if stride != 1:
        downsample = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm3d(outputs))
    first = BasicBlock(inputs, outputs, Conv2Plus1D, stride, downsample)
    if paper:
        first.conv2[0] = Conv2Plus1D(outputs, outputs, middle_width(outputs, outputs))
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, Conv2Plus1D) for _ in range(depth - 1)))
