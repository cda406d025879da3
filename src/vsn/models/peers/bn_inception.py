"""BN-Inception, the 2D network of ECO.

Source: Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift", ICML 2015, appendix: the variant with two 3x3 convolutions for each 5x5. Names are those of the Caffe model
that TSN and ECO start from (`inception_3a_1x1` there is `inception_3a.1x1` here), biases under batch normalization
included. With a classifier of 1000 classes it has 11,295,240 parameters; ours are counted against that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

HIGH_BLOCKS = ("4a", "4b", "4c", "4d", "4e", "5a", "5b")


@dataclass(frozen=True)
class Widths:
    """Output channels of the branches of an inception block; 0 leaves a branch out."""

    one: int
    """1x1."""
    three: tuple[int, int]
    """1x1, then 3x3."""
    double: tuple[int, int]
    """1x1, then 3x3 twice."""
    pool: int
    """Pooling, then 1x1. 0: the maximum, as it is."""
    pooling: str = "average"
    """Of the fourth branch: "average" or "max"."""
    stride: int = 1
    """Of the last 3x3 convolutions and the pooling."""

    def outputs(self, inputs: int) -> int:
        """Channels of all branches together."""
        return self.one + self.three[1] + self.double[1] + (self.pool or inputs)


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
    """Four branches side by side on the same frames; their channels one after the other.

    Args:
        inputs: channels that come in.
        widths: channels of the branches.
        shared_only: only the first two convolutions of the third branch, which ECO Lite ends with.
    """

    def __init__(self, inputs: int, widths: Widths, *, shared_only: bool = False) -> None:
        super().__init__()
        self.widths = widths
        stride = widths.stride
        self._add("double_3x3_reduce", inputs, widths.double[0], 1)
        self._add("double_3x3_1", widths.double[0], widths.double[1], 3)
        if shared_only:
            return
        self._add("double_3x3_2", widths.double[1], widths.double[1], 3, stride)
        self._add("3x3_reduce", inputs, widths.three[0], 1)
        self._add("3x3", widths.three[0], widths.three[1], 3, stride)
        if widths.one:
            self._add("1x1", inputs, widths.one, 1)
        if widths.pool:
            self._add("pool_proj", inputs, widths.pool, 1)

    def _add(self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        add_unit(self, name, inputs, outputs, kernel, stride)

    def shared(self, frames: Tensor) -> Tensor:
        """What the third branch gives after its first 3x3: ``(N, double, h, w)``."""
        return unit(self, "double_3x3_1", unit(self, "double_3x3_reduce", frames))

    def forward(self, frames: Tensor, shared: Tensor | None = None) -> Tensor:
        """Features of frames ``(N, inputs, h, w)``; with `shared` as it was computed before."""
        double = unit(self, "double_3x3_2", self.shared(frames) if shared is None else shared)
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
        whole: False leaves out what ECO Lite does not need: all after the first 3x3 pair of block 3c.
        divisor: of all widths; 1 is the published network.
    """

    def __init__(self, *, whole: bool = True, divisor: int = 1) -> None:
        super().__init__()
        stem = [64 // divisor, 64 // divisor, 192 // divisor]
        add_unit(self, "conv1_7x7_s2", 3, stem[0], 7, 2)
        add_unit(self, "conv2_3x3_reduce", stem[0], stem[1], 1)
        add_unit(self, "conv2_3x3", stem[1], stem[2], 3)
        channels = stem[2]
        for name, published in BLOCKS.items():
            if not whole and name in HIGH_BLOCKS:
                break
            widths = _divided(published, divisor)
            block = InceptionBlock(channels, widths, shared_only=not whole and name == "3c")
            self.add_module(f"inception_{name}", block)
            channels = widths.outputs(channels)
        self.shared_dim = _divided(BLOCKS["3c"], divisor).double[1]
        """Channels of `shared`."""
        self.feature_dim = channels if whole else 0
        """D; 0 when not whole."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def low(self, frames: Tensor) -> Tensor:
        """Stem and blocks 3a and 3b: ``(N, 320, h, w)`` of stride 8."""
        frames = max_pool(unit(self, "conv1_7x7_s2", frames))
        frames = max_pool(unit(self, "conv2_3x3", unit(self, "conv2_3x3_reduce", frames)))
        return self._block("3b")(self._block("3a")(frames))

    def shared(self, low: Tensor) -> Tensor:
        """What ECO's 3D network sees, ``(N, 96, h, w)`` of stride 8: `inception_3c_double_3x3_1`."""
        return self._block("3c").shared(low)

    def high(self, low: Tensor, shared: Tensor) -> Tensor:
        """The rest: ``(N, D, h, w)`` of stride 32."""
        frames = self._block("3c")(low, shared)
        for name in HIGH_BLOCKS:
            frames = self._block(name)(frames)
        return frames

    def forward(self, frames: Tensor) -> Tensor:
        """Features ``(N, D, h, w)`` of frames ``(N, 3, H, W)``."""
        low = self.low(frames)
        return self.high(low, self.shared(low))

    def _block(self, name: str) -> InceptionBlock:
        block = self.get_submodule(f"inception_{name}")
        assert isinstance(block, InceptionBlock)
        return block


def nested_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the Caffe model's flat names, which PyTorch ports kept, in ours."""
    return {re.sub(r"^(inception_\d[a-e])_", r"\1.", name): value for name, value in state.items()}


def max_pool(frames: Tensor) -> Tensor:
    """Maximum of 3x3 at every second pixel, from the first on: ``(N, C, ceil(h / 2), ceil(w / 2))``.

    Caffe's pooling, rounded up for odd sizes too, where it has to meet a convolution of stride 2. The border of
    zeros changes nothing: a ReLU came before.
    """
    return functional.max_pool2d(functional.pad(frames, (0, 2, 0, 2)), 3, stride=2)


def add_unit(parent: nn.Module, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
    """Give a module a convolution of that name and its batch normalization, ``{name}_bn``."""
    parent.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2))
    parent.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))


def unit(parent: nn.Module, name: str, frames: Tensor) -> Tensor:
    """Convolution, batch normalization and ReLU of that name."""
    return functional.relu(getattr(parent, f"{name}_bn")(getattr(parent, name)(frames)))


def _divided(widths: Widths, divisor: int) -> Widths:
    return Widths(
        widths.one // divisor,
        (widths.three[0] // divisor, widths.three[1] // divisor),
        (widths.double[0] // divisor, widths.double[1] // divisor),
        widths.pool // divisor,
        widths.pooling,
        widths.stride,
    )
