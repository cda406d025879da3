"""TRN: a 2D CNN on each frame, and a small network on tuples of frames in their order.

Source: Zhou, Andonian, Oliva and Torralba, "Temporal Relational Reasoning in Videos", ECCV 2018, equations 1 to 4
and section 3.3; sizes, the place of dropout and the number of tuples are those of the authors' code.

Read so:
- Features of a frame, after dropout, are projected to 256 values. g, on the values of s frames one after the other,
  is ReLU, linear, ReLU; h is linear. Single-scale TRN has one g of T frames and 512 values; multi-scale TRN has
  one of 256 values for each scale s = 2 .. T.
- h is linear, so that adding h of each scale is one linear layer on what the scales' g, added over the tuples,
  give side by side. That layer is `head`; its one bias is the sum of the scales' (the authors' code adds
  the bias once a tuple; the function is the same).
- In training 3 random tuples of each scale are drawn at each step, the same for all clips of a batch, without
  replacement, by the generator of dropout (`torch.manual_seed`). The authors' code draws in evaluation too. Ours
  does not: evaluation takes what the draw gives on average, 3 times the mean of g over all tuples, or over at most
  MAX_TUPLES of them, spread evenly.

Parameters on ResNet-50 with T = 8 and C classes: 23,508,032 of the backbone, 256 (2048 + 1) of the projection, and
512 (8 * 256 + 1) + C (512 + 1) of TRN, or the sum over s of 256 (256 s + 1), and C (7 * 256 + 1), of MTRN: 25.2M and
26.6M for 174 classes. Multiply-adds at 224x224 are 32.70G and 32.77G, as much as TSN's and 0.2% more (evaluation, all 247
tuples). The paper gives no counts; its backbone is BN-Inception, ours any.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vsn.config import ConfigError, ModelConfig
from vsn.models.backbones import build_backbone, normalization, remove_classifier
from vsn.models.classifier import FrameClassifier
from vsn.models.stem import widen_stem

FRAME_FEATURES = 256
"""What each frame's features are projected to."""
NUM_TUPLES = 3
"""Tuples drawn of each scale at a step of training; all there are where there are fewer."""
MAX_TUPLES = 100
"""Tuples of each scale that evaluation looks at; there are at most 70 of 8 frames."""


def build_trn(config: ModelConfig) -> RelationClassifier:
    """TRN (Zhou et al. 2018), single-scale: one relation of all T frames."""
    return _build(config, scales=(config.num_frames,), hidden=512)


def build_mtrn(config: ModelConfig) -> RelationClassifier:
    """Multi-scale TRN (Zhou et al. 2018): relations of 2, 3, ... T frames.

    Raises:
        ConfigError: fewer than two frames.
    """
    if config.num_frames < 2:
        raise ConfigError(
            f"model.num_frames is {config.num_frames}; a multi-scale TRN relates at least 2 frames. Take more, or a tsn_."
        )
    return _build(config, scales=tuple(range(2, config.num_frames + 1)), hidden=256)


class FrameRelation(nn.Module):
    """g of one scale: s frames in order to hidden values, added over tuples of frames.

    Args:
        num_frames: T, frames of the clip.
        scale: s, frames of a tuple, 1 to T.
        hidden: values g gives.
    """

    tuples: Tensor

    def __init__(self, *, num_frames: int, scale: int, hidden: int) -> None:
        super().__init__()
        self.num_frames, self.scale = num_frames, scale
        self.fuse = nn.Linear(scale * FRAME_FEATURES, hidden)
        self.register_buffer("tuples", _spread_tuples(num_frames, scale), persistent=False)

    @property
    def num_drawn(self) -> int:
        """Tuples that training looks at in a step."""
        return min(NUM_TUPLES, math.comb(self.num_frames, self.scale))

    def forward(self, features: Tensor) -> Tensor:
        """Frame features ``(B, T, 256)`` to ``(B, hidden)``; in training of tuples drawn at random."""
        chosen = self._draw().to(features.device) if self.training else self.tuples
        values = self.fuse(features[:, chosen].flatten(2).relu()).relu()
        return values.sum(dim=1) if self.training else values.mean(dim=1) * self.num_drawn

    def _draw(self) -> Tensor:
        """Different tuples, each as likely as another: int64 ``(num_drawn, s)``."""
        drawn: set[tuple[int, ...]] = set()
        while len(drawn) < self.num_drawn:
            frames = torch.randperm(self.num_frames, device="cpu")[: self.scale].sort().values
            drawn.add(tuple(frames.tolist()))
        return torch.tensor(sorted(drawn), device="cpu")


class RelationClassifier(FrameClassifier):
    """TRN: frame features, projected, to relations, to logits. Arguments as `FrameClassifier`, and:

    Args:
        scales: numbers of frames that are related.
        hidden: values each relation gives.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        feature_dim: int,
        scales: tuple[int, ...],
        hidden: int,
        config: ModelConfig,
    ) -> None:
        super().__init__(
            backbone,
            feature_dim=hidden * len(scales),
            num_classes=config.num_classes,
            num_frames=config.num_frames,
            any_num_frames=False,
            dropout=config.dropout,
            normalization=normalization(backbone, config.modality),
            modality=config.modality,
            num_channels=config.clip_channels,
        )
        self.projection = nn.Linear(feature_dim, FRAME_FEATURES)
        self.relations = nn.ModuleDict(
            {str(scale): FrameRelation(num_frames=config.num_frames, scale=scale, hidden=hidden) for scale in scales}
        )

    def forward(self, clip: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of a clip ``(B, T, C, H, W)``; in evaluation nothing is drawn."""
        return self.scores_of(self.frame_features(clip))

    def scores_of(self, features: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of what `frame_features` gives."""
        features = self.projection(self.dropout(features))
        related = [relation(features) for relation in self.relations.values()]
        scores = self.head(torch.cat(related, dim=1))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _spread_tuples(num_frames: int, scale: int) -> Tensor:
    """Tuples of frames in order, int64 ``(at most MAX_TUPLES, scale)``: all, or evenly spread over all."""
    count = math.comb(num_frames, scale)
    kept = min(count, MAX_TUPLES)
    return torch.tensor([_tuple_of_rank(i * count // kept, num_frames, scale) for i in range(kept)])


def _tuple_of_rank(rank: int, num_frames: int, scale: int) -> list[int]:
    """The tuple at a place of the alphabetic order of all, which need not be written down for that."""
    frames: list[int] = []
    frame = 0
    for left in range(scale - 1, -1, -1):
        # How many tuples go on with this frame.
        while rank >= (count := math.comb(num_frames - frame - 1, left)):
            rank -= count
            frame += 1
        frames.append(frame)
        frame += 1
    return frames


def _build(config: ModelConfig, *, scales: tuple[int, ...], hidden: int) -> RelationClassifier:
    backbone = build_backbone(config.backbone)
    widen_stem(backbone, config.stem_channels)
    return RelationClassifier(
        backbone, feature_dim=remove_classifier(backbone), scales=scales, hidden=hidden, config=config
    )
