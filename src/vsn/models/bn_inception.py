"""Define BN-Inception: the 2D network of TSN and TRN as published, and of ECO.

Source: Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift", ICML 2015, appendix: the variant with two 3x3 convolutions for each 5x5. Names, and biases before batch
normalization, are those of the Caffe model that TSN and ECO start from (its `inception_3a_1x1` is `inception_3a.1x1` here).
With a classifier of 1000 classes that model has 11,295,240 parameters; a test counts ours.

Files in the names of the Caffe model expect BGR bytes minus a mean; `BnInception.convert_weights` rewrites their first
convolution for the normalized RGB that every model here computes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from vsn.config import STAGES, ConfigError
from vsn.models.blocks import ResidualBlock
from vsn.models.normalization import IMAGENET_MEAN, IMAGENET_STD

CAFFE_MEAN = (104.0, 117.0, 128.0)
"""Of BGR bytes; the Caffe model and its PyTorch ports subtract it, and divide by nothing."""
HIGH_BLOCKS = ("4a", "4b", "4c", "4d", "4e", "5a", "5b")


@dataclass(frozen=True)
class Widths:
    """Output channels of the branches of an inception block; 0 omits a branch."""

    one: int
    """1x1."""
    three: tuple[int, int]
    """1x1, then 3x3."""
    double: tuple[int, int]
    """1x1, then 3x3 twice."""
    pool: int
    """Pooling, then 1x1; 0: no 1x1."""
    pooling: str = "average"
    """Of the fourth branch: "average" or "max"."""
    stride: int = 1
    """Of the last 3x3 convolutions and the pooling."""

    def outputs(self, inputs: int) -> int:
        """Sum the channels of all branches."""
        return self.one + self.three[1] + self.double[1] + (self.pool or inputs)

    def divided(self, divisor: int) -> Widths:
        """Divide all widths."""
        return replace(
            self,
            one=self.one // divisor,
            three=(self.three[0] // divisor, self.three[1] // divisor),
            double=(self.double[0] // divisor, self.double[1] // divisor),
            pool=self.pool // divisor,
        )


BLOCKS = {
    "3a": Widths(64, (64, 64), (64, 96), 32),
    "3b": Widths(64, (64, 96), (64, 96), 64),
    "3c": Widths(0, (128, 160), (64, 96), 0, "max", stride=2),
    "4a": Widths(224, (64, 96), (96, 128), 128),
    "4b": Widths(192, (96, 128), (96, 128), 128),
    "4c": Widths(160, (128, 160), (128, 160), 128),
    "4d": Widths(96, (128, 192), (160, 192), 128),
    "4e": Widths(0, (128, 192), (192, 256), 0, "max", stride=2),
    "5a": Widths(352, (192, 320), (160, 224), 128),
    "5b": Widths(352, (192, 320), (192, 224), 128, "max"),
}


class InceptionBlock(nn.Module):
    """Four parallel branches, concatenated along the channels.

    Args:
        inputs: input channels.
        widths: channels of the branches.
        shared_only: only the first two convolutions of the third branch, where ECO Lite leaves the network.
    """

    def __init__(self, inputs: int, widths: Widths, *, shared_only: bool = False) -> None:
        super().__init__()
        self.widths = widths
        stride = widths.stride
        # ECO takes the features after double_3x3_1 for its 3D network.
        add_unit(self, "double_3x3_reduce", inputs, widths.double[0], 1)
        add_unit(self, "double_3x3_1", widths.double[0], widths.double[1], 3)
        if shared_only:
            return
        add_unit(self, "double_3x3_2", widths.double[1], widths.double[1], 3, stride)
        add_unit(self, "3x3_reduce", inputs, widths.three[0], 1)
        add_unit(self, "3x3", widths.three[0], widths.three[1], 3, stride)
        if widths.one:
            add_unit(self, "1x1", inputs, widths.one, 1)
        if widths.pool:
            add_unit(self, "pool_proj", inputs, widths.pool, 1)

    def shared(self, frames: Tensor) -> Tensor:
        """Compute the third branch up to its first 3x3: ``(N, double, h, w)``."""
        return unit(self, "double_3x3_1", unit(self, "double_3x3_reduce", frames))

    def forward(self, frames: Tensor, shared: Tensor | None = None) -> Tensor:
        """Features of frames ``(N, inputs, h, w)``; `shared` is passed if it was already computed."""
        double = unit(self, "double_3x3_2", self.shared(frames) if shared is None else shared)
        # In the Caffe model's order, which is the order of the next block's input channels.
        branches = [unit(self, "1x1", frames)] if self.widths.one else []
        branches += [unit(self, "3x3", unit(self, "3x3_reduce", frames)), double]
        if self.widths.pooling == "average":
            pooled = functional.avg_pool2d(frames, 3, stride=1, padding=1)
        elif self.widths.stride == 2:
            pooled = max_pool(frames)
        else:
            pooled = functional.max_pool2d(frames, 3, stride=1, padding=1)
        branches.append(unit(self, "pool_proj", pooled) if self.widths.pool else pooled)
        return torch.cat(branches, dim=1)


class BnInception(nn.Module):
    """BN-Inception without classifier: frames ``(N, 3, H, W)`` to features ``(N, D, h, w)`` of stride 32.

    Args:
        whole: if False, only the part that ECO Lite needs: up to the first 3x3 pair of block 3c.
        divisor: divides all widths; 1 is the published network.
    """

    def __init__(self, *, whole: bool = True, divisor: int = 1) -> None:
        super().__init__()
        channels = 192 // divisor
        add_unit(self, "conv1_7x7_s2", 3, 64 // divisor, 7, 2)
        add_unit(self, "conv2_3x3_reduce", 64 // divisor, 64 // divisor, 1)
        add_unit(self, "conv2_3x3", 64 // divisor, channels, 3)
        for name, published in BLOCKS.items():
            if not whole and name in HIGH_BLOCKS:
                break
            widths = published.divided(divisor)
            block = InceptionBlock(channels, widths, shared_only=not whole and name == "3c")
            self.add_module(f"inception_{name}", block)
            channels = widths.outputs(channels)
        self.shared_dim = BLOCKS["3c"].double[1] // divisor
        """Channels of `shared`."""
        self.feature_dim = channels if whole else 0
        """D; 0 when not whole."""
        # Subclasses add their own layers later, with their own initialization.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def low(self, frames: Tensor) -> Tensor:
        """Compute the stem and blocks 3a and 3b: ``(N, 320, h, w)`` of stride 8."""
        frames = max_pool(unit(self, "conv1_7x7_s2", frames))
        frames = max_pool(unit(self, "conv2_3x3", unit(self, "conv2_3x3_reduce", frames)))
        return self._block("3b")(self._block("3a")(frames))

    def shared(self, low: Tensor) -> Tensor:
        """Compute the input of ECO's 3D network, ``(N, 96, h, w)`` of stride 8: `inception_3c_double_3x3_1`."""
        return self._block("3c").shared(low)

    def high(self, low: Tensor, shared: Tensor) -> Tensor:
        """Compute the remaining blocks: ``(N, D, h, w)`` of stride 32."""
        frames = self._block("3c")(low, shared)
        for name in HIGH_BLOCKS:
            frames = self._block(name)(frames)
        return frames

    def forward(self, frames: Tensor) -> Tensor:
        """Features ``(N, D, h, w)`` of frames ``(N, 3, H, W)``."""
        low = self.low(frames)
        return self.high(low, self.shared(low))

    def convert_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a file in the Caffe model's flat names; weights in our names are returned unchanged.

        The names become nested (``inception_3a_1x1``: ``inception_3a.1x1``), and the first convolution takes normalized RGB
        instead of BGR bytes minus `CAFFE_MEAN`. Equal but at the border: there the file's network sees the mean where ours
        sees ImageNet's, 1% apart.

        Raises:
            ConfigError: a file in Caffe's names of a network on other than 3 channels.
        """
        flat = re.compile(r"^(inception_\d[a-e])_")
        if not any(flat.match(name) for name in state):
            return dict(state)
        nested = {flat.sub(r"\1.", name).replace("last_linear.", "fc."): value for name, value in state.items()}
        # The oldest port keeps batch normalization as (1, C).
        nested = {
            name: value.squeeze(0) if "_bn." in name and value.ndim == 2 else value for name, value in nested.items()
        }
        if (weight := nested.get("conv1_7x7_s2.weight")) is not None:
            if weight.shape[1] != 3:
                raise ConfigError(
                    f"The file's first convolution takes {weight.shape[1]} channels; in the Caffe model's names only "
                    "weights for images, of 3 channels, are converted. Take those, or a file in the names of this network."
                )
            # byte = 255 (std z + mean) for our normalized z: the scale goes into the weight, the rest into the bias.
            scale = 255 * torch.tensor(IMAGENET_STD, dtype=torch.float64, device=weight.device).view(1, 3, 1, 1)
            shift = 255 * torch.tensor(IMAGENET_MEAN, dtype=torch.float64) - torch.tensor(CAFFE_MEAN[::-1]).double()
            rgb = weight.flip(1).double()
            nested["conv1_7x7_s2.weight"] = (rgb * scale).to(weight.dtype)
            if (bias := nested.get("conv1_7x7_s2.bias")) is not None:
                moved = (rgb.sum(dim=(2, 3)) * shift.to(weight.device)).sum(dim=1)
                nested["conv1_7x7_s2.bias"] = (bias.double() + moved).to(bias.dtype)
        return nested

    def _block(self, name: str) -> InceptionBlock:
        block = self.get_submodule(f"inception_{name}")
        assert isinstance(block, InceptionBlock)
        return block


class BnInceptionClassifier(BnInception):
    """BN-Inception with its classifier, a backbone for any model on frames: ``(N, 3, H, W)`` to logits, or to features."""

    def __init__(self) -> None:
        super().__init__()
        self.fc: nn.Module = nn.Linear(self.feature_dim, 1000)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits ``(N, 1000)`` of frames ``(N, 3, H, W)``; features ``(N, 1024)`` if ``fc`` is removed."""
        return self.fc(super().forward(frames).mean(dim=(2, 3)))

    def residual_blocks(self) -> dict[str, list[ResidualBlock]]:
        """List the inception blocks by stage, for `vsn.models.blocks.residual_blocks`.

        An inception block has no addition; the branch of the 3x3 convolution takes the temporal operations, and the others
        keep each frame's own features, as an identity path does (ours; neither TSM's nor the VSN paper's). A stage begins
        with the block that halves the size, as in a ResNet; res2 has no inception block.
        """
        stages = {"res2": (), "res3": ("3a", "3b"), "res4": ("3c", "4a", "4b", "4c", "4d"), "res5": ("4e", "5a", "5b")}
        return {
            stage: [
                ResidualBlock(name, f"{name}.3x3_reduce", f"{name}.3x3", f"{name}.3x3_bn", f"{name}.3x3_reduce")
                for name in (f"inception_{block}" for block in stages[stage])
            ]
            for stage in STAGES
        }


def max_pool(frames: Tensor) -> Tensor:
    """Max-pool 3x3 with stride 2, as Caffe: ``(N, C, h, w)`` to ``(N, C, ceil(h / 2), ceil(w / 2))``.

    Rounded up for odd sizes too, where its output is concatenated with that of a convolution of stride 2. Zero padding at
    the end does not change the maximum, because a ReLU precedes.
    """
    return functional.max_pool2d(functional.pad(frames, (0, 2, 0, 2)), 3, stride=2)


def add_unit(parent: nn.Module, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
    """Add a convolution and its batch normalization, ``{name}_bn``, to a module."""
    parent.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2))
    parent.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))


def unit(parent: nn.Module, name: str, frames: Tensor) -> Tensor:
    """Apply the convolution of that name, its batch normalization and ReLU."""
    return functional.relu(getattr(parent, f"{name}_bn")(getattr(parent, name)(frames)))
