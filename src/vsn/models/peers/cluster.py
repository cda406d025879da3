"""Build Attention Clusters: a 2D CNN on each frame, and several weighted averages of the frames' features.

Source: Long, Gan, de Melo, Wu, Liu and Wen, "Attention Clusters: Purely Attention Based Local Feature Integration for
Video Classification", CVPR 2018, sections 3.2 and 3.3; initial values and the place of dropout follow the first author's
code. Each of N units weighs the frames by the softmax of a linear map of their features. Its average v is scaled and
shifted by two learned numbers, ``alpha v + beta``, and normalized to the length ``1 / sqrt(N)`` (the shifting operation),
which keeps the units from becoming alike. All N are concatenated, to length 1, and classified by one linear layer. The
order of the frames is not seen, and their number is free.

The paper computes features beforehand and trains this head alone (`vsn features`, or ``train.freeze``), one cluster for each
of RGB, flow and audio; its Table of Kinetics has 75.0% for RGB. Its backbone is Inception-ResNet-v2,
``cluster_timm/inception_resnet_v2``. N of its Kinetics networks is not known to us; ``model.clusters`` is 32, as in a later
implementation of others for other data.

Parameters with M features and C classes, beside the backbone's: N (M + 3) of the units, C (N M + 1) of the classifier. For
M = 1536, N = 32 and C = 400: 49,248 and 19,661,200. Multiply-adds are those of the backbone, and 0.1% more. No counts are
published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vsn.config import ModelConfig
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.classifier import FrameClassifier


def build(config: ModelConfig) -> ClusterClassifier:
    """Build Attention Clusters on ``config.backbone``."""
    backbone = build_backbone(config.backbone, in_channels=config.stem_channels)
    return ClusterClassifier(backbone, config, feature_dim=remove_classifier(backbone))


class AttentionCluster(nn.Module):
    """N attention units with the shifting operation.

    Args:
        features: M, values of a frame.
        units: N.
    """

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.attention = nn.Linear(features, units)
        # The authors' Glorot initialization of a vector of N values.
        self.alpha = nn.Parameter(torch.empty(units).normal_(std=units**-0.25))
        self.beta = nn.Parameter(torch.empty(units).normal_(std=units**-0.25))

    def forward(self, features: Tensor) -> Tensor:
        """Frame features ``(B, T, M)`` to ``(B, N * M)``, of length 1."""
        weights = self.attention(features).softmax(dim=1)  # (B, T, N)
        averages = weights.transpose(1, 2) @ features  # (B, N, M)
        shifted = self.alpha[:, None] * averages + self.beta[:, None]
        # In half precision the smallest length to divide by would be zero.
        length_1 = functional.normalize(shifted.to(torch.promote_types(shifted.dtype, torch.float32)), dim=2)
        return (length_1 / len(self.alpha) ** 0.5).flatten(1).to(features.dtype)


class ClusterClassifier(FrameClassifier):
    """Frame features to an attention cluster, to logits."""

    def __init__(self, backbone: nn.Module, config: ModelConfig, *, feature_dim: int) -> None:
        super().__init__(backbone, config, feature_dim=feature_dim * config.clusters)
        self.cluster = AttentionCluster(feature_dim, config.clusters)

    def scores_of(self, features: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of frame features ``(B, T, D)``."""
        scores = self.head(self.dropout(self.cluster(features)))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))
