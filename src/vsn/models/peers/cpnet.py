"""Build CPNet: a 2D CNN on each frame, in which points of a frame meet the most similar points of all other frames.

Source: Liu, Lee and Jin, "Learning Video Representations from Correspondence Proposals", CVPR 2019, sections 3.2 and 3.3;
placement, sizes and initial values follow the authors' code. A correspondence-proposal module finds for each point of the
feature maps its k nearest points, by Euclidean distance of the features, in the other frames of the clip. Each pair, the two
features and the difference of their places in time, height and width, passes a small shared network; the maximum over the
k pairs is added to the residual block's sum before its last ReLU. The modules start at zero, as the network without
them, so that weights of the 2D network fit.

- Gradients flow through the features of the pairs, not through the choice of the neighbors.
- In res3 the maps are halved before and enlarged after, bilinearly with pixel centers aligned as PyTorch does; the
  authors' TensorFlow 1 aligns corners at the origin instead, a shift of half a pixel.
- Features are averaged over frames and places before dropout.

| with 400 classes, 224x224 pixels | published | ours |
|---|---|---|
| parameters, ResNet-101 | none | 44.37M, of which 1.05M in five modules |
| multiply-adds, ResNet-101, T = 8; 32 | none | 66.0G; 279.0G |
| parameters, ResNet-34 | none | 21.75M, of which 0.26M in five modules |
| multiply-adds, ResNet-34, T = 12 | none | 52.1G |

Strides are in a block's 3x3 convolution, as torchvision's; distances are counted to the other frames' points only.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck

from vsn.config import ConfigError, ModelConfig
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.classifier import FrameClassifier


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The correspondence-proposal modules of a network.

    Attributes:
        res3: numbers of the blocks of res3 that have a module; there maps are halved.
        res4: the same of res4.
        neighbors: k, pairs of each point.
        reduction: channels of the residual sum are divided by this before the search; 1: no convolution before it.
        hidden: for each layer of the pairs' network, the share of the residual sum's channels, as a divisor.
    """

    res3: tuple[int, ...]
    res4: tuple[int, ...]
    neighbors: int
    reduction: int
    hidden: tuple[int, ...]


PLANS = {
    "resnet34": Plan(res3=(2, 3), res4=(3, 4, 5), neighbors=8, reduction=1, hidden=(4, 2)),
    "resnet101": Plan(res3=(2, 3), res4=(20, 21, 22), neighbors=4, reduction=8, hidden=(8,)),
    "resnet26_thin": Plan(res3=(1,), res4=(1,), neighbors=4, reduction=8, hidden=(8,)),
}
"""By the name of the 2D network: the last blocks of res3 and res4. The thin one is ours."""


def build(config: ModelConfig) -> CorrespondenceClassifier:
    """Build CPNet on ``config.backbone``.

    Raises:
        ConfigError: a single frame, whose points have no neighbors.
    """
    if config.num_frames < 2:
        raise ConfigError(
            f"model.num_frames is {config.num_frames}; {config.name} looks for similar points in other frames, so that it "
            "needs at least 2. Set it higher, or use tsn_."
        )
    backbone = build_backbone(config.backbone, in_channels=config.stem_channels)
    insert_proposals(backbone, PLANS[config.backbone], num_frames=config.num_frames)
    return CorrespondenceClassifier(backbone, config, feature_dim=remove_classifier(backbone))


class CorrespondenceClassifier(FrameClassifier):
    """A `FrameClassifier` that averages features, not scores: one dropout mask for all frames of a clip."""

    def scores_of(self, features: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of frame features ``(B, T, D)``."""
        wide = torch.promote_types(features.dtype, torch.float32)
        scores = self.head(self.dropout(features.mean(dim=1, dtype=wide).to(features.dtype)))
        return scores.to(wide)


class CorrespondenceProposal(nn.Module):
    """Features of each point's nearest points in the other frames; zero at the start.

    Args:
        channels: C of the residual sum.
        num_frames: T, frames of a clip.
        plan: sizes; see `Plan`.
        halve: halve height and width before the search, and double them after.
    """

    def __init__(self, channels: int, *, num_frames: int, plan: Plan, halve: bool) -> None:
        super().__init__()
        self.num_frames, self.neighbors, self.halve = num_frames, plan.neighbors, halve
        width = channels // plan.reduction
        self.reduce: nn.Module = nn.Identity()
        if plan.reduction > 1:
            self.reduce = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        layers: list[nn.Module] = []
        inputs = 2 * width + 3
        for divisor in plan.hidden:
            outputs = channels // divisor
            layers += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        self.pairs = nn.Sequential(*layers)
        self.expand = nn.Conv2d(inputs, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        assert self.expand.bias is not None
        nn.init.zeros_(self.expand.bias)
        # A new module is zero, so that it can be inserted into a pretrained network.
        nn.init.zeros_(self.bn.weight)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames ``(B*T, C, h, w)`` to the same shape.

        Raises:
            ValueError: the other frames have fewer points than k.
        """
        size = frames.shape[2:]
        reduced = self.reduce(frames)
        if self.halve:
            reduced = _resize(reduced, (size[0] + 1) // 2, (size[1] + 1) // 2)
        height, width = reduced.shape[2:]
        # (B*T, c, h, w) to points (B, T, h*w, c).
        points = reduced.flatten(2).transpose(1, 2).unflatten(0, (-1, self.num_frames))
        chosen = nearest_of_other_frames(points, self.neighbors).flatten(1, 2)  # (B, P, k)
        own = points.flatten(1, 2)  # (B, P, c)
        other = own.gather(1, chosen.flatten(1)[:, :, None].expand(-1, -1, own.shape[2])).unflatten(1, chosen.shape[1:])
        places = _places(self.num_frames, height, width, like=own)
        offsets = places[chosen] - places[:, None]  # (B, P, k, 3)
        pairs = torch.cat([offsets, own[:, :, None].expand_as(other), other], dim=3)
        # Channels first, for the 1x1 convolutions; then the best of each point's pairs.
        best = self.pairs(pairs.permute(0, 3, 1, 2)).amax(dim=3)  # (B, hidden, P)
        maps = best.unflatten(2, (self.num_frames, height, width)).transpose(1, 2).flatten(0, 1)
        maps = self.bn(self.expand(maps))
        return _resize(maps, *size) if self.halve else maps

    def extra_repr(self) -> str:
        """Show k and T."""
        return f"neighbors={self.neighbors}, num_frames={self.num_frames}, halve={self.halve}"


def nearest_of_other_frames(points: Tensor, neighbors: int) -> Tensor:
    """Find the nearest points in the other frames of a clip, by Euclidean distance.

    Args:
        points: ``(B, T, N, c)``, N points of each frame.
        neighbors: k.

    Returns:
        int64 ``(B, T, N, k)``, numbers of points in ``points.flatten(1, 2)``, in any order.

    Raises:
        ValueError: the other frames have fewer than k points.
    """
    num_frames = points.shape[1]
    available = (num_frames - 1) * points.shape[2]
    # A compiled or exported graph cannot stop; its sizes were checked when it was made.
    if not torch.compiler.is_compiling() and available < neighbors:
        raise ValueError(
            f"Expected at least {neighbors} points in the {num_frames - 1} other frames of a clip, one for each neighbor, "
            f"got {available}. Use larger frames, or more of them."
        )
    # The difference of large numbers below needs float32, also in training in half precision.
    points = points.detach().to(torch.promote_types(points.dtype, torch.float32))
    device = points.device.type
    mixed = device != "meta" and torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False) if mixed else contextlib.nullcontext():
        # Frame by frame: the distances between all points of 32 frames would be 39 million for each clip.
        return torch.stack([_nearest_of_frame(points, t, neighbors) for t in range(num_frames)], dim=1)


def _nearest_of_frame(points: Tensor, frame: int, neighbors: int) -> Tensor:
    """Find the nearest points of one frame's ``(B, N, k)``."""
    num_frames, count = points.shape[1:3]
    others = torch.cat([points[:, :frame], points[:, frame + 1 :]], dim=1).flatten(1, 2)
    numbers = torch.arange(num_frames * count, device=points.device).unflatten(0, (num_frames, count))
    numbers = torch.cat([numbers[:frame], numbers[frame + 1 :]]).flatten()
    # |p - q|^2 = |p|^2 - 2 p q + |q|^2, of which the first is the same for all q.
    distances = others.square().sum(dim=2)[:, None] - 2 * (points[:, frame] @ others.transpose(1, 2))
    return numbers[distances.topk(neighbors, dim=2, largest=False, sorted=False).indices]


def insert_proposals(backbone: nn.Module, plan: Plan, *, num_frames: int) -> None:
    """Insert correspondence-proposal modules into residual blocks of a ResNet, in place; weight names do not change."""
    for stage, numbers in (("layer2", plan.res3), ("layer3", plan.res4)):
        for number in numbers:
            name = f"{stage}.{number}"
            block = backbone.get_submodule(name)
            assert isinstance(block, (BasicBlock, Bottleneck))
            last = block.conv3 if isinstance(block, Bottleneck) else block.conv2
            proposal = CorrespondenceProposal(
                last.out_channels, num_frames=num_frames, plan=plan, halve=stage == "layer2"
            )
            kind: type[BottleneckWithProposal | BasicBlockWithProposal] = (
                BottleneckWithProposal if isinstance(block, Bottleneck) else BasicBlockWithProposal
            )
            # Shares the block's modules; __init__ would draw random weights that are thrown away.
            new = kind.__new__(kind)
            new.__dict__.update(block.__dict__)
            new.proposal = proposal
            backbone.set_submodule(name, new)


class BasicBlockWithProposal(BasicBlock):
    """torchvision's block of two 3x3 convolutions with a `CorrespondenceProposal` before its last ReLU."""

    proposal: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """``(B*T, C_in, h, w)`` to ``(B*T, C, h', w')``."""
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return _end(self, branch, x)


class BottleneckWithProposal(Bottleneck):
    """torchvision's bottleneck block with a `CorrespondenceProposal` before its last ReLU."""

    proposal: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """``(B*T, C_in, h, w)`` to ``(B*T, C, h', w')``."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(branch)))))
        return _end(self, branch, x)


def _end(block: BasicBlockWithProposal | BottleneckWithProposal, branch: Tensor, frames: Tensor) -> Tensor:
    total = branch + (frames if block.downsample is None else block.downsample(frames))
    return functional.relu(total + block.proposal(total))


def _resize(frames: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(frames, (height, width), mode="bilinear", align_corners=False)


def _places(num_frames: int, height: int, width: int, *, like: Tensor) -> Tensor:
    """Compute time, height and width of every point as shares of their lengths: ``(T * height * width, 3)``."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) / n for n in (num_frames, height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
