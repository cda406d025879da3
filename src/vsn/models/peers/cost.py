"""Build CoST: one 3x3 kernel, shared by the three views of a volume, whose outputs are weighted and added.

Source: Li, Zhong, Xie and Pu, "Collaborative Spatiotemporal Feature Learning for Video Action Recognition", CVPR 2019,
sections 3.2 and 3.3; placement, initial values and what the paper omits follow the authors' code. The 3x3 convolution of
every other residual block sees the views height-width, time-width and time-height with the same weights. Their weights,
one per view and output channel, sum to 1:

- ``cost-a``, CoST(a) in the paper: learned, the same for all clips. The first view begins with 0.67.
- ``cost``, CoST(b): computed from the clip, by two linear maps of the maxima of the views. The accuracies that other papers
  quote as CoST are of this one.

With a weight of 1 for the first view the network is C2D, so that weights of the 2D network fit unchanged. From 32 frames
on, conv1 sees 5 frames and conv1 and pool1 halve time (the paper's 32 frames); with fewer only the pooling after res2
does (its 8 frames).

Parameters and multiply-adds of 400 classes, one clip of 224x224 pixels. The paper gives accuracies only; these are of the
network as the authors' code builds it:

| model | T | parameters | multiply-adds |
|---|---|---|---|
| cost-a_resnet50, cost_resnet50 | 8 | 24.33M, 25.09M | 27.8G |
| cost-a_resnet101, cost_resnet101 | 8 | 43.33M, 44.41M | 50.1G |
| cost_resnet101 | 32 | 44.44M | 58.6G |

Other code bases quote 45.8G (ResNet-50) and 107G (ResNet-101) for CoST in all blocks but the first of a stage and without
the pooling after res2.
"""

from __future__ import annotations

from itertools import cycle, islice

import torch
from torch import Tensor, nn

from vsn.config import ConfigError, ModelConfig
from vsn.models.classifier import VolumeClassifier
from vsn.models.peers.resnet3d import SHAPES, ResNet3d, TimePlan
from vsn.models.short_clips import conv3d_short

DENSE_FRAMES = 32
"""From this T on, time is halved three times instead of once."""
PLANS = {
    False: TimePlan(pool2=(2, 2)),
    True: TimePlan(stem_kernel=5, stem_stride=2, pool1=(2, 2), pool2=(2, 2)),
}
"""Kernels and strides along time, by whether T is at least DENSE_FRAMES."""

# Blocks of res2 to res5 that have a CoST convolution, 1, repeated cyclically (the authors' configuration files).
_EVERY_OTHER = ((0, 1, 0), (1, 0), (1, 0), (1, 0))
PATTERNS: dict[str, tuple[tuple[int, ...], ...]] = {
    "resnet50": _EVERY_OTHER,
    "resnet101": (*_EVERY_OTHER[:3], (0, 1)),
    "resnet26_thin": _EVERY_OTHER,
}

# The axis along which the kernel of each view has length 1, in a weight (O, I, T, H, W): height-width, time-width,
# time-height.
_FLAT_AXES = (2, 3, 4)
_INITIAL = (0.7, -0.7, -0.7)


def build(config: ModelConfig) -> VolumeClassifier:
    """Build CoST(b), or CoST(a) for names with ``cost-a``.

    Raises:
        ConfigError: a T of which the poolings would drop frames.
    """
    dense = config.num_frames >= DENSE_FRAMES
    divisor = 8 if dense else 2
    if config.num_frames % divisor:
        raise ConfigError(
            f"model.num_frames is {config.num_frames}; {config.name} halves time {'three times' if dense else 'once'}: use "
            f"a multiple of {divisor}, such as the paper's {DENSE_FRAMES if dense else 8}."
        )
    body = cost_body(config.backbone, dense=dense, by_clip=config.kind == "cost")
    return VolumeClassifier(body, config, feature_dim=body.feature_dim)


def cost_body(name: str, *, dense: bool, by_clip: bool) -> ResNet3d:
    """Build the convolutions of CoST: a volume ``(B, C, T, H, W)`` to features ``(B, D, T', H / 32, W / 32)``.

    T' is T / 8 if ``dense``, otherwise T / 2; `by_clip` selects CoST(b).
    """
    body = ResNet3d(SHAPES[name], PLANS[dense])
    stages = (body.layer1, body.layer2, body.layer3, body.layer4)
    for stage, pattern in zip(stages, PATTERNS[name], strict=True):
        for block, flag in zip(stage, islice(cycle(pattern), len(stage)), strict=True):
            if flag:
                conv = block.conv2
                assert isinstance(conv, nn.Conv3d)
                block.conv2 = CostConv3d(conv.in_channels, conv.out_channels, stride=conv.stride[1], by_clip=by_clip)
    return body


class CostConv3d(nn.Module):
    """A 3x3 convolution on three views of a volume, and their weighted sum.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: in height and width.
        by_clip: compute the weights of the views from the clip (CoST(b)); otherwise they are parameters (CoST(a)).
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, by_clip: bool) -> None:
        super().__init__()
        self.stride = stride
        # The shape of the 2D network's kernel, whose weights it takes.
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.channels: nn.Linear | None = None
        self.views: nn.Linear | None = None
        self.scores: nn.Parameter | None = None
        if by_clip:
            self.channels = nn.Linear(outputs, outputs, bias=False)
            self.views = nn.Linear(3, 3, bias=False)
            nn.init.normal_(self.channels.weight, std=0.01)
            nn.init.normal_(self.views.weight, std=0.01)
        else:
            self.scores = nn.Parameter(torch.tensor(_INITIAL)[:, None].repeat(1, outputs))

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, inputs, T, h, w)`` to ``(B, outputs, T, ceil(h / stride), ceil(w / stride))``."""
        outputs = [
            conv3d_short(
                volume,
                self.weight.unsqueeze(axis),
                stride=(1, self.stride, self.stride),
                padding=tuple(int(axis != other) for other in (2, 3, 4)),
            )
            for axis in _FLAT_AXES
        ]
        weights = self.view_weights(outputs).unbind(dim=1)
        first, *others = (
            output * weight[:, :, None, None, None] for output, weight in zip(outputs, weights, strict=True)
        )
        return sum(others, start=first)

    def view_weights(self, outputs: list[Tensor]) -> Tensor:
        """Compute the weights of the views from their outputs ``(B, C, T, h, w)``: ``(B, 3, C)``, or ``(1, 3, C)``."""
        if self.scores is not None:
            return self.scores.softmax(dim=0)[None]
        assert self.channels is not None
        assert self.views is not None
        maxima = torch.stack([output.amax(dim=(2, 3, 4)) for output in outputs], dim=1)  # (B, 3, C)
        # Across channels, the same map for each view; then across views, the same map for each channel.
        scores = self.views(self.channels(maxima).transpose(1, 2))
        return scores.softmax(dim=2).transpose(1, 2)

    def extra_repr(self) -> str:
        """Show the channels and the stride."""
        outputs, inputs = self.weight.shape[:2]
        return f"{inputs}, {outputs}, stride={self.stride}"
