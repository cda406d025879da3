"""What the 3D networks share: the clip becomes a volume, a body sees it, its features are averaged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vsn.config import ModelConfig
from vsn.models.backbones import FLOW_MEAN, FLOW_STD, IMAGENET_MEAN, IMAGENET_STD
from vsn.models.classifier import VideoClassifier
from vsn.models.stem import widen_stem

IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
"""Mean and deviation of the pixels of Kinetics, with which torchvision's video networks were trained."""


class VolumeClassifier(VideoClassifier):
    """A 3D network on a clip; the average of its features over time and space; a linear layer.

    Its first argument is the body, a module from a volume ``(B, C', T, H, W)``, floating point and normalized, to
    features ``(B, feature_dim, T', H', W')``. It becomes `backbone`: the names of its weights begin so.
    """

    def forward(self, clip: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of a clip ``(B, T, C, H, W)``."""
        scores = self.head(self.dropout(self.clip_features(clip)))
        # As a `FrameClassifier` gives them.
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def clip_features(self, clip: Tensor) -> Tensor:
        """Features ``(B, D)`` of a clip, before dropout and head."""
        volume = self.normalized(clip).transpose(1, 2)
        return self.backbone(volume).mean(dim=(2, 3, 4))


def build_volume(
    config: ModelConfig,
    body: nn.Module,
    *,
    feature_dim: int,
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET,
) -> VolumeClassifier:
    """The classifier around a body for RGB, whose first convolution is widened to the modality's channels.

    Args:
        config: the other settings.
        body: as `VolumeClassifier` takes it, with random weights.
        feature_dim: D, channels of its features.
        normalization: mean and standard deviation of RGB in [0, 1]; flow has its own.
    """
    widen_stem(body, config.stem_channels)
    return VolumeClassifier(
        body,
        feature_dim=feature_dim,
        num_classes=config.num_classes,
        num_frames=config.num_frames,
        any_num_frames=config.any_num_frames,
        dropout=config.dropout,
        normalization=(FLOW_MEAN, FLOW_STD) if config.modality == "flow" else normalization,
        modality=config.modality,
        num_channels=config.clip_channels,
    )
