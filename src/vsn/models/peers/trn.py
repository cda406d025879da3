"""Build TRN: a 2D CNN on each frame, and a small network on ordered tuples of frames.

Source: Zhou, Andonian, Oliva and Torralba, "Temporal Relational Reasoning in Videos", ECCV 2018, equations 1 to 4
and section 3.3; sizes, the place of dropout and the number of tuples follow the authors' code.

- Features of a frame, after dropout, are projected to 256 values. g takes those of s frames, concatenated: ReLU, linear,
  ReLU. h is linear. Single-scale TRN has one g of T frames with 512 outputs; multi-scale TRN has one with 256 outputs for
  each scale s = 2 .. T.
- h is linear, so that the sum of h over scales is one linear layer on the concatenated outputs of g, each summed over its
  tuples. That layer is `head`; its single bias is the sum of the scales' (the authors' code adds the bias once per tuple;
  the function is the same).
- Training draws 3 random tuples of each scale at each step, the same for all clips of a batch, without replacement, by
  dropout's generator (`torch.manual_seed`). The authors' code draws in evaluation too. Ours takes the expected value
  instead: 3 times the mean of g over all tuples, or over MAX_TUPLES of them, evenly spread.

Parameters on ResNet-50 with T = 8 and C classes: 23,508,032 of the backbone, 256 (2048 + 1) of the projection, and
512 (8 * 256 + 1) + C (512 + 1) of TRN, or the sum over s of 256 (256 s + 1), and C (7 * 256 + 1), of MTRN: 25.2M and
26.6M for 174 classes. Multiply-adds at 224x224 are 32.70G, as TSN's, and 32.77G, 0.2% more (evaluation, all 247 tuples).
The paper gives no counts; its backbone is BN-Inception, ours is any.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vsn.config import ConfigError, ModelConfig
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.classifier import FrameClassifier

FRAME_FEATURES = 256
"""Values that each frame's features are projected to."""
NUM_TUPLES = 3
"""Tuples of each scale drawn per training step, or all if there are fewer."""
MAX_TUPLES = 100
"""Tuples of each scale in evaluation, at most; of 8 frames there are at most 70."""


def build(config: ModelConfig) -> RelationClassifier:
    """Build TRN, with one relation of all T frames, or MTRN, with relations of 2, 3, ... T frames.

    Raises:
        ConfigError: MTRN with fewer than two frames.
    """
    if config.kind == "mtrn" and config.num_frames < 2:
        raise ConfigError(
            f"model.num_frames is {config.num_frames}; mtrn_ needs at least 2 frames. Set it higher, or use tsn_."
        )
    multi_scale = config.kind == "mtrn"
    backbone = build_backbone(config.backbone, in_channels=config.stem_channels)
    return RelationClassifier(
        backbone,
        config,
        feature_dim=remove_classifier(backbone),
        scales=tuple(range(2, config.num_frames + 1)) if multi_scale else (config.num_frames,),
        hidden=256 if multi_scale else 512,
    )


class FrameRelation(nn.Module):
    """g of one scale: s ordered frames to hidden values, summed over tuples of frames.

    Args:
        num_frames: T, frames of the clip.
        scale: s, frames of a tuple, 1 to T.
        hidden: outputs of g.
    """

    tuples: Tensor

    def __init__(self, *, num_frames: int, scale: int, hidden: int) -> None:
        super().__init__()
        self.num_frames, self.scale = num_frames, scale
        self.num_drawn = min(NUM_TUPLES, math.comb(num_frames, scale))
        self.fuse = nn.Linear(scale * FRAME_FEATURES, hidden)
        self.register_buffer("tuples", _spread_tuples(num_frames, scale), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Frame features ``(B, T, 256)`` to ``(B, hidden)``; in training of tuples drawn at random."""
        chosen = self._draw().to(features.device) if self.training else self.tuples
        values = self.fuse(features[:, chosen].flatten(2).relu()).relu()
        return values.sum(dim=1) if self.training else values.mean(dim=1) * self.num_drawn

    def _draw(self) -> Tensor:
        """Draw different tuples with equal probability: int64 ``(num_drawn, s)``."""
        drawn: set[tuple[int, ...]] = set()
        while len(drawn) < self.num_drawn:
            # Sorted: a relation takes frames in their order. On the CPU, so that all devices draw the same.
            frames = torch.randperm(self.num_frames, device="cpu")[: self.scale].sort().values
            drawn.add(tuple(frames.tolist()))
        return torch.tensor(sorted(drawn), device="cpu")


class RelationClassifier(FrameClassifier):
    """TRN: frame features, projected, to relations, to logits.

    There is a relation with ``hidden`` outputs for each number of frames in ``scales``.
    """

    def __init__(
        self, backbone: nn.Module, config: ModelConfig, *, feature_dim: int, scales: tuple[int, ...], hidden: int
    ) -> None:
        super().__init__(backbone, config, feature_dim=hidden * len(scales))
        self.projection = nn.Linear(feature_dim, FRAME_FEATURES)
        self.relations = nn.ModuleDict(
            {str(scale): FrameRelation(num_frames=config.num_frames, scale=scale, hidden=hidden) for scale in scales}
        )

    def scores_of(self, features: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of frame features ``(B, T, D)``; only training draws tuples."""
        features = self.projection(self.dropout(features))
        relations = [relation(features) for relation in self.relations.values()]
        scores = self.head(torch.cat(relations, dim=1))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _spread_tuples(num_frames: int, scale: int) -> Tensor:
    """List ordered tuples of frames, int64 ``(at most MAX_TUPLES, scale)``: all, or evenly spread over all.

    Of 8 frames, scale 2: (0, 1), (0, 2), ... (6, 7). Tuples are numbered in lexicographic order, so that every n-th can be
    computed without listing all: of 64 frames there are 10^18 of scale 32.
    """
    count = math.comb(num_frames, scale)
    num_kept = min(count, MAX_TUPLES)
    return torch.tensor([_tuple_of_rank(i * count // num_kept, num_frames, scale) for i in range(num_kept)])


def _tuple_of_rank(rank: int, num_frames: int, scale: int) -> list[int]:
    """Return the tuple at a position of the lexicographic order."""
    frames: list[int] = []
    frame = 0
    for remaining in range(scale - 1, -1, -1):
        # Skip all tuples that continue with this frame, if the rank is beyond them.
        while rank >= (count := math.comb(num_frames - frame - 1, remaining)):
            rank -= count
            frame += 1
        frames.append(frame)
        frame += 1
    return frames
